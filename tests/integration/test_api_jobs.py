"""/jobs/: submit, look, cancel."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from rest_framework.test import APIClient

from scale.core.lifecycle import Event, State
from scale.job.files import store_file
from scale.job.models import File, Job, JobExecution, JobType
from scale.job.selectors import JOB_ORDER
from scale.job.services import Move, move_executions

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)
INTERFACE = {
    "version": "1.0",
    "command": "sh",
    "command_arguments": "${text} ${pause} ${more}",
    "input_data": [
        {"name": "text", "type": "file", "required": False},
        {"name": "more", "type": "files", "required": False},
        {"name": "pause", "type": "property", "value_type": "number", "required": False},
        {"name": "flag", "type": "property", "value_type": "boolean", "required": False},
    ],
    "output_data": [
        {"name": "count", "type": "file", "required": False},
        {"name": "parts", "type": "files", "required": False},
    ],
}


@pytest.fixture
def job_type(make_job_type: Callable[..., JobType]) -> JobType:
    return make_job_type(
        name="word-count", version="1.0", interface=INTERFACE, category="text", priority=77
    )


@pytest.fixture
def upload(db: None) -> Callable[..., File]:
    def make(name: str = "a.txt", **facts: Any) -> File:
        return store_file(
            name=name,
            media_type="text/plain",
            stream=BytesIO(b"some text"),
            at=LONG_AGO,
            max_bytes=100,
            **facts,
        )

    return make


def post(api: APIClient, **body: Any) -> Any:
    return api.post("/jobs/", body, format="json")


def test_a_submitted_job_is_queued_and_shown(
    job_type: JobType, upload: Callable[..., File], api: APIClient
) -> None:
    file = upload()
    answer = post(
        api,
        job_type={"name": "word-count", "version": "1.0"},
        name="count my file",
        inputs={"text": {"file_id": file.pk}, "pause": 5},
        priority=50,
    )
    assert answer.status_code == 201
    job = answer.json()
    assert answer["Location"] == f"http://testserver/jobs/{job['id']}/"
    assert api.get(answer["Location"]).json() == job
    assert (job["status"], job["priority"], job["name"]) == ("QUEUED", 50, "count my file")
    assert job["job_type_rev"]["interface"] == INTERFACE
    assert job["event"]["type"] == "USER"
    assert (job["recipes"], job["error"], job["error_message"]) == ([], None, "")
    values = {each["name"]: each["value"] for each in job["inputs"]}
    assert values["pause"] == 5
    assert values["more"] is None
    assert values["flag"] is None
    assert values["text"]["id"] == file.pk
    assert values["text"]["url"] == f"http://testserver/files/{file.pk}/content/"
    (execution,) = job["job_exes"]
    assert (execution["status"], execution["exe_num"]) == ("QUEUED", 1)
    assert (execution["job"], execution["node"]) == ({"id": job["id"]}, None)


def test_the_type_may_be_given_by_its_id_and_numbers_as_text(
    job_type: JobType, api: APIClient
) -> None:
    job = post(api, job_type_id=str(job_type.pk), priority="1").json()
    assert (job["job_type"]["id"], job["priority"]) == (job_type.pk, 1)
    assert post(api, job_type_id=job_type.pk).json()["priority"] == 77


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "job_type"),
        ({"job_type_id": 1, "job_type": {"name": "a", "version": "1"}}, 400, "job_type"),
        ({"job_type": "word-count"}, 400, "job_type"),
        ({"job_type": {"name": "word-count"}}, 400, "job_type.version"),
        ({"job_type": {"name": "word-count", "version": "1.0", "x": 1}}, 400, "job_type.x"),
        ({"job_type": {"name": "word-count", "version": 1}}, 400, "job_type.version"),
        ({"job_type": {"name": "word-count", "version": "9"}}, 404, "job_type"),
        ({"job_type_id": 999_999}, 404, "job_type_id"),
        ({"job_type_id": 2**63 - 1}, 404, "job_type_id"),
        ({"job_type_id": "9" * 30}, 400, "job_type_id"),
        ({"job_type_id": "x"}, 400, "job_type_id"),
        ({"job_type_id": None}, 400, "job_type_id"),
    ],
)
def test_the_type_of_a_job_must_exist(
    body: dict[str, Any], status: int, field: str, job_type: JobType, api: APIClient
) -> None:
    answer = api.post("/jobs/", body, format="json")
    assert answer.status_code == status
    assert answer.json()["field"] == field
    assert answer.json()["detail"]
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"inputs": {"nobody": 1}}, "inputs.nobody"),
        ({"inputs": {"pause": "five"}}, "inputs.pause"),
        ({"inputs": {"pause": True}}, "inputs.pause"),
        ({"inputs": {"flag": 1}}, "inputs.flag"),
        ({"inputs": {"text": {"file_id": 999_999}}}, "inputs.text"),
        ({"inputs": {"text": {"file_id": 2**63 - 1}}}, "inputs.text"),
        ({"inputs": {"text": {"file_id": True}}}, "inputs.text"),
        ({"inputs": {"text": {"uri": "ftp://host/a"}}}, "inputs.text"),
        ({"inputs": {"text": {"uri": "http://user:secret@host/a"}}}, "inputs.text"),
        ({"inputs": {"more": [{"uri": "http://host/a"}, 7]}}, "inputs.more[1]"),
        ({"inputs": [1]}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"priority": "BAD"}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": 2**31}, "priority"),
        ({"priority": True}, "priority"),
        ({"name": "x" * 251}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"unknown": 1}, "unknown"),
        ({"timeout": 5}, "timeout"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(
    part: dict[str, Any], field: str, job_type: JobType, api: APIClient
) -> None:
    answer = post(api, job_type_id=job_type.pk, **part)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert not Job.objects.exists()


def test_a_required_input_must_be_given(
    make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    interface = {"command": "a", "input_data": [{"name": "text", "type": "file"}]}
    answer = post(api, job_type_id=make_job_type(interface=interface).pk)
    assert answer.status_code == 400
    assert answer.json() == {
        "detail": "inputs.text: is required",
        "code": "invalid",
        "field": "inputs.text",
    }


def test_jobs_of_a_type_that_is_not_active_are_refused(job_type: JobType, api: APIClient) -> None:
    JobType.objects.update(is_active=False)
    answer = post(api, job_type_id=job_type.pk)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_outputs_are_shown_as_files(
    job_type: JobType,
    make_job: Callable[..., Job],
    make_execution: Callable[..., JobExecution],
    upload: Callable[..., File],
    api: APIClient,
) -> None:
    given = [upload("b.txt"), upload("c.txt")]
    inputs = {"more": [{"file_id": file.pk} for file in given], "text": {"uri": "http://host/x"}}
    job = make_job(job_type, inputs=inputs)
    execution = make_execution(State.QUEUED, job=job)
    count = upload("count.txt", execution=execution, output_name="count")
    parts = [upload(f"{n}.txt", execution=execution, output_name="parts") for n in range(2)]
    job.results = {
        "version": "1.0",
        "output_data": [
            {"name": "count", "file_id": count.pk},
            {"name": "parts", "file_ids": [part.pk for part in parts]},
        ],
    }
    job.save(update_fields=["results"])
    found = api.get(f"/jobs/{job.pk}/").json()
    outputs = {each["name"]: each["value"] for each in found["outputs"]}
    assert outputs["count"]["id"] == count.pk
    assert outputs["count"]["job_exe"] == {"id": execution.pk}
    assert [each["id"] for each in outputs["parts"]] == [part.pk for part in parts]
    values = {each["name"]: each["value"] for each in found["inputs"]}
    assert [each["id"] for each in values["more"]] == [file.pk for file in given]
    assert values["text"] == {"uri": "http://host/x"}
    assert found["input_files"] == values["more"], "what is stored, and nothing else"
    assert found["products"] == [outputs["count"], *outputs["parts"]]


def test_attempts_are_listed_newest_first_with_the_last_ones_reason(
    make_job_type: Callable[..., JobType],
    make_job: Callable[..., Job],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
) -> None:
    job = make_job(make_job_type(max_tries=2))
    make_execution(State.FAILED, job=job, error="unknown")
    job.refresh_from_db()
    make_execution(State.FAILED, job=job, error="unknown")
    found = api.get(f"/jobs/{job.pk}/").json()
    assert [each["exe_num"] for each in found["job_exes"]] == [2, 1]
    assert (found["status"], found["error"]["name"]) == ("FAILED", "unknown")
    assert found["error_message"] == "it failed"


def test_a_queued_job_is_canceled_at_once(make_job: Callable[..., Job], api: APIClient) -> None:
    job = make_job()
    answer = api.patch(f"/jobs/{job.pk}/", {"status": "CANCELED"}, format="json")
    assert answer.status_code == 200
    assert answer.json()["status"] == "CANCELED"
    assert answer.json()["job_exes"][0]["status"] == "CANCELED"


def test_a_running_job_is_canceled_and_its_execution_ends_later(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    execution = make_execution(State.RUNNING)
    answer = api.patch(f"/jobs/{execution.job_id}/", {"status": "CANCELED"}, format="json")
    assert answer.json()["status"] == "CANCELED"
    assert answer.json()["job_exes"][0]["status"] == "RUNNING"
    move_executions([Move(execution.pk, Event.CANCEL)], at=LONG_AGO + timedelta(days=9999))


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELED])
def test_a_finished_job_cannot_be_canceled(
    state: State, make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    job = make_execution(state).job_id
    before = api.get(f"/jobs/{job}/").json()
    answer = api.patch(f"/jobs/{job}/", {"status": "CANCELED"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert api.get(f"/jobs/{job}/").json() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "status"),
        ({"foo": "bar"}, "foo"),
        ({"status": "COMPLETED"}, "status"),
        ({"status": "CANCELED", "priority": 1}, "priority"),
        ({"status": None}, "status"),
        ({"status": ["CANCELED"]}, "status"),
    ],
)
def test_a_job_can_only_be_changed_to_canceled(
    body: dict[str, Any], field: str, make_job: Callable[..., Job], api: APIClient
) -> None:
    job = make_job()
    answer = api.patch(f"/jobs/{job.pk}/", body, format="json")
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    job.refresh_from_db()
    assert job.status == "QUEUED"


def test_a_job_that_does_not_exist(api: APIClient, db: None) -> None:
    assert api.get("/jobs/999999/").status_code == 404
    answer = api.patch("/jobs/999999/", {"status": "CANCELED"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert api.get("/jobs/x/").json()["field"] == "id"


def test_the_list_restricts_and_orders(
    make_job_type: Callable[..., JobType],
    make_job: Callable[..., Job],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
) -> None:
    types = {
        version: make_job_type(name="test1", version=version, category="a")
        for version in ("1.0", "3.0", "2.0")
    }
    other = make_job_type(name="test2", version="1.0", category="b")
    queued = [make_job(job_type) for job_type in types.values()]
    failed = make_execution(State.FAILED, job=make_job(other), error="forbidden-input").job

    def ids(query: str) -> list[int]:
        return [each["id"] for each in api.get(f"/jobs/?{query}").json()["results"]]

    assert ids("status=FAILED") == [failed.pk]
    assert sorted(ids("status=FAILED&status=QUEUED")) == sorted(
        [*(j.pk for j in queued), failed.pk]
    )
    assert ids(f"job_id={failed.pk}") == [failed.pk]
    assert ids(f"job_type_id={other.pk}") == [failed.pk]
    assert ids("job_type_name=test2") == [failed.pk]
    assert ids("job_type_category=b") == [failed.pk]
    assert ids("error_category=DATA") == [failed.pk]
    assert ids("error_category=SYSTEM") == []
    answer = api.get("/jobs/?order=job_type__name&order=-job_type__version").json()["results"]
    names = [(each["job_type"]["name"], each["job_type"]["version"]) for each in answer]
    assert names == [("test1", "3.0"), ("test1", "2.0"), ("test1", "1.0"), ("test2", "1.0")]
    assert answer[0]["job_type_rev"]["job_type"]["id"] == types["3.0"].pk


def test_every_offered_order_works(api: APIClient, db: None) -> None:
    for field in JOB_ORDER:
        assert api.get(f"/jobs/?order={field}&order=-{field}").status_code == 200, field


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=ODD", "status"),
        ("job_id=x", "job_id"),
        ("error_category=BAD", "error_category"),
        ("order=data", "order"),
        ("page_size=0", "page_size"),
        ("recipe_id=1", "recipe_id"),
    ],
)
def test_a_bad_parameter_is_refused_by_its_name(
    query: str, field: str, api: APIClient, db: None
) -> None:
    answer = api.get(f"/jobs/?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_queries_do_not_grow_with_the_list_or_the_attempts(
    job_type: JobType,
    make_job: Callable[..., Job],
    upload: Callable[..., File],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    jobs = [make_job(job_type, inputs={"text": {"file_id": upload().pk}}) for _ in range(5)]
    with django_assert_num_queries(2):
        assert len(api.get("/jobs/").json()["results"]) == 5
    with django_assert_num_queries(3):
        api.get(f"/jobs/{jobs[0].pk}/")
