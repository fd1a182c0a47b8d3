"""/metrics/ and /timeline/: what ended on each day, worked out once when the day is over."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from launching import launch
from pytest_django import Settings
from rest_framework.test import APIClient

from scale.core.lifecycle import Event, State
from scale.error.models import Error
from scale.job.models import JobExecution, JobType
from scale.job.services import Move, move_executions
from scale.node.models import Node
from scale.queue.metrics import days_to_measure, forget_days, measure_day
from scale.queue.models import DailyError, DailyJobType, MeasuredDay
from scale.queue.tasks import forget_measures, measure_days

DAY = date(2020, 1, 2)
NOON = datetime(2020, 1, 2, 12, tzinfo=UTC)
PERIOD = "started=2020-01-01T00:00:00Z&ended=2020-01-31T00:00:00Z"
YEAR = timedelta(days=366)


def plots(api: APIClient, query: str, name: str = "job-types") -> dict[str, Any]:
    answer = api.get(f"/metrics/{name}/plot-data/?{PERIOD}&page_size=1000&{query}")
    assert answer.status_code == 200, answer.json()
    return {each["column"]["name"]: each for each in answer.json()["results"]}


def values(api: APIClient, column: str, query: str = "", name: str = "job-types") -> list[Any]:
    plot = plots(api, f"column={column}&{query}", name)[column]
    return [tuple(each.values()) for each in plot["values"]]


@pytest.fixture
def timed(
    make_execution: Callable[..., JobExecution],
    make_job_type: Callable[..., JobType],
    make_node: Callable[..., Node],
) -> Callable[[int], JobType]:
    """Make an execution of a new job type that waits 10 s, is placed, and runs for so long.

    2 s pass before its task runs: they are lost between the phases.
    """

    def make(run_s: int) -> JobType:
        job_type = make_job_type()
        execution = make_execution(State.QUEUED, job_type=job_type, at=NOON)

        def at(seconds: int) -> datetime:
            return NOON + timedelta(seconds=seconds)

        launch(execution, make_node(), at=at(10))
        move_executions([Move(execution.pk, Event.START)], at=at(12))
        move_executions([Move(execution.pk, Event.FINISH, exit_code=0)], at=at(12 + run_s))
        return job_type

    return make


def test_a_day_counts_what_ended_then_by_status_and_by_whose_fault(
    make_execution: Callable[..., JobExecution], make_job_type: Callable[..., JobType]
) -> None:
    job_type = make_job_type(max_tries=1)
    bad_data = Error.objects.create(name="bad", category="DATA")
    for state, error in [
        (State.COMPLETED, ""),
        (State.COMPLETED, ""),
        (State.CANCELED, ""),
        (State.FAILED, "algorithm-unknown"),
        (State.FAILED, "node-lost"),
        (State.FAILED, bad_data.name),
        (State.RUNNING, ""),
        (State.QUEUED, ""),
    ]:
        make_execution(state, job_type=job_type, error=error, at=NOON)
    make_execution(State.COMPLETED, job_type=job_type, at=NOON - timedelta(days=1))
    make_execution(State.COMPLETED, job_type=job_type, at=NOON + timedelta(hours=12))
    assert measure_day(DAY) is True
    found = DailyJobType.objects.get()
    assert (found.completed_count, found.failed_count, found.canceled_count) == (2, 3, 1)
    assert found.total_count == 6
    assert found.error_system_count == found.error_data_count == found.error_algorithm_count == 1
    assert set(DailyError.objects.values_list("error__name", "total_count")) == {
        ("algorithm-unknown", 1),
        ("node-lost", 1),
        ("bad", 1),
    }


def test_times_are_in_seconds_and_those_that_were_not_are_null(
    timed: Callable[[int], JobType], api: APIClient
) -> None:
    job_type = timed(30)
    measure_day(DAY)
    found = DailyJobType.objects.get(job_type=job_type)
    assert (found.queue_time_sum, found.queue_time_min, found.queue_time_max) == (10, 10, 10)
    assert (found.job_time_sum, found.run_time_sum, found.stage_time_sum) == (30, 32, 2)
    assert (found.pre_time_count, found.pre_time_sum, found.pre_time_max) == (0, None, None)
    empty = plots(api, "column=pre_time_avg")["pre_time_avg"]
    assert (empty["values"], empty["min_x"], empty["max_y"]) == ([], None, None)


def test_what_never_ran_has_no_times(make_execution: Callable[..., JobExecution]) -> None:
    make_execution(State.CANCELED, at=NOON)
    measure_day(DAY)
    found = DailyJobType.objects.get()
    assert (found.total_count, found.queue_time_count, found.run_time_sum) == (1, 0, None)


def test_several_job_types_become_one_line_unless_they_are_chosen(
    timed: Callable[[int], JobType], api: APIClient
) -> None:
    one, two = timed(30), timed(60)
    measure_day(DAY)
    day = "2020-01-02"
    assert values(api, "total_count") == [(day, 2)]
    assert values(api, "job_time_sum") == [(day, 90)]
    assert values(api, "job_time_min") == [(day, 30)]
    assert values(api, "job_time_max") == [(day, 60)]
    assert values(api, "job_time_avg") == [(day, 45)]
    assert values(api, "job_time_sum", f"choice_id={two.pk}") == [(day, 60)]
    both = f"choice_id={one.pk}&choice_id={two.pk}"
    assert values(api, "job_time_sum", both) == [(one.pk, day, 30), (two.pk, day, 60)]
    plot = plots(api, f"column=job_time_sum&{both}")["job_time_sum"]
    assert (plot["min_x"], plot["max_x"], plot["min_y"], plot["max_y"]) == (day, day, 30, 60)
    assert values(api, "total_count", "choice_id=999999") == []


def test_an_average_weighs_each_execution_the_same(
    timed: Callable[[int], JobType], api: APIClient
) -> None:
    for seconds in (10, 10, 10, 50):
        timed(seconds)
    measure_day(DAY)
    assert values(api, "job_time_avg") == [("2020-01-02", 20)]


def test_errors_are_plotted_by_day(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    for days in (0, 0, 1):
        make_execution(State.FAILED, at=NOON + timedelta(days=days))
    for days in (0, 1):
        measure_day(DAY + timedelta(days=days))
    assert values(api, "total_count", name="errors") == [("2020-01-02", 2), ("2020-01-03", 1)]
    other = Error.objects.get(name="node-lost").pk
    assert values(api, "total_count", f"choice_id={other}", name="errors") == []


def test_columns_are_chosen_by_name_and_by_group(api: APIClient) -> None:
    assert set(plots(api, "group=errors")) == {
        "error_system_count",
        "error_data_count",
        "error_algorithm_count",
    }
    assert len(plots(api, "group=errors&column=total_count")) == 4
    assert len(plots(api, "")) == 31
    page = api.get(f"/metrics/job-types/plot-data/?{PERIOD}&page_size=10&page=4").json()
    assert (page["count"], len(page["results"])) == (31, 1)


def test_the_catalogue_lists_what_can_be_asked_for(
    api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    found = api.get("/metrics/").json()
    assert [each["name"] for each in found["results"]] == ["errors", "job-types"]
    job_type = make_job_type()
    details = api.get("/metrics/job-types/").json()
    assert details | found["results"][1] == details
    assert [each["id"] for each in details["choices"]] == [job_type.pk]
    groups = {each["name"] for each in details["groups"]}
    assert {each["group"] for each in details["columns"]} == groups
    assert details["columns"][0] == {
        "name": "completed_count",
        "title": "Completed Count",
        "description": "Executions that completed.",
        "units": "count",
        "group": "overview",
        "aggregate": "sum",
    }
    for filter_ in details["filters"]:
        assert filter_["param"] in details["choices"][0]
    names = {each["name"] for each in api.get("/metrics/errors/").json()["choices"]}
    assert {"unknown", "timeout"} <= names


@pytest.mark.parametrize("path", ["/metrics/ingests/", "/metrics/ingests/plot-data/"])
def test_other_metrics_do_not_exist(path: str, api: APIClient) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("column=nothing", "column"),
        ("group=nothing", "group"),
        ("choice_id=x", "choice_id"),
        ("started=P3000D", "started"),
        ("started=P1D&ended=P2D", "started"),
        ("name=x", "name"),
    ],
)
def test_a_bad_parameter_is_named(query: str, field: str, api: APIClient) -> None:
    many = "&".join(f"choice_id={n}" for n in range(1, 50)) if field == "started" else ""
    answer = api.get(f"/metrics/job-types/plot-data/?{query}&{many}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_a_page_after_the_last_column_reads_no_values(
    api: APIClient, django_assert_num_queries: Callable[..., Any]
) -> None:
    many = "&".join(f"choice_id={n}" for n in range(1, 50))
    with django_assert_num_queries(0):
        answer = api.get(f"/metrics/job-types/plot-data/?started=P3000D&page=1000&{many}")
    assert (answer.status_code, answer.json()["results"]) == (200, [])


def test_prometheus_is_where_it_was(api: APIClient) -> None:
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")


def test_days_are_caught_up_with_once_they_are_over(
    make_execution: Callable[..., JobExecution],
) -> None:
    make_execution(State.COMPLETED, at=NOON)
    late = datetime(2020, 1, 5, 0, 9, tzinfo=UTC)
    days = [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    assert days_to_measure(now=late, kept_for=YEAR) == days[:2]
    assert days_to_measure(now=late + timedelta(minutes=1), kept_for=YEAR) == days
    assert measure_day(days[1]) is True
    assert days_to_measure(now=late, kept_for=YEAR) == days[:1]
    assert days_to_measure(now=late, kept_for=timedelta(days=2)) == []
    assert days_to_measure(now=NOON, kept_for=YEAR) == []


@pytest.mark.django_db
def test_without_anything_that_ended_there_is_nothing_to_measure() -> None:
    assert days_to_measure(now=NOON, kept_for=YEAR) == []


def test_a_day_is_measured_once(make_execution: Callable[..., JobExecution]) -> None:
    make_execution(State.COMPLETED, at=NOON)
    assert [measure_day(DAY), measure_day(DAY)] == [True, False]
    assert DailyJobType.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_measure_a_day_once(
    make_execution: Callable[..., JobExecution],
) -> None:
    make_execution(State.COMPLETED, at=NOON)
    together = Barrier(2)

    def measure(_: int) -> bool:
        try:
            together.wait()
            return measure_day(DAY)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(measure, range(2))) == [False, True]
    assert DailyJobType.objects.get().total_count == 1


@pytest.mark.django_db(transaction=True)
def test_who_is_killed_half_way_leaves_the_day_to_the_next(
    make_execution: Callable[..., JobExecution], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_execution(State.FAILED, at=NOON)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("scale.queue.metrics._store_errors", die)
        with pytest.raises(KeyboardInterrupt):
            measure_day(DAY)
    assert not MeasuredDay.objects.exists()
    assert not DailyJobType.objects.exists()
    assert measure_day(DAY) is True


def test_measuring_takes_as_many_queries_for_many_job_types_as_for_one(
    make_execution: Callable[..., JobExecution],
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            measure_day(DAY)
        measured = len(seen)
        forget_days(now=NOON + YEAR, kept_for=timedelta(days=1))
        return measured

    make_execution(State.FAILED, at=NOON)
    few = queries()
    for _ in range(5):
        make_execution(State.FAILED, at=NOON)
    assert queries() == few


def test_the_tasks_measure_and_forget(
    make_execution: Callable[..., JobExecution], settings: Settings
) -> None:
    settings.SCALE_METRICS_KEPT_DAYS = 40_000
    make_execution(State.COMPLETED, at=datetime.now(UTC) - timedelta(days=2))
    measure_days()
    measure_days()
    assert MeasuredDay.objects.count() in {1, 2}  # within ten minutes after midnight it is one
    assert DailyJobType.objects.count() == 1
    settings.SCALE_METRICS_KEPT_DAYS = 0
    forget_measures()
    assert not DailyJobType.objects.exists()


def test_a_timeline_counts_what_ended_by_job_type(
    make_execution: Callable[..., JobExecution],
    make_job_type: Callable[..., JobType],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    two, one = make_job_type(name="b", category="y"), make_job_type(name="a", category="x")
    for days, job_type in [(0, one), (0, one), (1, one), (1, two), (2, two)]:
        make_execution(State.COMPLETED, job_type=job_type, at=NOON + timedelta(days=days))
    for days in (0, 1, 2):
        measure_day(DAY + timedelta(days=days))

    def found(query: str) -> dict[str, list[tuple[str, int]]]:
        with django_assert_num_queries(3):
            results = api.get(f"/timeline/job-types/?{query}").json()["results"]
        return {
            each["name"]: [(day["date"], day["count"]) for day in each["results"]]
            for each in results
        }

    first = ("2020-01-02", 2)
    assert found(PERIOD) == {
        "a": [first, ("2020-01-03", 1)],
        "b": [("2020-01-03", 1), ("2020-01-04", 1)],
    }
    assert list(found(PERIOD)) == ["a", "b"]
    assert set(found(f"{PERIOD}&name=b")) == {"b"}
    assert set(found(f"{PERIOD}&id={one.pk}")) == {"a"}
    assert set(found(f"{PERIOD}&category=y")) == {"b"}
    assert set(found(f"{PERIOD}&category=y&category=x")) == {"a", "b"}
    assert found("started=2020-01-02T10:00:00Z&ended=2020-01-02T11:00:00Z&name=a") == {"a": [first]}
    assert found("") == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("query", "field"),
    [("started=P400D", "started"), ("id=x", "id"), ("started=P200D&page_size=1000", "page_size")],
)
def test_a_bad_parameter_of_the_timeline_is_named(query: str, field: str, api: APIClient) -> None:
    answer = api.get(f"/timeline/job-types/?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_queries_do_not_grow(
    timed: Callable[[int], JobType],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    for seconds in (1, 2, 3):
        timed(seconds)
    measure_day(DAY)
    for path, queries in [
        ("/metrics/", 0),
        ("/metrics/job-types/", 1),
        (f"/metrics/job-types/plot-data/?{PERIOD}", 1),
    ]:
        with django_assert_num_queries(queries):
            assert api.get(path).status_code == 200
