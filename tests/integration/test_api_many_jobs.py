"""Many jobs at once: submitted whole or not, once by a key, canceled and requeued by filters."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier
from typing import Any

import psycopg2
import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from scale.celery import app
from scale.core.errors import InvalidInput
from scale.core.lifecycle import State
from scale.job import bulk_actions
from scale.job.asked import BulkAction, IdempotencyKey
from scale.job.bulk_actions import (
    Filters,
    advance_bulk_action,
    ask_bulk_action,
    jobs_by,
    requeue_matching,
)
from scale.job.idempotency import submit_once
from scale.job.models import Job, JobExecution, JobType
from scale.job.submission import JobRequest, submit_jobs
from scale.job.tasks import forget_idempotency_keys, work_off_bulk_actions

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)
WITH_NUMBER = {
    "version": "1.0",
    "command": "true",
    "input_data": [
        {"name": "pause", "type": "property", "value_type": "number", "required": False},
        {"name": "flag", "type": "property", "value_type": "boolean", "required": False},
        {"name": "word", "type": "property", "required": False},
        {"name": "texts", "type": "files", "required": False},
    ],
}


def post(api: APIClient, path: str, **body: Any) -> Any:
    return api.post(path, body, format="json")


# Submitting.


def test_many_jobs_are_submitted_in_order(
    make_job_type: Callable[..., JobType],
    api: APIClient,
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    one, two = make_job_type(), make_job_type(interface=WITH_NUMBER)
    named = {"name": two.name, "version": two.version}
    jobs = [
        {"job_type_id": one.pk, "name": "a"},
        {"job_type": named, "name": "b", "inputs": {"pause": 3}, "priority": 7},
        *({"job_type_id": one.pk, "name": f"n{n}"} for n in range(50)),
    ]
    with django_assert_max_num_queries(12):
        answer = post(api, "/jobs/bulk/", jobs=jobs)
    assert answer.status_code == 201
    found = answer.json()
    assert found["count"] == len(found["job_ids"]) == 52
    rows = Job.objects.in_bulk(found["job_ids"])
    assert [rows[key].name for key in found["job_ids"][:3]] == ["a", "b", "n0"]
    second = rows[found["job_ids"][1]]
    assert (second.job_type_id, second.priority, second.status) == (two.pk, 7, "QUEUED")


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({}, "jobs[1].job_type"),
        ({"job_type_id": 999_999}, "jobs[1].job_type_id"),
        ({"job_type": {"name": "no", "version": "1"}}, "jobs[1].job_type"),
        ({"job_type": {"name": "no", "version": "1", "x": 1}}, "jobs[1].job_type.x"),
        ({"job_type_id": "TYPE", "foo": 1}, "jobs[1].foo"),
        ({"job_type_id": "TYPE", "priority": "BAD"}, "jobs[1].priority"),
        ({"job_type_id": "TYPE", "inputs": {"pause": "x"}}, "jobs[1].inputs.pause"),
        ("text", "jobs[1]"),
        (None, "jobs[1]"),
    ],
)
def test_one_bad_job_refuses_all_by_its_index(
    bad: Any, field: str, make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    job_type = make_job_type(interface=WITH_NUMBER)
    if isinstance(bad, dict) and bad.get("job_type_id") == "TYPE":
        bad = {**bad, "job_type_id": job_type.pk}
    answer = post(api, "/jobs/bulk/", jobs=[{"job_type_id": job_type.pk}, bad])
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "jobs"),
        ({"jobs": []}, "jobs"),
        ({"jobs": {}}, "jobs"),
        ({"jobs": [{}] * 1001}, "jobs"),
        ({"jobs": [{}], "more": 1}, "more"),
        ([], "body"),
    ],
)
def test_a_bulk_that_is_none(body: Any, field: str, api: APIClient, db: None) -> None:
    answer = api.post("/jobs/bulk/", body, format="json")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("prefix", ["", "/v3"])
def test_the_same_request_with_the_same_key_makes_one_job(
    prefix: str, make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    body = {"job_type_id": make_job_type().pk, "name": "once"}
    headers = {"Idempotency-Key": "k 1"}
    first = api.post("/jobs/", body, format="json", headers=headers)
    again = api.post(f"{prefix}/jobs/", body, format="json", headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert Job.objects.count() == 1


def test_a_key_is_for_one_request_of_one_user(
    make_job_type: Callable[..., JobType], make_user: Callable[..., Any], api: APIClient
) -> None:
    body = {"job_type_id": make_job_type().pk}
    headers = {"Idempotency-Key": "k"}
    assert api.post("/jobs/", body, format="json", headers=headers).status_code == 201
    other = api.post("/jobs/", {**body, "priority": 1}, format="json", headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    elsewhere = api.post("/jobs/bulk/", {"jobs": [body]}, format="json", headers=headers)
    assert elsewhere.status_code == 409
    stranger = APIClient()
    stranger.force_authenticate(make_user(role="operator"))
    assert stranger.post("/jobs/", body, format="json", headers=headers).status_code == 201
    assert Job.objects.count() == 2


def test_a_request_that_failed_leaves_its_key_free(
    make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    job_type, headers = make_job_type(), {"Idempotency-Key": "k"}
    bad = {"jobs": [{"job_type_id": job_type.pk, "inputs": {"no": 1}}]}
    good = {"jobs": [{"job_type_id": job_type.pk}] * 2}
    assert api.post("/jobs/bulk/", bad, format="json", headers=headers).status_code == 400
    first = api.post("/jobs/bulk/", good, format="json", headers=headers)
    again = api.post("/jobs/bulk/", good, format="json", headers=headers)
    assert first.status_code == 201
    assert first.json() == again.json()
    assert Job.objects.count() == 2


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "\xe9", "a\tb", "twice,twice"])
def test_a_key_that_is_none(
    key: str, make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    body = {"job_type_id": make_job_type().pk}
    answer = api.post("/jobs/", body, format="json", HTTP_IDEMPOTENCY_KEY=key)
    assert (answer.status_code, answer.json()["field"]) == (400, "Idempotency-Key")
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_requests_with_one_key_at_the_same_time_one_makes_the_job(
    make_job_type: Callable[..., JobType], make_user: Callable[..., Any]
) -> None:
    job_type, user, together = make_job_type(), make_user(role="operator"), Barrier(4)

    def submit(_: int) -> list[int]:
        together.wait()
        try:
            return submit_once(
                partial(submit_jobs, [JobRequest(job_type)], user="u", at=timezone.now()),
                user_id=user.pk,
                key="k",
                request_hash="h",
                at=timezone.now(),
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(submit, range(4)))
    assert Job.objects.count() == 1
    assert all(each == answers[0] for each in answers)


def test_a_key_that_is_forgotten_just_when_it_is_met_is_free(
    make_job_type: Callable[..., JobType], make_user: Callable[..., Any]
) -> None:
    user, now = make_user(), timezone.now()
    old = now - timedelta(days=8)
    IdempotencyKey.objects.create(user=user, key="k", request_hash="other", created=old)
    met: list[str] = []

    def forget_before_it_is_read(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("SELECT") and "idempotency_key" in sql and not met:
            met.append(sql)
            forget_idempotency_keys()
        return execute(sql, *rest)

    submit = partial(submit_jobs, [JobRequest(make_job_type())], user="u", at=now)
    facts: dict[str, Any] = {"user_id": user.pk, "key": "k", "request_hash": "h", "at": now}
    with connection.execute_wrapper(forget_before_it_is_read):
        made = submit_once(submit, **facts)
    assert met
    assert submit_once(submit, **facts) == made
    assert Job.objects.count() == 1


def test_keys_are_forgotten_after_a_week(make_user: Callable[..., Any]) -> None:
    now = timezone.now()
    for key, age in (("old", timedelta(days=8)), ("new", timedelta(days=6))):
        IdempotencyKey.objects.create(
            user=make_user(), key=key, request_hash="h", created=now - age
        )
    forget_idempotency_keys()
    assert [row.key for row in IdempotencyKey.objects.all()] == ["new"]


# The first interface of the queue.


def test_a_job_is_made_by_its_data_document(
    make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    job_type = make_job_type(interface=WITH_NUMBER)
    data = {
        "version": "1.0",
        "input_data": [
            {"name": "pause", "value": "10"},
            {"name": "flag", "value": "True"},
            {"name": "word", "value": "10"},
            {"name": "unknown", "value": "x"},
        ],
        "output_data": [{"name": "out", "workspace_id": 1}],
    }
    answer = post(api, "/queue/new-job/", job_type_id=job_type.pk, job_data=data)
    assert answer.status_code == 201
    job = answer.json()
    assert answer["Location"].endswith(f"/job-executions/{job['job_exes'][0]['id']}/")
    values = {each["name"]: each["value"] for each in job["inputs"]}
    assert values == {"pause": 10, "flag": True, "word": "10", "texts": None}


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"job_type_id": 999_999}, 404, "job_type_id"),
        ({"job_type_id": "BAD"}, 400, "job_type_id"),
        ({"job_type_id": ...}, 400, "job_type_id"),
        ({"job_data": 123}, 400, "job_data"),
        ({"job_data": {"version": "2.0"}}, 400, "job_data.version"),
        ({"job_data": {"input_data": {}}}, 400, "job_data.input_data"),
        ({"job_data": {"input_data": [1]}}, 400, "job_data.input_data[0]"),
        ({"job_data": {"input_data": [{"name": "word"}]}}, 400, "job_data.input_data[0]"),
        (
            {"job_data": {"input_data": [{"name": "word", "value": "a", "file_id": 1}]}},
            400,
            "job_data.input_data[0]",
        ),
        (
            {"job_data": {"input_data": [{"name": "word", "value": "a"}] * 2}},
            400,
            "job_data.input_data[1]",
        ),
        (
            {"job_data": {"input_data": [{"name": "texts", "file_ids": [999_999]}]}},
            400,
            "job_data.inputs.texts[0]",
        ),
        (
            {"job_data": {"input_data": [{"name": "texts", "file_ids": 1}]}},
            400,
            "job_data.input_data[0].file_ids",
        ),
        (
            {"job_data": {"input_data": [{"name": "pause", "value": "soon"}]}},
            400,
            "job_data.inputs.pause",
        ),
        ({"foo": 1}, 400, "foo"),
    ],
)
def test_a_bad_new_job_is_refused_by_its_field(
    change: dict[str, Any],
    status: int,
    field: str | None,
    make_job_type: Callable[..., JobType],
    api: APIClient,
) -> None:
    body = {"job_type_id": make_job_type(interface=WITH_NUMBER).pk, **change}
    body = {name: value for name, value in body.items() if value is not ...}
    answer = api.post("/queue/new-job/", body, format="json")
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert not Job.objects.exists()


def test_requeued_are_the_failed_and_the_canceled_and_listed_are_all(
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    failed, canceled, completed, queued = (
        make_execution(state).job
        for state in (State.FAILED, State.CANCELED, State.COMPLETED, State.QUEUED)
    )
    others = [make_execution(State.FAILED).job for _ in range(5)]
    named = [job.pk for job in (failed, canceled, completed, queued, *others)]
    left = make_execution(State.FAILED).job
    with django_assert_max_num_queries(12):
        answer = post(api, "/queue/requeue-jobs/", job_ids=named, priority=123)
    assert answer.status_code == 200
    found = {each["id"]: each for each in answer.json()["results"]}
    assert set(found) == set(named)
    assert (found[failed.pk]["status"], found[failed.pk]["priority"]) == ("QUEUED", 123)
    assert found[canceled.pk]["status"] == "QUEUED"
    assert (found[completed.pk]["status"], found[completed.pk]["num_exes"]) == ("COMPLETED", 1)
    assert found[queued.pk]["num_exes"] == 1
    left.refresh_from_db()
    assert left.status == "FAILED"


def test_requeueing_nothing_or_everything(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    job = make_execution(State.FAILED).job
    assert post(api, "/queue/requeue-jobs/").json()["field"] == "all"
    assert post(api, "/queue/requeue-jobs/", all=False).json()["field"] == "all"
    assert post(api, "/queue/requeue-jobs/", job_ids=[]).json()["field"] == "job_ids"
    assert post(api, "/queue/requeue-jobs/", job_ids=[999_999]).status_code == 404
    job.refresh_from_db()
    assert job.status == "FAILED"
    assert post(api, "/queue/requeue-jobs/", all=True).json()["count"] == 1
    job.refresh_from_db()
    assert job.status == "QUEUED"


def test_too_many_are_for_the_worker(
    make_execution: Callable[..., JobExecution], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        make_execution(State.FAILED)
    monkeypatch.setattr(bulk_actions, "AT_ONCE_JOBS", 1)
    with pytest.raises(InvalidInput, match="/jobs/requeue/"):
        requeue_matching(Filters(), at=timezone.now())
    assert not Job.objects.exclude(status="FAILED").exists()


# In bulk, by the worker.


@pytest.fixture
def world(
    make_job_type: Callable[..., JobType], make_execution: Callable[..., JobExecution]
) -> dict[str, Job]:
    text = make_job_type(name="t", version="1", category="text")
    image = make_job_type(name="i", version="2", category="image")
    return {
        "queued": make_execution(State.QUEUED, job_type=text, at=LONG_AGO).job,
        "running": make_execution(State.RUNNING, job_type=image).job,
        "failed": make_execution(State.FAILED, job_type=text).job,
        "canceled": make_execution(State.CANCELED, job_type=image).job,
        "completed": make_execution(State.COMPLETED, job_type=text).job,
    }


def statuses(world: dict[str, Job]) -> dict[str, str]:
    return {name: Job.objects.get(pk=job.pk).status for name, job in world.items()}


@pytest.mark.parametrize(
    ("filters", "canceled"),
    [
        ({"all": True}, {"queued", "running"}),
        ({"status": "QUEUED"}, {"queued"}),
        ({"status": ["QUEUED", "RUNNING"]}, {"queued", "running"}),
        ({"status": ["COMPLETED"]}, set()),
        ({"job_type_names": ["t"]}, {"queued"}),
        ({"job_type_categories": ["image"]}, {"running"}),
        ({"job_types": [{"name": "i", "version": "2"}]}, {"running"}),
        ({"job_types": [{"name": "i", "version": "9"}]}, set()),
        ({"ended": "2020-01-02T00:00:00Z"}, {"queued"}),
        ({"started": "P1D"}, {"running"}),
        ({"error_categories": ["DATA"]}, set()),
        ({"error_ids": [1]}, set()),
    ],
)
def test_the_worker_cancels_what_fits(
    filters: dict[str, Any], canceled: set[str], world: dict[str, Job], api: APIClient
) -> None:
    before = statuses(world)
    answer = post(api, "/jobs/cancel/", **filters)
    assert answer.status_code == 202
    assert statuses(world) == before
    work_off_bulk_actions()
    now = statuses(world)
    assert {name for name, status in now.items() if status != before[name]} == canceled
    found = api.get(answer["Location"]).json()
    assert (found["kind"], found["done"], found["failed"]) == ("cancel", len(canceled), 0)
    assert found["finished"] is not None


def test_the_worker_requeues_what_fits(world: dict[str, Job], api: APIClient) -> None:
    named = [world["failed"].pk, world["completed"].pk, world["canceled"].pk]
    answer = post(api, "/jobs/requeue/", job_ids=named, priority=5)
    work_off_bulk_actions()
    now = statuses(world)
    assert (now["failed"], now["canceled"], now["completed"]) == ("QUEUED", "QUEUED", "COMPLETED")
    assert Job.objects.get(pk=world["failed"].pk).priority == 5
    assert api.get(answer["Location"]).json()["done"] == 2


def test_thousands_of_job_types_are_no_condition_each(
    world: dict[str, Job], django_assert_num_queries: Callable[..., Any]
) -> None:
    named = [{"name": "i", "version": str(n)} for n in range(3, 10_000)]
    named += [{"name": "i", "version": "1"}, {"name": "t", "version": "2"}]  # none; only crosswise
    assert not jobs_by(Filters(job_types=named)).exists()
    with django_assert_num_queries(2) as asked:
        found = set(jobs_by(Filters(job_types=[*named, {"name": "t", "version": "1"}])))
    assert found == {world["queued"], world["failed"], world["completed"]}
    # A tree of so many takes Django and PostgreSQL seconds, and each step asks again.
    assert not any(" OR " in query["sql"] for query in asked.captured_queries)


def test_what_cannot_be_changed_is_counted_with_its_reason(
    world: dict[str, Job], api: APIClient
) -> None:
    post(api, "/jobs/cancel/", job_ids=[world["running"].pk])
    work_off_bulk_actions()
    answer = post(api, "/jobs/requeue/", job_ids=[world["running"].pk])
    work_off_bulk_actions()
    found = api.get(answer["Location"]).json()
    assert (found["done"], found["failed"]) == (0, 1)
    assert "still being stopped" in found["failure"]


def test_an_action_goes_on_where_it_was_left(
    make_job_type: Callable[..., JobType],
    make_job: Callable[..., Job],
    api: APIClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk_actions, "BATCH_JOBS", 2)
    job_type = make_job_type()
    jobs = [make_job(job_type) for _ in range(5)]
    action = post(api, "/jobs/cancel/", job_type_ids=[job_type.pk]).json()["id"]
    later = make_job(job_type)
    assert advance_bulk_action(action, at=timezone.now())
    row = BulkAction.objects.get(pk=action)
    assert (row.done, row.finished) == (2, None)
    work_off_bulk_actions()
    row.refresh_from_db()
    assert (row.done, row.failed) == (5, 0)
    finished = row.finished
    assert not advance_bulk_action(action, at=timezone.now())
    row.refresh_from_db()
    assert (row.done, row.finished) == (5, finished)
    assert {Job.objects.get(pk=job.pk).status for job in jobs} == {"CANCELED"}
    later.refresh_from_db()
    assert later.status == "QUEUED"


def test_a_list_of_ids_is_worked_off_in_parts(
    make_job_type: Callable[..., JobType],
    make_job: Callable[..., Job],
    api: APIClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk_actions, "BATCH_JOBS", 2)
    job_type = make_job_type()
    jobs = [make_job(job_type) for _ in range(6)]
    ids = [job.pk for job in jobs[::-1]]
    action = post(api, "/jobs/cancel/", job_ids=[*ids, *ids[:2], 999_999]).json()["id"]
    work_off_bulk_actions()
    assert BulkAction.objects.get(pk=action).done == 6


def test_a_job_that_is_named_before_it_is_made_is_not_meant(
    make_job: Callable[..., Job], api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_actions, "BATCH_JOBS", 2)
    last = make_job().pk
    action = post(api, "/jobs/cancel/", job_ids=[last, last + 1, last + 2]).json()["id"]
    later = make_job()
    assert later.pk == last + 1
    work_off_bulk_actions()
    assert BulkAction.objects.get(pk=action).done == 1
    later.refresh_from_db()
    assert later.status == "QUEUED"


def test_an_action_that_breaks_does_not_keep_the_others(
    world: dict[str, Job], api: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    broken = post(api, "/jobs/cancel/", all=True).json()["id"]
    BulkAction.objects.filter(pk=broken).update(filters={"no": "filter"})
    post(api, "/jobs/cancel/", status=["QUEUED"])
    work_off_bulk_actions()
    assert statuses(world)["queued"] == "CANCELED"
    assert "a bulk action failed" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_two_workers_count_each_job_once(
    make_job_type: Callable[..., JobType],
    make_job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk_actions, "BATCH_JOBS", 3)
    job_type = make_job_type()
    for _ in range(20):
        make_job(job_type)
    filters = Filters(job_type_ids=[job_type.pk])
    now = timezone.now()
    action = ask_bulk_action(BulkAction.Kind.CANCEL, filters, user_id=None, at=now)
    together = Barrier(2)

    def work(_: int) -> None:
        together.wait()
        try:
            work_off_bulk_actions()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    action.refresh_from_db()
    assert (action.done, action.failed) == (20, 0)
    assert action.finished is not None


@pytest.mark.django_db(transaction=True)
def test_an_action_that_another_worker_is_at_is_left_to_it(make_job: Callable[..., Job]) -> None:
    job, now = make_job(), timezone.now()
    action = ask_bulk_action(BulkAction.Kind.CANCEL, Filters(), user_id=None, at=now)
    other = psycopg2.connect(**connection.get_connection_params())
    with closing(other), other.cursor() as cursor:
        cursor.execute("SELECT FROM bulk_action FOR UPDATE")
        assert not advance_bulk_action(action.pk, at=now)
        job.refresh_from_db()
        assert job.status == "QUEUED"
        other.rollback()
    assert not advance_bulk_action(action.pk, at=now)
    job.refresh_from_db()
    assert job.status == "CANCELED"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "all"),
        ({"all": "perhaps"}, "all"),
        ({"foo": 1}, "foo"),
        ({"status": "DONE"}, "status"),
        ({"status": []}, "status"),
        ({"job_ids": ["x"]}, "job_ids"),
        ({"job_ids": [str(2**63)]}, "job_ids"),
        ({"job_ids": list(range(10_001))}, "job_ids"),
        ({"job_types": [{"name": "a"}]}, "job_types"),
        ({"job_types": ["a"]}, "job_types"),
        ({"started": "2015-01-01T00:00:00"}, "started"),
        ({"started": "P1D", "ended": "P2D"}, "started"),
        ({"ended": 5}, "ended"),
        ({"priority": 5}, "priority"),
        ({"error_categories": ["BAD"]}, "error_categories"),
    ],
)
def test_bad_filters_are_refused_by_their_names(
    body: dict[str, Any], field: str, api: APIClient, db: None
) -> None:
    answer = api.post("/jobs/cancel/", body, format="json")
    assert answer.status_code == 400
    assert answer.json()["field"].startswith(field)
    assert not BulkAction.objects.exists()


def test_beat_calls_tasks_that_there_are() -> None:
    app.loader.import_default_modules()
    called = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert called <= set(app.tasks)
    assert work_off_bulk_actions.name in called
    assert forget_idempotency_keys.name in called


def test_bulk_actions_are_listed_newest_first(
    api: APIClient, db: None, django_assert_num_queries: Callable[..., Any]
) -> None:
    for path in ("/jobs/cancel/", "/jobs/requeue/", "/jobs/cancel/"):
        post(api, path, job_ids=[1])
    with django_assert_num_queries(2):
        found = api.get("/bulk-actions/").json()["results"]
    assert [each["kind"] for each in found] == ["cancel", "requeue", "cancel"]
    assert found[0]["filters"] == {"job_ids": [1]}
    assert found[0]["requested_by"].startswith("user-")
    with django_assert_num_queries(1):
        api.get(f"/bulk-actions/{found[0]['id']}/")
    assert api.get("/bulk-actions/999999/").status_code == 404
