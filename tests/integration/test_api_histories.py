"""What became of a job: its attempts, their history, changes of status, revisions of its type."""

from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from rest_framework.test import APIClient

from scale.core.lifecycle import Event, State
from scale.job.files import store_file
from scale.job.models import Job, JobExecution, JobType, JobTypeRevision
from scale.job.selectors import EXECUTION_ORDER, JOB_ORDER
from scale.job.services import Move, cancel_job, move_executions

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)
LATER = datetime(2020, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def retried(make_execution: Callable[..., JobExecution]) -> Job:
    """A job whose first execution failed with an error that is tried again."""
    return make_execution(State.FAILED, error="node-lost", at=LONG_AGO).job


def test_the_attempts_of_a_job_are_listed_newest_first(
    retried: Job,
    make_job: Callable[..., Job],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    make_job()
    with django_assert_num_queries(3):
        answer = api.get(f"/jobs/{retried.pk}/executions/").json()
    assert [each["exe_num"] for each in answer["results"]] == [2, 1]
    first = answer["results"][1]
    assert (first["status"], first["error_message"]) == ("FAILED", "it failed")
    assert first["job"]["id"] == retried.pk
    assert first["cluster_id"] == str(retried.executions.get(exe_num=1).uuid)
    assert first["job_type"] == first["job"]["job_type"]
    assert first["input_file_size"] == retried.disk_in_required


@pytest.mark.parametrize(
    ("query", "attempts"),
    [
        ("status=QUEUED", [2]),
        ("status=QUEUED&status=FAILED", [2, 1]),
        ("error_category=SYSTEM", [1]),
        ("error_category=DATA", []),
        ("node_id=999999", []),
        ("error_id=999999", []),
        ("order=exe_num", [1, 2]),
        ("page_size=1&page=2", [1]),
        ("ended=2019-01-01T00:00:00Z", []),
    ],
)
def test_attempts_are_chosen_by_any_filter(
    query: str, attempts: list[int], retried: Job, api: APIClient
) -> None:
    found = api.get(f"/jobs/{retried.pk}/executions/?{query}").json()["results"]
    assert [each["exe_num"] for each in found] == attempts


def test_attempts_by_node_and_by_error(retried: Job, api: APIClient) -> None:
    failed = retried.executions.get(exe_num=1)
    for query in (f"node_id={failed.node_id}", f"error_id={failed.error_id}"):
        (found,) = api.get(f"/jobs/{retried.pk}/executions/?{query}").json()["results"]
        assert found["id"] == failed.pk


def test_the_history_of_a_job_is_that_of_all_its_executions(
    retried: Job,
    make_job: Callable[..., Job],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    make_job()
    first, second = retried.executions.order_by("exe_num")
    with django_assert_num_queries(3):
        answer = api.get(f"/jobs/{retried.pk}/history/").json()
    story = [(each["job_exe"]["exe_num"], each["event"]) for each in answer["results"]]
    assert story == [(1, "create"), (1, "launch"), (1, "start"), (1, "fail"), (2, "create")]
    with django_assert_num_queries(3):
        mine = api.get(f"/job-executions/{first.pk}/history/").json()["results"]
    assert mine == answer["results"][:4]
    assert mine[3] == {
        "id": mine[3]["id"],
        "at": "2020-01-01T12:00:00.000Z",
        "event": "fail",
        "state": "failed",
        "phase": "job",
        "task_id": first.job_task_id,
        "message": "it failed",
        "job_exe": {"id": first.pk, "exe_num": 1},
    }
    (only,) = api.get(f"/job-executions/{second.pk}/history/").json()["results"]
    assert only["event"] == "create"


def test_the_revisions_of_a_job_type_are_listed_newest_first(
    make_job_type: Callable[..., JobType],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    job_type = make_job_type()
    make_job_type()
    newer = {**job_type.interface, "command": "false"}
    JobTypeRevision.objects.create(job_type=job_type, revision_num=2, interface=newer)
    with django_assert_num_queries(3):
        found = api.get(f"/job-types/{job_type.pk}/revisions/").json()["results"]
    assert [(each["revision_num"], each["interface"]["command"]) for each in found] == [
        (2, "false"),
        (1, "true"),
    ]
    assert found[0]["job_type"] == {"id": job_type.pk}


@pytest.mark.parametrize(
    "path",
    [
        "jobs/{}/executions",
        "jobs/{}/history",
        "job-executions/{}/history",
        "job-types/{}/revisions",
    ],
)
def test_lists_of_what_does_not_exist(path: str, api: APIClient, db: None) -> None:
    assert api.get(f"/{path.format(999_999)}/").status_code == 404
    assert api.get(f"/{path.format('x')}/").json()["field"] == "id"
    assert api.get(f"/{path.format(1)}/?foo=1").json()["field"] == "foo"
    assert api.get(f"/{path.format(1)}/?page_size=0").json()["field"] == "page_size"


def test_updates_are_listed_by_when_the_status_changed(
    make_job_type: Callable[..., JobType],
    make_job: Callable[..., Job],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    reader = make_job_type(
        interface={
            "version": "1.0",
            "command": "true",
            "input_data": [{"name": "texts", "type": "files"}],
        }
    )
    files = [
        store_file(
            name=name, media_type="text/plain", stream=BytesIO(b"x"), at=LONG_AGO, max_bytes=9
        )
        for name in ("b", "a")
    ]
    texts = [{"file_id": file.pk} for file in files]
    canceled = make_job(reader, inputs={"texts": texts}, at=LONG_AGO)
    untouched = make_job(at=LONG_AGO)
    cancel_job(canceled.pk, at=LATER)
    with django_assert_num_queries(3):
        found = api.get("/jobs/updates/").json()["results"]
    assert [each["id"] for each in found] == [untouched.pk, canceled.pk]
    assert [each["name"] for each in found[1]["input_files"]] == ["b", "a"]
    assert found[1]["input_files"][0]["url"].endswith(f"/files/{files[0].pk}/content/")
    assert found[0]["input_files"] == []
    later = api.get("/jobs/updates/?started=2020-01-02T00:00:00Z").json()["results"]
    assert [each["id"] for each in later] == [canceled.pk]
    (by_type,) = api.get(f"/jobs/updates/?job_type_name={reader.name}").json()["results"]
    assert by_type["id"] == canceled.pk
    assert api.get("/jobs/updates/?status=QUEUED").json()["count"] == 1


def test_updates_go_by_the_change_of_the_status_and_not_by_any_change(
    make_job: Callable[..., Job], api: APIClient
) -> None:
    job = make_job(at=LONG_AGO)
    Job.objects.filter(pk=job.pk).update(last_modified=LATER)
    query = "?started=2020-01-02T00:00:00Z"
    assert api.get(f"/jobs/{query}").json()["count"] == 1
    assert api.get(f"/jobs/updates/{query}").json()["count"] == 0


def test_jobs_are_listed_with_their_latest_executions(
    retried: Job,
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    running = make_execution(State.STARTING)
    move_executions([Move(running.pk, Event.START)], at=LATER)
    with django_assert_num_queries(3):
        found = api.get("/jobs/executions/?order=id").json()["results"]
    assert [each["latest_job_exe"]["exe_num"] for each in found] == [2, 1]
    assert found[1]["latest_job_exe"]["status"] == "RUNNING"
    assert found[1]["latest_job_exe"]["node"] == {"id": running.node_id}
    assert api.get("/jobs/executions/?status=COMPLETED").json()["results"] == []


def test_every_offered_order_works_in_every_list(retried: Job, api: APIClient) -> None:
    lists = [
        ("/jobs/updates/", JOB_ORDER),
        ("/jobs/executions/", JOB_ORDER),
        (f"/jobs/{retried.pk}/executions/", EXECUTION_ORDER),
    ]
    for path, fields in lists:
        for field in sorted(fields):
            assert api.get(f"{path}?order=-{field}").status_code == 200, (path, field)
        assert api.get(f"{path}?order=nothing").json()["field"] == "order"
