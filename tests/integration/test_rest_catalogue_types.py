"""The catalogue of cases: job types (T) and errors (R)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone
from rest_cases import Case, Look, Step, World, blames, case, counts, lines
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.error.models import Error
from scale.job.models import JobExecution, JobType
from scale.node.models import Node

NO_RULES = "rules fire on ingested and parsed files, of which there are none here"
INTERFACE = {"version": "1.0", "command": "true"}
NEW: dict[str, Any] = {"name": "new", "version": "1.0", "interface": INTERFACE}
MAPPING = {"version": "1.0", "exit_codes": {"1": "unknown"}}
RULE = {"type": "PARSE", "configuration": {"version": "1.0", "condition": {}}}
ONE = "/job-types/{w.one.pk}/"


def has(**fields: Any) -> Look:
    """Look for these fields of the answer."""
    return lambda answer, _: {name: answer.body[name] for name in fields} == fields


def tallies(entries: list[dict[str, Any]]) -> dict[str, int]:
    return {each["status"]: each["count"] for each in entries}


def named(*names: str) -> Look:
    return lambda answer, _: [each["name"] for each in answer.body["results"]] == list(names)


TYPES = [
    case(
        "T1",
        Step(
            "POST /job-types/",
            201,
            {**NEW, "priority": "1", "error_mapping": MAPPING},
            look=has(priority=1, error_mapping=MAPPING, trigger_rule=None, max_scheduled=None),
        ),
    ),
    case("T2", Step("POST /job-types/", 201, {**NEW, "max_scheduled": 42}, has(max_scheduled=42))),
    case(
        "T3",
        Step("POST /job-types/", 400, {**NEW, "trigger_rule": RULE}, blames("trigger_rule")),
        Step("GET /job-types/?name=new", look=counts(0)),
        differs=NO_RULES,
    ),
    case("T4", Step("POST /job-types/", 400, {"name": "new"})),
    case("T5", Step("POST /job-types/", 400, {**NEW, "priority": "BAD"}, blames("priority"))),
    case(
        "T6",
        Step(
            "POST /job-types/",
            400,
            {**NEW, "error_mapping": {"version": "1.0", "exit_codes": {"1": "nobody"}}},
            blames("error_mapping.exit_codes.1"),
        ),
    ),
    case(
        "T7",
        Step("POST /job-types/", 400, {**NEW, "trigger_rule": {**RULE, "type": "BAD"}}),
        Step("POST /job-types/", 400, {**NEW, "trigger_rule": {"type": "PARSE"}}),
        Step("POST /job-types/", 400, {**NEW, "trigger_rule": {"configuration": {}}}),
    ),
    case(
        "T8",
        Step("GET /job-types/999999/", 404),
        Step(
            f"GET {ONE}",
            look=lambda answer, _: (
                len(answer.body["errors"]) == 1
                and answer.body["job_counts_6h"] == []
                and answer.body["job_counts_12h"] == []
                and answer.body["job_counts_24h"] == []
                and answer.body["interface"] == INTERFACE
            ),
        ),
    ),
    case("T9", Step(f"PATCH {ONE}", 200, {"title": "New"}, has(title="New", revision_num=1))),
    case(
        "T10",
        Step(f"PATCH {ONE}", 200, {"interface": {"command": "new"}}, has(revision_num=2)),
        Step(f"GET {ONE}", look=has(interface={"command": "new"})),
    ),
    case(
        "T11",
        Step(
            f"PATCH {ONE}",
            200,
            {"error_mapping": {"exit_codes": {"10": "timeout"}}},
            has(revision_num=1, error_mapping={"exit_codes": {"10": "timeout"}}),
        ),
    ),
    case(
        "T12",
        Step(f"PATCH {ONE}", 400, {"trigger_rule": RULE}, blames("trigger_rule")),
        differs=NO_RULES,
    ),
    case(
        "T13",
        Step(f"PATCH {ONE}", 400, {"trigger_rule": {"is_active": False}}, blames("trigger_rule")),
        differs=NO_RULES,
    ),
    case("T14", Step(f"PATCH {ONE}", 200, {"trigger_rule": None}, has(trigger_rule=None))),
    case(
        "T15",
        Step(
            f"PATCH {ONE}",
            400,
            {"interface": {"command": "new", "version": "BAD"}},
            blames("interface.version"),
        ),
    ),
    case(
        "T16",
        Step(
            f"PATCH {ONE}",
            400,
            {"error_mapping": {"version": "BAD"}},
            blames("error_mapping.version"),
        ),
    ),
    case(
        "T17",
        Step("POST /job-types/validation/", 200, NEW, has(warnings=[])),
        Step(
            "POST /job-types/validation/",
            200,
            {**NEW, "cpus_required": 1000},
            lambda answer, _: (
                [set(each) for each in answer.body["warnings"]] == [{"id", "details"}]
            ),
        ),
        Step("POST /job-types/validation/", 400, {**NEW, "interface": {}}, blames("interface")),
        Step("GET /job-types/?name=new", look=counts(0)),
    ),
    case(
        "T18",
        Step(
            "GET /job-types/status/?started=PT1H",
            look=lambda answer, w: (
                {
                    each["job_type"]["name"]: tallies(each["job_counts"])
                    for each in answer.body["results"]
                }
                == {"one": {"COMPLETED": 1, "RUNNING": 2, "FAILED": 1}, "two": {"RUNNING": 1}}
            ),
        ),
    ),
    case(
        "T19",
        Step(
            "GET /job-types/running/",
            look=lambda answer, _: (
                [
                    (each["job_type"]["name"], each["count"], each["longest_running"][:4])
                    for each in answer.body["results"]
                ]
                == [("two", 1, "2019"), ("one", 2, "2020")]
            ),
        ),
    ),
    case(
        "T20",
        Step(
            "GET /job-types/system-failures/",
            look=lambda answer, _: (
                [
                    (each["job_type"]["name"], each["error"]["name"], each["count"])
                    for each in answer.body["results"]
                ]
                == [("one", "node-lost", 1)]
            ),
        ),
    ),
    case(
        "T21",
        Step("GET /job-types/?name=one", look=named("one")),
        Step("GET /job-types/?category=b", look=named("two")),
        Step("GET /job-types/?category=a&category=b", look=named("one", "two")),
        Step("GET /job-types/?order=name", look=named("one", "two")),
        Step("GET /job-types/?order=-name", look=named("two", "one")),
    ),
]


@pytest.fixture
def world_t(make_job_type: Callable[..., JobType], make_node: Callable[..., Node]) -> World:
    make_node()
    one = make_job_type(
        name="one", category="a", interface=INTERFACE, error_mapping=MAPPING, max_tries=1
    )
    return SimpleNamespace(one=one, two=make_job_type(name="two", category="b"))


@pytest.fixture
def jobs_of_types(world_t: World, make_execution: Callable[..., JobExecution]) -> None:
    long_ago = datetime(2020, 1, 1, 12, tzinfo=UTC)
    for state, at in [
        (State.COMPLETED, None),
        (State.COMPLETED, timezone.now() - timedelta(hours=2)),
        (State.RUNNING, None),
        (State.RUNNING, long_ago),
        (State.FAILED, None),
    ]:
        make_execution(state, job_type=world_t.one, error="node-lost", at=at)
    make_execution(State.RUNNING, job_type=world_t.two, at=long_ago - timedelta(days=365))


@pytest.mark.parametrize("line", lines(TYPES))
def test_job_types(
    line: Case, api: APIClient, world_t: World, request: pytest.FixtureRequest
) -> None:
    if line.line in {"T18", "T19", "T20"}:
        request.getfixturevalue("jobs_of_types")
    for step in line.steps:
        step.run(api, world_t)


ERROR = {"name": "bad", "title": "T", "description": "D", "category": "DATA"}
MINE = "/errors/{w.mine.pk}/"
ERRORS = [
    case(
        "R1",
        Step(
            "GET /errors/?page_size=1000",
            look=lambda answer, _: answer.body["count"] == Error.objects.count(),
        ),
    ),
    case(
        "R2",
        Step(
            "POST /errors/",
            201,
            ERROR,
            lambda answer, _: (
                answer.location == f"http://testserver/errors/{answer.body['id']}/"
                and answer.body | ERROR == answer.body
            ),
        ),
    ),
    case(
        "R3",
        *(
            Step("POST /errors/", 400, {k: v for k, v in ERROR.items() if k != name}, blames(name))
            for name in ERROR
        ),
    ),
    case("R4", Step("POST /errors/", 400, {**ERROR, "category": "BAD"}, blames("category"))),
    case("R5", Step("POST /errors/", 400, {**ERROR, "category": "SYSTEM"}, blames("category"))),
    case("R6", Step(f"GET {MINE}", look=has(name="mine", category="DATA"))),
    case("R7", Step("GET /errors/999999/", 404)),
    case(
        "R8",
        Step(f"PATCH {MINE}", 200, {"title": "New"}, has(title="New")),
        Step(f"GET {MINE}", look=has(title="New", category="DATA")),
    ),
    case("R9", Step("PATCH /errors/999999/", 404, {"title": "New"})),
    case("R10", Step(f"PATCH {MINE}", 400, {"category": "BAD"}, blames("category"))),
    case("R11", Step("PATCH /errors/{w.system.pk}/", 400, {"title": "New"})),
    case("R12", Step(f"PATCH {MINE}", 400, {"category": "SYSTEM"}, blames("category"))),
]


@pytest.mark.parametrize("line", lines(ERRORS))
def test_errors(line: Case, api: APIClient, db: None) -> None:
    mine = Error.objects.create(name="mine", title="T", description="D", category="DATA")
    world = SimpleNamespace(mine=mine, system=Error.objects.get(name="unknown"))
    for step in line.steps:
        step.run(api, world)
