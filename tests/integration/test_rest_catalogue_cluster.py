"""The catalogue of cases: nodes (N), the queue (Q) and the scheduler (S); none is left out."""

from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone
from rest_cases import Case, Look, Step, World, blames, case, counts, lines, says
from rest_framework.test import APIClient
from test_rest_catalogue import EXECUTIONS, JOBS, PARAMETERS
from test_rest_catalogue_types import ERRORS, TYPES, has

import scale
from scale.core.lifecycle import State
from scale.error.models import Error
from scale.job.models import Job, JobExecution, JobType
from scale.node.models import Node
from scale.queue.load import sample_load
from scale.queue.models import QueuedExecution
from scale.scheduler.models import SchedulerState

NODE = "/nodes/{w.busy.pk}/"
WHOLE: dict[str, Any] = {
    "hostname": lambda w: w.busy.hostname,
    "port": lambda w: w.busy.port,
    "is_paused": True,
    "is_active": True,
}


def busy(answer: Any) -> Any:
    """Return the shape of the busy node in a list of statuses."""
    [found] = [each for each in answer.body["results"] if each["node"]["hostname"] == "busy"]
    return found


def rolled_up(expected: dict[tuple[str, str | None], int]) -> Look:
    def look(answer: Any, world: World) -> bool:
        found = busy(answer)
        online = {each["node"]["hostname"]: each["is_online"] for each in answer.body["results"]}
        tallied = {
            (each["status"], each["category"]): each["count"] for each in found["job_exe_counts"]
        }
        running = [each["id"] for each in found["job_exes_running"]]
        return (online, tallied, running) == (
            {"busy": True, "lost": False},
            expected,
            [world.running.pk],
        )

    return look


NODES = [
    case("N1", Step("GET /nodes/", look=counts(2))),
    case("N2", Step("GET /nodes/?include_inactive=true", look=counts(3))),
    case(
        "N3",
        Step(
            f"GET {NODE}",
            look=lambda answer, w: (
                answer.body["resources"]["total"]
                == {"cpus": 8.0, "mem": 16000.0, "disk": 100_000.0}
                and answer.body["resources"]["cpus"] == 8.0
                and set(answer.body["resources"]["scheduled"]) == {"cpus", "mem", "disk"}
                and set(answer.body["resources"]["used"]) == {"cpus", "mem", "disk"}
                and [each["id"] for each in answer.body["job_exes_running"]] == [w.running.pk]
                and "disconnected" not in answer.body
            ),
        ),
    ),
    case(
        "N4",
        Step(
            "GET /nodes/{w.lost.pk}/",
            look=lambda answer, _: (
                answer.body["disconnected"] is True and "resources" not in answer.body
            ),
        ),
    ),
    case("N5", Step("GET /nodes/999999/", 404)),
    case(
        "N6",
        Step(
            f"PUT {NODE}",
            201,
            WHOLE,
            lambda answer, w: (
                answer.body["is_paused"] is True
                and answer.location == f"http://testserver/nodes/{w.busy.pk}/"
            ),
        ),
    ),
    case("N7", Step("PUT /nodes/999999/", 404, WHOLE)),
    case(
        "N8",
        Step(
            f"PUT {NODE}",
            400,
            {"is_paused": True},
            says("Missing required fields: hostname, port, is_active"),
        ),
    ),
    case("N9", Step(f"PUT {NODE}", 400, {"foo": 1}, says("Unexpected fields: foo"))),
    case(
        "N10",
        Step(
            f"PATCH {NODE}",
            201,
            {"is_paused": True, "pause_reason": "why"},
            has(is_paused=True, pause_reason="why"),
        ),
    ),
    case(
        "N11",
        Step(f"PATCH {NODE}", 201, {"is_paused": True, "pause_reason": "why"}),
        Step(f"PATCH {NODE}", 201, {"is_paused": False}, has(is_paused=False, pause_reason=None)),
    ),
    case("N12", Step("PATCH /nodes/999999/", 404, {"is_paused": True})),
    case("N13", Step(f"PATCH {NODE}", 400, {}, says("No fields specified for update."))),
    case("N14", Step(f"PATCH {NODE}", 400, {"foo": 1}, says("Unexpected fields: foo"))),
    case(
        "N15",
        Step(
            f"PATCH {NODE}",
            201,
            {"is_active": False},
            lambda answer, _: answer.body["archived"] is not None,
        ),
    ),
    case(
        "N16",
        Step(
            "GET /nodes/status/?started=PT1H30M0S",
            look=rolled_up({("COMPLETED", None): 1, ("FAILED", "DATA"): 1, ("RUNNING", None): 1}),
        ),
    ),
    case(
        "N17",
        Step(
            "GET /nodes/status/?started=PT3H0M0S",
            look=rolled_up(
                {
                    ("COMPLETED", None): 2,
                    ("FAILED", "ALGORITHM"): 1,
                    ("FAILED", "DATA"): 1,
                    ("FAILED", "SYSTEM"): 1,
                    ("RUNNING", None): 1,
                }
            ),
        ),
    ),
    case("N18", Step(f"PATCH {NODE}", 201, {"is_paused": True}, has(archived=None))),
]


@pytest.fixture
def world_n(
    make_node: Callable[..., Node],
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
) -> World:
    Error.objects.create(name="bad-data", category="DATA")
    node = make_node(hostname="busy")
    lost = make_node(hostname="lost", is_online=False)
    make_node(is_active=False, archived=timezone.now())
    job_type = make_job_type(max_tries=1)
    two_hours_ago = timezone.now() - timedelta(hours=2)

    def make(state: State, at: datetime | None = None, **more: Any) -> JobExecution:
        return make_execution(state, job_type=job_type, node=node, at=at, **more)

    make(State.COMPLETED)
    make(State.COMPLETED, two_hours_ago)
    make(State.FAILED, error="bad-data")
    make(State.FAILED, two_hours_ago, error="node-lost")
    make(State.FAILED, two_hours_ago, error="algorithm-unknown")
    return SimpleNamespace(busy=node, lost=lost, running=make(State.RUNNING))


@pytest.mark.parametrize("line", lines(NODES))
def test_nodes(line: Case, api: APIClient, world_n: World) -> None:
    for step in line.steps:
        step.run(api, world_n)


def load(queued: int) -> Look:
    return lambda answer, _: [each["queued_count"] for each in answer.body["results"]] == [queued]


def queue_is(length: int) -> Look:
    """Look into the queue itself, after the request."""
    return lambda answer, _: QueuedExecution.objects.count() == length


def job_is(name: str, **fields: Any) -> Look:
    """Look at a job of the world, after the request."""

    def look(answer: Any, world: World) -> bool:
        job = Job.objects.get(pk=getattr(world, name).pk)
        return {each: getattr(job, each) for each in fields} == fields

    return look


def requeued(*names: str, **filters: Any) -> tuple[Step, ...]:
    """Return the steps of a filter that fits jobs that failed, which are queued then."""
    return (
        Step(
            "POST /queue/requeue-jobs/",
            200,
            filters,
            lambda answer, w: (
                {each["id"] for each in answer.body["results"]}
                == {getattr(w, name).pk for name in names}
            ),
        ),
        Step("GET /jobs/{w.failed.pk}/", look=has(status="QUEUED", num_exes=2)),
        Step("GET /jobs/{w.canceled.pk}/", look=has(status="CANCELED")),
    )


NO_RECIPES = "there are no recipes here"
ALWAYS_QUEUED = "a job is queued when it is made, so that none was never queued"
DATA = {"version": "1.0", "input_data": [{"name": "text", "value": "a"}]}
TAKES = "/queue/new-job/"
QUEUE = [
    case("Q1", Step("GET /load/", look=load(1))),
    case(
        "Q2",
        Step("GET /load/?job_type_id={w.kind.pk}", look=load(1)),
        Step("GET /load/?job_type_id=999999", look=load(0)),
    ),
    case(
        "Q3",
        Step("GET /load/?job_type_name=kind", look=load(1)),
        Step("GET /load/?job_type_name=other", look=load(0)),
    ),
    case(
        "Q4",
        Step("GET /load/?job_type_category=cat", look=load(1)),
        Step("GET /load/?job_type_category=other", look=load(0)),
    ),
    case(
        "Q5",
        Step("GET /load/?job_type_priority=7", look=load(1)),
        Step("GET /load/?job_type_priority=8", look=load(0)),
    ),
    case("Q6", Step("GET /load/?started=P32D", 400, look=blames("started"))),
    case("Q7", Step(f"POST {TAKES}", 404, {"job_type_id": 999999})),
    case("Q8", Step(f"POST {TAKES}", 400, {"job_type_id": "BAD"}, blames("job_type_id"))),
    case("Q9", Step(f"POST {TAKES}", 400, {}, blames("job_type_id"))),
    case(
        "Q10",
        Step(
            f"POST {TAKES}",
            400,
            {"job_type_id": lambda w: w.takes.pk, "job_data": 123},
            blames("job_data"),
        ),
    ),
    case("Q11", Step(f"POST {TAKES}", 400, {"job_type_id": lambda w: w.takes.pk, "job_data": {}})),
    case(
        "Q12",
        Step(
            f"POST {TAKES}",
            201,
            {"job_type_id": lambda w: w.takes.pk, "job_data": lambda _: DATA},
            lambda answer, _: (
                answer.body["status"] == "QUEUED"
                and answer.location
                == f"http://testserver/job-executions/{answer.body['job_exes'][0]['id']}/"
            ),
        ),
    ),
    case("Q13", Step("POST /queue/new-recipe/", 404, {"recipe_type_id": 1}), differs=NO_RECIPES),
    case(
        "Q14",
        Step(
            "GET /queue/status/",
            look=lambda answer, _: (
                [
                    (each["job_type_name"], each["count"], each["highest_priority"])
                    for each in answer.body["queue_status"]
                ]
                == [("kind", 1, 7)]
            ),
        ),
    ),
    case("Q15", Step("POST /queue/requeue-jobs/", 404, {"job_ids": [999998, 999999]})),
    case(
        "Q16",
        Step("POST /queue/requeue-jobs/", 200, {"job_ids": [lambda w: w.canceled.pk]}, queue_is(2)),
        Step("GET /jobs/{w.canceled.pk}/", look=has(status="QUEUED")),
        differs=ALWAYS_QUEUED,
    ),
    case(
        "Q17",
        Step("POST /queue/requeue-jobs/", 200, {"job_ids": [lambda w: w.failed.pk]}, queue_is(2)),
        Step("GET /jobs/{w.failed.pk}/", look=has(status="QUEUED", num_exes=2, max_tries=2)),
    ),
    case(
        "Q18",
        Step("POST /queue/requeue-jobs/", 200, {"job_ids": [lambda w: w.done.pk]}, queue_is(1)),
        Step("GET /jobs/{w.done.pk}/", look=has(status="COMPLETED", num_exes=1)),
    ),
    case("Q19", *requeued("twice", "failed", status="FAILED")),
    case("Q20", *requeued("failed", job_ids=[lambda w: w.failed.pk])),
    case("Q21", *requeued("failed", job_type_ids=[lambda w: w.fails.pk])),
    case("Q22", *requeued("failed", job_type_names=["fails"])),
    case("Q23", *requeued("failed", job_type_categories=["bad"])),
    case("Q24", *requeued("failed", error_categories=["DATA"])),
    case(
        "Q25",
        Step(
            "POST /queue/requeue-jobs/",
            200,
            {"job_ids": [lambda w: w.failed.pk], "priority": 123},
            job_is("failed", priority=123),
        ),
    ),
    case(
        "Q26",
        Step("POST /queue/requeue-job/", 409, {"job_id": lambda w: w.done.pk}),
        Step("POST /queue/requeue-job/", 404, {"job_id": 999999}),
        Step("POST /queue/requeue-job/", 400, {"job_id": "BAD"}, blames("job_id")),
        Step("POST /queue/requeue-job/", 400, {}, blames("job_id")),
    ),
    case(
        "Q27",
        Step("POST /queue/requeue-job/", 200, {"job_id": lambda w: w.twice.pk}, queue_is(2)),
        Step(
            "GET /jobs/{w.twice.pk}/",
            look=lambda answer, _: (
                [each["exe_num"] for each in answer.body["job_exes"]] == [3, 2, 1]
                and answer.body["max_tries"] == 2 + 2
            ),
        ),
    ),
]


@pytest.fixture
def world_q(
    make_job_type: Callable[..., JobType],
    make_job: Callable[..., Job],
    make_execution: Callable[..., JobExecution],
) -> World:
    Error.objects.create(name="bad-data", category="DATA")
    text = {"name": "text", "type": "property"}
    takes = make_job_type(interface={"command": "echo", "input_data": [text]})
    kind = make_job_type(name="kind", category="cat", priority=7)
    fails = make_job_type(name="fails", category="bad", max_tries=1)
    twice = make_job(make_job_type(max_tries=2))
    for _ in range(2):
        twice.refresh_from_db()
        make_execution(State.FAILED, job=twice, error="node-lost")
    return SimpleNamespace(
        takes=takes,
        kind=kind,
        fails=fails,
        twice=twice,
        queued=make_execution(State.QUEUED, job_type=kind).job,
        canceled=make_execution(State.CANCELED).job,
        done=make_execution(State.COMPLETED).job,
        failed=make_execution(State.FAILED, job_type=fails, error="bad-data").job,
    )


@pytest.mark.parametrize("line", lines(QUEUE))
def test_queue(line: Case, api: APIClient, world_q: World) -> None:
    sample_load(now=timezone.now(), period_s=60)
    for step in line.steps:
        step.run(api, world_q)


STALE = "a status of which nothing is known is 503, so that nobody takes it for the state of now"
SCHEDULER = [
    case("S1", Step("GET /scheduler/", look=has(is_paused=False))),
    case("S2", Step("GET /scheduler/", 404)),
    case(
        "S3",
        Step(
            "PATCH /scheduler/",
            201,
            {"is_paused": True},
            lambda answer, _: (
                answer.body["is_paused"] is True
                and answer.location == "http://testserver/scheduler/"
            ),
        ),
    ),
    case("S4", Step("PATCH /scheduler/", 400, {}, says("No fields specified for update."))),
    case("S5", Step("PATCH /scheduler/", 400, {"foo": 1}, says("Unexpected fields: foo"))),
    case(
        "S6",
        Step(
            "GET /status/",
            look=lambda answer, _: (
                answer.body["master"] == {"is_online": True, "hostname": "10.0.0.1", "port": 5050}
                and answer.body["scheduler"]["is_online"] is True
                and answer.body["scheduler"]["is_paused"] is False
                and answer.body["queue_depth"] == 0
                and {"total", "scheduled", "used"} <= set(answer.body["resources"])
            ),
        ),
    ),
    case(
        "S7",
        Step(
            "GET /status/",
            503,
            look=lambda answer, _: (
                answer.body["master"]["is_online"] is False
                and answer.body["scheduler"]["is_online"] is False
            ),
        ),
        differs=STALE,
    ),
    case(
        "S8",
        Step(
            "GET /status/",
            look=lambda answer, _: (
                answer.body["master"]["is_online"] is False
                and answer.body["scheduler"]["is_online"] is True
            ),
        ),
    ),
    case("S9", Step("GET /version/", look=has(version=scale.__version__))),
]


@pytest.mark.parametrize("line", lines(SCHEDULER))
def test_scheduler(line: Case, api: APIClient, db: None) -> None:
    if line.line in {"S2", "S7"}:
        SchedulerState.objects.all().delete()
    SchedulerState.objects.update(
        heartbeat=timezone.now(),
        is_connected=line.line != "S8",
        leader="here:1",
        master="10.0.0.1:5050",
    )
    for step in line.steps:
        step.run(api, SimpleNamespace())


ALL = [*EXECUTIONS, *JOBS, *TYPES, *NODES, *QUEUE, *ERRORS, *SCHEDULER, *PARAMETERS]
#: How many lines the catalogue has of each kind.
LINES = {"E": 10, "J": 15, "T": 21, "N": 18, "Q": 27, "R": 12, "S": 9, "P": 9}
#: What we do otherwise than the catalogue says, on purpose; each case says why.
DIFFERENT = {"T3", "T12", "T13", "Q13", "Q16", "S7"}


def test_the_catalogue_is_whole_and_marks_what_differs() -> None:
    assert [each.line for each in ALL] == [
        f"{kind}{number}" for kind, most in LINES.items() for number in range(1, most + 1)
    ]
    assert {each.line for each in ALL if each.differs} == DIFFERENT
    assert all(each.steps for each in ALL)
