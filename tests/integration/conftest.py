"""Factories that go through the services, and the check that rows agree with their histories."""

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from launching import launch
from list_world import executions_in_many_states
from rest_framework.test import APIClient

from scale.core.lifecycle import MOVES, TERMINAL, Event, State
from scale.job.models import ExecutionEvent, Job, JobExecution, JobType
from scale.job.services import Move, cancel_job, move_executions
from scale.job.submission import JobRequest, create_job_type, submit_job
from scale.job.tallies import differences
from scale.node.models import Node

_numbers = itertools.count(1)

INTERFACE = {"version": "1.0", "command": "true"}
INTERFACE_WITH_STEPS = {
    "version": "1.0",
    "command": "true",
    "output_data": [{"name": "out", "type": "file", "required": False}],
}


@pytest.fixture(autouse=True)
def rows_agree_with_their_histories(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after each test with a database that no state was written past the services.

    And that every kept count is that of the rows.
    """
    wants = {"db", "transactional_db", "live_server"} & set(request.fixturenames)
    if not wants and request.node.get_closest_marker("django_db") is None:
        yield
        return
    request.getfixturevalue("db")  # of the kind that the test's marker says
    yield
    problems = [text for row in JobExecution.objects.all() for text in disagreements(row)]
    assert problems == []
    assert differences() == []


def disagreements(row: JobExecution) -> list[str]:
    """Replay the history of an execution through the table of moves; return what is wrong."""
    entries = list(ExecutionEvent.objects.filter(execution=row).order_by("id"))
    if not entries or entries[0].event != ExecutionEvent.CREATE:
        return [f"{row} has no beginning"]
    problems = []
    state = State(entries[0].state)
    for entry in entries[1:]:
        reached = MOVES.get((state, Event(entry.event)))
        if reached != entry.state:
            problems.append(f"{row}: {entry.event} from {state} cannot lead to {entry.state}")
        state = State(entry.state)
    if state != row.state:
        problems.append(f"{row} is {row.state}, its history says {state}")
    if (row.ended is not None) != (state in TERMINAL):
        problems.append(f"{row} has ended at {row.ended} and is {state}")
    return problems


@pytest.fixture
def make_job_type(db: None) -> Callable[..., JobType]:
    """Make a job type; any of its fields can be given."""

    def make(**fields: Any) -> JobType:
        number = next(_numbers)
        return create_job_type(
            {
                "name": f"type-{number}",
                "version": "1.0",
                "interface": INTERFACE,
                "mem_required": 32.0,
                **fields,
            }
        )

    return make


@pytest.fixture
def make_job(make_job_type: Callable[..., JobType]) -> Callable[..., Job]:
    """Submit a job: `make_job(job_type, name=..., inputs=..., priority=..., at=...)`."""

    def make(job_type: JobType | None = None, *, at: datetime | None = None, **request: Any) -> Job:
        wanted = JobRequest(job_type=job_type or make_job_type(), **request)
        return submit_job(wanted, user="tester", at=at or timezone.now())[0]

    return make


@pytest.fixture
def make_node(db: None) -> Callable[..., Node]:
    def make(**fields: Any) -> Node:
        number = next(_numbers)
        return Node.objects.create(
            **{
                "hostname": f"n{number}.example",
                "port": 5051,
                "slave_id": f"agent-{number}",
                "address": "127.0.0.1",
                "millicpus_total": 8000,
                "mem_mib_total": 16000,
                "disk_mib_total": 100_000,
                **fields,
            }
        )

    return make


@pytest.fixture
def make_execution(
    make_job: Callable[..., Job],
    make_job_type: Callable[..., JobType],
    make_node: Callable[..., Node],
) -> Callable[..., JobExecution]:
    """Bring a new job's execution to a state, by legal moves only.

    `make_execution(State.FAILED, job_type=..., node=..., error="unknown", exit_code=1)`; with
    `has_steps=True` it has pre and post phases, which HOLDING takes anyway. A failure with an error
    that is retried leaves a next, queued execution behind.
    """

    def make(
        state: State = State.QUEUED,
        *,
        job: Job | None = None,
        job_type: JobType | None = None,
        node: Node | None = None,
        has_steps: bool = False,
        error: str = "algorithm-unknown",
        exit_code: int = 1,
        at: datetime | None = None,
    ) -> JobExecution:
        at = at or timezone.now()
        if job is None:
            with_steps = has_steps or state is State.HOLDING
            interface = INTERFACE_WITH_STEPS if with_steps else INTERFACE
            job = make_job(job_type or make_job_type(interface=interface), at=at)
        pk = job.executions.get(exe_num=job.num_exes).pk
        if state is State.CANCELED:
            cancel_job(job.pk, at=at)
        elif state is not State.QUEUED:
            _advance(pk, state, node or make_node(), error, exit_code, at)
        return JobExecution.objects.select_related("job__job_type").get(pk=pk)

    return make


def _advance(pk: int, state: State, node: Node, error: str, exit_code: int, at: datetime) -> None:
    def now() -> JobExecution:
        return JobExecution.objects.get(pk=pk)

    launch(now(), node, at=at)
    if state is State.STARTING:
        return
    move_executions([Move(pk, Event.START)], at=at)
    if state is State.HOLDING:
        move_executions([Move(pk, Event.HOLD, exit_code=0)], at=at)
    elif state is State.FAILED:
        failure = Move(pk, Event.FAIL, exit_code=exit_code, error=error, message="it failed")
        move_executions([failure], at=at)
    elif state is State.COMPLETED:
        while now().phase != now().last_phase:
            move_executions([Move(pk, Event.HOLD, exit_code=0)], at=at)
            launch(now(), node, at=at)
            move_executions([Move(pk, Event.START)], at=at)
        move_executions([Move(pk, Event.FINISH, exit_code=0)], at=at)


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    """Store files in a folder of the test's own; return it."""
    folder = tmp_path / "stored"
    folder.mkdir()
    default = settings.STORAGES["default"]
    options = {**default["OPTIONS"], "location": folder}
    settings.STORAGES = {**settings.STORAGES, "default": {**default, "OPTIONS": options}}
    settings.SCALE_STORAGE_DIR = folder
    return folder


@pytest.fixture
def make_world(
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Node],
) -> Callable[[], list[JobExecution]]:
    """Make executions in many states."""
    return lambda: executions_in_many_states(make_job_type, make_execution, make_node)


@pytest.fixture
def make_user(db: None, django_user_model: Any) -> Callable[..., Any]:
    """Make a user; `permissions` are names such as `node.change_node`."""
    from django.contrib.auth.models import Group, Permission

    def make(*permissions: str, role: str = "", **fields: Any) -> Any:
        user = django_user_model.objects.create_user(f"user-{next(_numbers)}", **fields)
        if role:
            user.groups.add(Group.objects.get(name=role))
        for name in permissions:
            app, _, codename = name.partition(".")
            user.user_permissions.add(
                Permission.objects.get(content_type__app_label=app, codename=codename)
            )
        return user

    return make


@pytest.fixture
def api(make_user: Callable[..., Any]) -> APIClient:
    """A client whose user may do everything; logging in costs it no query."""
    client = APIClient()
    client.force_authenticate(make_user(is_superuser=True))
    return client
