"""The catalogue of cases: executions (E), jobs (J) and parameters (P)."""

import gzip
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone
from rest_cases import Case, Step, World, blames, case, counts, lines
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.error.models import Error
from scale.job.models import ArchivedLog, Job, JobExecution, JobType
from scale.node.models import Node


def ids(answer: Any) -> list[int]:
    return [each["id"] for each in answer.body["results"]]


EXECUTIONS = [
    case("E1", Step("GET /job-executions/", look=counts(10))),
    case("E2", Step("GET /job-executions/?status=RUNNING", look=counts(2))),
    case(
        "E3",
        Step("GET /job-executions/?job_type_id={w.t1.pk}", look=counts(5)),
        Step(
            "GET /job-executions/?job_type_id={w.t1.pk}",
            look=lambda answer, w: all(
                each["job"]["job_type"]["id"] == w.t1.pk for each in answer.body["results"]
            ),
        ),
    ),
    case("E4", Step("GET /job-executions/?job_type_name={w.t1.name}", look=counts(5))),
    case("E5", Step("GET /job-executions/?job_type_category={w.t1.category}", look=counts(5))),
    case(
        "E6",
        Step("GET /job-executions/?started=1970-01-01T00:00:00", 400, look=blames("started")),
        Step("GET /job-executions/?ended=1970-01-01T00:00:00", 400, look=blames("ended")),
    ),
    case(
        "E7",
        Step(
            "GET /job-executions/{w.logged.pk}/",
            look=lambda answer, w: answer.body["id"] == w.logged.pk,
        ),
    ),
    case("E8", Step("GET /job-executions/999999/", 404)),
    case(
        "E9",
        Step(
            "GET /job-executions/{w.logged.pk}/logs/",
            look=lambda answer, _: (
                answer.body["status"] == "COMPLETED"
                and answer.body["is_finished"]
                and "what it said" in answer.body["stdout"]
                and "what went wrong" in answer.body["stderr"]
            ),
        ),
    ),
    case("E10", Step("GET /job-executions/999999/logs/", 404)),
]


@pytest.fixture
def world_e(
    make_job_type: Callable[..., JobType],
    make_job: Callable[..., Job],
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Node],
) -> World:
    """Ten executions of two types. No job has ended well and runs: here that cannot be."""
    t1 = make_job_type(name="test1", category="cat1", max_tries=9)
    t2 = make_job_type(name="test2", category="cat2", max_tries=9)
    node = make_node()

    def attempts(job_type: JobType, *states: State) -> JobExecution:
        job = make_job(job_type)
        for state in states:
            # Only what is not the last is tried again.
            error = "algorithm-unknown" if state is states[-1] else "node-lost"
            job.refresh_from_db()
            made = make_execution(state, job=job, node=node, error=error)
        return made

    failed = State.FAILED
    attempts(t1, failed, failed, failed, State.RUNNING)
    attempts(t1, failed)
    attempts(t2, failed, failed, State.RUNNING)
    attempts(t2, State.COMPLETED)
    logged = attempts(t2, State.COMPLETED)
    for stream, text in [("stdout", b"what it said\n"), ("stderr", b"what went wrong\n")]:
        stored = gzip.compress(text)
        ArchivedLog.objects.create(
            execution=logged,
            phase="job",
            stream=stream,
            size=len(text),
            storage_name=default_storage.save(f"{logged.pk}-{stream}", ContentFile(stored)),
            block_ends=[len(stored)],
            archived=timezone.now(),
        )
    JobExecution.objects.filter(pk=logged.pk).update(logs_owed=False)
    return SimpleNamespace(t1=t1, t2=t2, logged=logged)


@pytest.mark.parametrize("line", lines(EXECUTIONS))
def test_executions(line: Case, api: APIClient, world_e: World) -> None:
    for step in line.steps:
        step.run(api, world_e)


def only(name: str) -> Callable[[Any, World], bool]:
    """Look for one job alone, by its name in the world."""
    return lambda answer, w: ids(answer) == [getattr(w, name).pk]


def sorted_types(answer: Any, _: World) -> bool:
    found = [
        (each["job_type"]["name"], each["job_type"]["version"]) for each in answer.body["results"]
    ]
    return found == [("test1", "3.0"), ("test1", "2.0"), ("test1", "1.0"), ("test2", "1.0")]


def nothing_given(answer: Any, _: World) -> bool:
    found = [*answer.body["inputs"], *answer.body["outputs"]]
    return [(each["name"], each["value"]) for each in found] == [
        ("number", None),
        ("text", None),
        ("out", None),
    ]


FILTERS = {
    "status=RUNNING": "running",
    "job_type_id={w.t2.pk}": "running",
    "job_type_name=test2": "running",
    "job_type_category=cat1&status=FAILED": "failed",
}
JOBS = [
    case(
        "J1",
        Step(
            "GET /jobs/",
            look=lambda answer, w: (
                [each["job_type"]["name"] for each in answer.body["results"]] == ["test1", "test2"]
                and answer.body["results"][0]["job_type_rev"]["job_type"]["id"] == w.t1.pk
            ),
        ),
    ),
    case("J2", Step("GET /jobs/?status=RUNNING", look=only("running"))),
    case("J3", Step("GET /jobs/?job_id={w.running.pk}", look=only("running"))),
    case("J4", Step("GET /jobs/?job_type_id={w.t2.pk}", look=only("running"))),
    case("J5", Step("GET /jobs/?job_type_name=test1", look=only("failed"))),
    case("J6", Step("GET /jobs/?job_type_category=cat1", look=only("failed"))),
    case("J7", Step("GET /jobs/?error_category=DATA", look=only("failed"))),
    case(
        "J8",
        Step(
            "POST /job-types/",
            201,
            {"name": "test1", "version": "2.0", "interface": {"command": "a"}},
        ),
        Step(
            "POST /job-types/",
            201,
            {"name": "test1", "version": "3.0", "interface": {"command": "a"}},
        ),
        Step("POST /jobs/", 201, {"job_type": {"name": "test1", "version": "2.0"}}),
        Step("POST /jobs/", 201, {"job_type": {"name": "test1", "version": "3.0"}}),
        Step("GET /jobs/?order=job_type__name&order=-job_type__version", look=sorted_types),
    ),
    case("J9", Step("GET /jobs/{w.running.pk}/", look=nothing_given)),
    case(
        "J10",
        Step(
            "POST /jobs/",
            201,
            {"job_type": {"name": "test2", "version": "1.0"}, "inputs": {"number": 10}},
            look=lambda answer, _: answer.body["inputs"][0]["value"] == 10,
        ),
    ),
    case(
        "J11",
        Step(
            "PATCH /jobs/{w.running.pk}/",
            200,
            {"status": "CANCELED"},
            look=lambda answer, _: answer.body["status"] == "CANCELED",
        ),
    ),
    case("J12", Step("PATCH /jobs/{w.running.pk}/", 400, {"foo": "bar"})),
    case("J13", Step("PATCH /jobs/{w.running.pk}/", 400, {"status": "COMPLETED"})),
    case(
        "J14",
        Step("GET /jobs/updates/", look=counts(2)),
        *(Step(f"GET /jobs/updates/?{query}", look=only(name)) for query, name in FILTERS.items()),
    ),
    case(
        "J15",
        Step(
            "GET /jobs/executions/",
            look=lambda answer, w: (
                [each["latest_job_exe"]["id"] for each in answer.body["results"]]
                == [w.failed_exe.pk, w.running_exe.pk]
            ),
        ),
        *(
            Step(f"GET /jobs/executions/?{query}", look=only(name))
            for query, name in {**FILTERS, "error_category=DATA": "failed"}.items()
        ),
    ),
]


@pytest.fixture
def world_j(
    make_job_type: Callable[..., JobType], make_execution: Callable[..., JobExecution]
) -> World:
    Error.objects.create(name="bad-data", category="DATA")
    interface = {
        "command": "true",
        "input_data": [
            {"name": "number", "type": "property", "value_type": "number", "required": False},
            {"name": "text", "type": "file", "required": False},
        ],
        "output_data": [{"name": "out", "type": "file"}],
    }
    t1 = make_job_type(name="test1", version="1.0", category="cat1")
    t2 = make_job_type(name="test2", version="1.0", category="cat2", interface=interface)
    before = timezone.now() - timedelta(minutes=1)
    failed = make_execution(State.FAILED, job_type=t1, error="bad-data", at=before)
    running = make_execution(State.RUNNING, job_type=t2)
    return SimpleNamespace(
        t1=t1,
        t2=t2,
        failed=failed.job,
        running=running.job,
        failed_exe=failed,
        running_exe=running,
    )


@pytest.mark.parametrize("line", lines(JOBS))
def test_jobs(line: Case, api: APIClient, world_j: World) -> None:
    for step in line.steps:
        step.run(api, world_j)


AT = "2016-01-01T00:00:00Z"
PARAMETERS = [
    case("P1", Step(f"GET /jobs/?started={AT}&ended={AT}", 400, look=blames("started"))),
    case(
        "P2",
        Step(f"GET /jobs/?started={AT}&ended=2015-01-01T00:00:00Z", 400, look=blames("started")),
    ),
    case(
        "P3",
        Step("GET /jobs/?started=PT1H", look=counts(2)),
        Step("GET /jobs/?started=PT30S", look=only("running")),
        Step(f"GET /jobs/?started={AT}&ended=PT30S", look=only("failed")),
        Step("GET /jobs/?started=2016-01-01T00:00:00%2B02:00&ended=PT0S", look=counts(2)),
    ),
    case(
        "P4",
        *(
            Step(f"GET /nodes/?include_inactive={text}", look=counts(number))
            for number, texts in {3: ("true", "T", "1", "TRUE"), 2: ("false", "F", "0")}.items()
            for text in texts
        ),
        Step("GET /nodes/?include_inactive=yes", 400, look=blames("include_inactive")),
    ),
    case(
        "P5",
        Step("GET /jobs/?job_id=0", look=counts(0)),
        Step("GET /jobs/?page=0", 400, look=blames("page")),
        Step(
            "PATCH /job-types/{w.t1.pk}/",
            200,
            {"priority": 0},
            look=lambda answer, _: answer.body["priority"] == 0,
        ),
    ),
    case(
        "P6",
        Step("GET /jobs/?job_type_id={w.t1.pk}&job_type_id={w.t2.pk}", look=counts(2)),
        Step("GET /jobs/?job_type_id={w.t1.pk}&job_type_id=BAD", 400, look=blames("job_type_id")),
    ),
    case("P7", Step("GET /jobs/?error_category=BAD", 400, look=blames("error_category"))),
    case(
        "P8",
        *(
            Step(f"GET /jobs/?started={text}", 400, look=blames("started"))
            for text in ("P1Y", "PT", "BAD", "2016-13-01T00:00:00Z", "2016-01-01")
        ),
    ),
    case(
        "P9",
        Step("POST /jobs/", 400, {"job_type": {"name": "test1"}}, look=blames("job_type.version")),
        Step("POST /jobs/", 400, {"job_type": {"version": "1.0"}}, look=blames("job_type.name")),
    ),
]


@pytest.mark.parametrize("line", lines(PARAMETERS))
def test_parameters(
    line: Case, api: APIClient, world_j: World, make_node: Callable[..., Node]
) -> None:
    make_node(is_active=False, archived=timezone.now())  # besides the two that the jobs ran on
    for step in line.steps:
        step.run(api, world_j)
