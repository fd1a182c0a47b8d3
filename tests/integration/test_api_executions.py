"""/job-executions/ is what seed 002 promises, to the letter."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import JobExecution
from scale.job.selectors import EXECUTION_ORDER

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)
WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")

# The field table of the list; a question mark is "may be null".
IN_LIST = """
    id Integer | status String | command_arguments String | timeout Integer | pre_started Datetime?
    pre_completed Datetime? | pre_exit_code Integer? | job_started Datetime?
    job_completed Datetime? | job_exit_code Integer? | post_started Datetime?
    post_completed Datetime? | post_exit_code Integer? | created Datetime | queued Datetime
    started Datetime? | ended Datetime? | last_modified Datetime | job Object | node Object?
    error Object?
"""
# What the table of the details has besides.
IN_DETAILS = """
    environment Object | cpus_scheduled Decimal? | mem_scheduled Decimal?
    disk_in_scheduled Decimal? | disk_out_scheduled Decimal? | disk_total_scheduled Decimal?
    results Object | current_stdout_url URL? | current_stderr_url URL? | results_manifest Object
"""
# The objects inside, as the seed's samples have them.
JOB = """
    id Integer | job_type Object | job_type_rev Object | event Object | error Object?
    status String | priority Integer | num_exes Integer
"""
JOB_TYPE = """
    id Integer | name String | version String | title String? | description String?
    category String? | author_name String? | author_url String? | is_system Boolean
    is_long_running Boolean | is_active Boolean | is_operational Boolean | is_paused Boolean
    icon_code String?
"""
NODE = "id Integer | hostname String | port Integer | slave_id String"
NODE_IN_DETAILS = f"""{NODE} | is_paused Boolean | is_active Boolean | archived Datetime?
    created Datetime | last_modified Datetime"""
ERROR = """id Integer | name String | title String? | description String? | category String
    is_builtin Boolean"""

KINDS: dict[str, Callable[[Any], bool]] = {
    "Integer": lambda value: type(value) is int,
    "String": lambda value: isinstance(value, str),
    "Boolean": lambda value: isinstance(value, bool),
    "Decimal": lambda value: type(value) is float,
    "Datetime": lambda value: isinstance(value, str) and bool(WHEN.match(value)),
    "Object": lambda value: isinstance(value, dict),
    "URL": lambda value: isinstance(value, str) and value.startswith("http://testserver/"),
}


def fields(table: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+) (\w+\??)", table))


def check(thing: dict[str, Any], table: str, *, exactly: bool = False) -> None:
    expected = fields(table)
    missing = set(expected) - set(thing)
    assert not missing
    if exactly:
        assert set(thing) == set(expected)
    for name, kind in expected.items():
        value = thing[name]
        if value is None:
            assert kind.endswith("?"), name
        else:
            assert KINDS[kind.rstrip("?")](value), (name, value)


@pytest.mark.parametrize("state", list(State))
def test_the_list_has_the_fields_of_the_seed_in_every_state(
    state: State, make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    make_execution(state)
    answer = api.get("/job-executions/").json()
    assert set(answer) == {"count", "next", "previous", "results"}
    (found,) = answer["results"]
    check(found, IN_LIST, exactly=True)
    check(found["job"], JOB, exactly=True)
    check(found["job"]["job_type"], JOB_TYPE, exactly=True)
    check(found["job"]["job_type_rev"], "id Integer", exactly=True)
    check(found["job"]["event"], "id Integer", exactly=True)
    launched = state not in {State.QUEUED, State.CANCELED}
    assert (found["node"] is not None) == launched
    if found["node"]:
        check(found["node"], NODE, exactly=True)
    assert (found["error"] is not None) == (state is State.FAILED)
    if found["error"]:
        check(found["error"], ERROR, exactly=True)
        check(found["job"]["error"], "id Integer", exactly=True)


@pytest.mark.parametrize("state", list(State))
def test_the_details_have_the_fields_of_the_seed_in_every_state(
    state: State, make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    execution = make_execution(state)
    found = api.get(f"/job-executions/{execution.pk}/").json()
    check(found, f"{IN_LIST} | {IN_DETAILS}")
    check(found["job"], JOB)
    check(found["job"]["job_type"], JOB_TYPE)
    check(found["job"]["job_type_rev"], "id Integer")
    check(found["job"]["event"], "id Integer")
    if found["node"]:
        check(found["node"], NODE_IN_DETAILS)
    if found["error"]:
        check(found["error"], ERROR)
    check(found, "uuid String | exe_num Integer | state String | phase String")
    assert found["state"] == state
    assert found["status"] == execution.status


def test_only_what_was_launched_has_addresses_of_logs(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    queued, running = make_execution(State.QUEUED), make_execution(State.RUNNING)
    assert api.get(f"/job-executions/{queued.pk}/").json()["current_stdout_url"] is None
    logs = f"http://testserver/job-executions/{running.pk}/logs"
    found = api.get(f"/job-executions/{running.pk}/").json()
    assert found["current_stdout_url"] == f"{logs}/stdout/"
    assert found["current_stderr_url"] == f"{logs}/stderr/"
    under = api.get(f"/v3/job-executions/{running.pk}/").json()["current_stdout_url"]
    assert under == f"http://testserver/v3/job-executions/{running.pk}/logs/stdout/"


def test_the_details_say_what_may_happen_next(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    execution = make_execution(State.HOLDING)
    found = api.get(f"/job-executions/{execution.pk}/").json()
    assert found["allowed_events"] == ["cancel", "fail", "launch"]
    assert found["phase"] == "job"


@pytest.fixture
def world(
    make_job_type: Callable[..., Any],
    make_job: Callable[..., Any],
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Any],
) -> dict[str, Any]:
    """World E of reference/scale.md 9.2: ten executions of four jobs of two types."""
    one = make_job_type(name="one", category="images", max_tries=9)
    two = make_job_type(name="two", category="texts", max_tries=9)
    node = make_node()

    def attempts(job_type: Any, *states: State) -> None:
        job = make_job(job_type)
        for state in states:
            make_execution(state, job=job, error="unknown", node=node)
            job.refresh_from_db()

    failed, running, completed = State.FAILED, State.RUNNING, State.COMPLETED
    attempts(one, failed, failed, failed, running)
    attempts(two, failed, failed, running)
    attempts(two, completed)
    attempts(one, completed)
    attempts(two, completed)
    assert JobExecution.objects.count() == 10
    return {"one": one, "two": two, "node": node}


def test_filters_restrict_and_add_up(
    world: dict[str, Any], api: APIClient, make_execution: Callable[..., JobExecution]
) -> None:
    def count(query: str) -> int:
        answer = api.get(f"/job-executions/?{query}").json()
        assert answer["count"] == len(answer["results"])
        return int(answer["count"])

    one, two, node = world["one"].pk, world["two"].pk, world["node"].pk
    assert count("") == 10
    assert count("status=RUNNING") == 2
    assert count("status=FAILED") == 5
    assert count("status=CANCELED") == 0
    assert count(f"job_type_id={one}") == 5
    assert count(f"job_type_id={one}&job_type_id={two}") == 10
    assert count("job_type_name=one") == 5
    assert count("job_type_name=nobody") == 0
    assert count("job_type_category=images") == 5
    assert count("job_type_category=images&job_type_category=texts") == 10
    assert count(f"node_id={node}") == 10
    assert count(f"node_id={node + 1}") == 0
    assert count(f"job_type_id={one}&status=RUNNING") == 1
    assert count("started=PT1H") == 10
    assert count("ended=PT1H") == 0


def test_a_period_includes_both_its_ends(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    make_execution(State.QUEUED, at=LONG_AGO)
    at = "2020-01-01T12:00:00Z"

    def count(query: str) -> int:
        return int(api.get(f"/job-executions/?{query}").json()["count"])

    assert count(f"started={at}") == count(f"ended={at}") == 1
    assert count("started=2020-01-01T12:00:00.001Z") == 0
    assert count("ended=2020-01-01T11:59:59.999Z") == 0
    assert count("started=2020-01-01T11:00:00%2B00:00&ended=2020-01-01T13:30:00%2B01:00") == 1


def test_the_order_is_that_of_the_last_change_unless_told(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    newer = make_execution(State.QUEUED, at=LONG_AGO + timedelta(days=1)).pk
    older = make_execution(State.QUEUED, at=LONG_AGO).pk

    def order(query: str) -> list[int]:
        return [each["id"] for each in api.get(f"/job-executions/?{query}").json()["results"]]

    assert order("") == [older, newer]
    assert order("order=-last_modified") == [newer, older]
    assert order("order=status&order=-id") == [older, newer]
    assert order("order=-job_type__name") == order("order=-job__job_type__name") == [older, newer]


def test_every_offered_order_works(api: APIClient, db: None) -> None:
    for field in EXECUTION_ORDER:
        assert api.get(f"/job-executions/?order={field}&order=-{field}").status_code == 200, field


def test_pages_lead_to_each_other_and_keep_the_other_parameters(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    made = [make_execution(State.QUEUED, at=LONG_AGO).pk for _ in range(5)]
    url = "/v3/job-executions/?status=QUEUED&page_size=2&order=last_modified"
    seen: list[int] = []
    pages = []
    while url:
        answer = api.get(url).json()
        assert answer["count"] == 5
        seen += [each["id"] for each in answer["results"]]
        pages.append(answer)
        url = answer["next"]
    assert seen == made
    assert len(pages) == 3
    assert pages[0]["previous"] is None
    assert pages[1]["previous"] == (
        "http://testserver/v3/job-executions/?status=QUEUED&page_size=2&order=last_modified&page=1"
    )
    exact = api.get("/job-executions/?page=1&page_size=5").json()
    assert (len(exact["results"]), exact["next"]) == (5, None)
    beyond = api.get("/job-executions/?page=9&page_size=2").json()
    assert (beyond["count"], beyond["results"], beyond["next"]) == (5, [], None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page_size=1001", "page_size"),
        ("started=1970-01-01T00:00:00", "started"),
        ("ended=1970-01-01T00:00:00", "ended"),
        ("started=PT1H&ended=PT1H", "started"),
        ("order=nothing", "order"),
        ("order=job", "order"),
        ("order=job__data", "order"),
        ("status=ODD", "status"),
        ("status=running", "status"),
        ("status=RUNNING&status=FAILED", "status"),
        ("job_type_id=one", "job_type_id"),
        ("job_type_id=1&job_type_id=", "job_type_id"),
        ("job_type_id=9223372036854775808", "job_type_id"),
        ("node_id=1.5", "node_id"),
        ("job_type_name=%00", "job_type_name"),
        ("job_type_category=%ff", "job_type_category"),
        ("statuses=RUNNING", "statuses"),
        ("format=json", "format"),
    ],
)
def test_a_bad_parameter_is_refused_by_its_name(
    query: str, field: str, api: APIClient, db: None
) -> None:
    answer = api.get(f"/job-executions/?{query}")
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert answer.json()["code"] == "invalid"
    assert answer.json()["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        ("999999", 404, "not_found"),
        ("9223372036854775807", 404, "not_found"),
        ("9223372036854775808", 404, "not_found"),
        ("9" * 400, 404, "not_found"),
        ("-1", 404, "not_found"),
        ("abc", 400, "invalid"),
        ("1.0", 400, "invalid"),
        ("%00", 400, "invalid"),
        ("%D9%A1", 400, "invalid"),
    ],
)
def test_an_execution_that_does_not_exist(
    key: str, status: int, code: str, api: APIClient, db: None
) -> None:
    answer = api.get(f"/job-executions/{key}/")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"]


def test_a_list_takes_two_queries_and_so_do_the_details(
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    executions = [make_execution(state) for state in (*State, *State)]
    with django_assert_num_queries(2):
        assert len(api.get("/job-executions/").json()["results"]) == len(executions)
    last = executions[-1]
    query = f"job_type_name={last.job_type.name}&job_type_id={last.job_type_id}&status=CANCELED"
    with django_assert_num_queries(3):  # the names are looked up first
        assert api.get(f"/job-executions/?{query}").json()["count"] == 1
    with django_assert_num_queries(2):
        api.get(f"/job-executions/{last.pk}/")


def test_a_list_reads_no_heavy_columns(
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    make_execution(State.COMPLETED)
    with django_assert_num_queries(2) as queries:
        api.get("/job-executions/")
    statements = " ".join(query["sql"] for query in queries.captured_queries)
    assert not re.search(r'"(environment|results|results_manifest|data|interface)"', statements)
