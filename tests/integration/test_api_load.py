"""/load/: samples of how many jobs waited and ran, and who may ask for which of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import JobExecution, JobType
from scale.queue.load import sample_load, thin_out_load
from scale.queue.models import JobTypeLoad, LoadSample
from scale.queue.tasks import measure_load

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
ALL_OF_IT = "started=2020-01-01T00:00:00Z&ended=2020-01-02T00:00:00Z"


def sample(at: datetime) -> bool:
    return sample_load(now=at, period_s=60)


def found(api: APIClient, query: str = ALL_OF_IT) -> list[dict[str, Any]]:
    answer = api.get(f"/load/?{query}")
    assert answer.status_code == 200, answer.json()
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def counts(api: APIClient, query: str) -> list[tuple[int, int, int]]:
    return [
        (row["pending_count"], row["queued_count"], row["running_count"])
        for row in found(api, f"{ALL_OF_IT}&{query}")
    ]


@pytest.fixture
def two_types(
    make_job_type: Callable[..., JobType], make_execution: Callable[..., JobExecution]
) -> tuple[JobType, JobType]:
    """A sample of nothing, then one of two job types with jobs; what has ended does not count."""
    sample(NOON)
    one = make_job_type(name="one", category="a", priority=1)
    two = make_job_type(name="two", category="b", priority=2)
    for state in (State.QUEUED, State.QUEUED, State.RUNNING, State.FAILED, State.COMPLETED):
        make_execution(state, job_type=one)
    make_execution(State.HOLDING, job_type=two, job=None)
    for _ in range(3):
        make_execution(State.QUEUED, job_type=two)
    sample(NOON + timedelta(minutes=1))
    return one, two


def test_the_load_is_summed_by_time_the_oldest_first(
    api: APIClient, two_types: tuple[JobType, JobType]
) -> None:
    assert found(api) == [
        {
            "time": "2020-01-01T12:00:00.000Z",
            "pending_count": 0,
            "queued_count": 0,
            "running_count": 0,
        },
        {
            "time": "2020-01-01T12:01:00.000Z",
            "pending_count": 0,
            "queued_count": 5,
            "running_count": 2,
        },
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("job_type_name=one", (0, 2, 1)),
        ("job_type_category=b", (0, 3, 1)),
        ("job_type_priority=1", (0, 2, 1)),
        ("job_type_name=one&job_type_name=two", (0, 5, 2)),
        ("job_type_name=one&job_type_priority=2", (0, 0, 0)),
        ("job_type_name=nobody", (0, 0, 0)),
    ],
)
def test_a_filter_restricts_and_times_without_work_are_zeros(
    query: str, expected: tuple[int, int, int], api: APIClient, two_types: tuple[JobType, JobType]
) -> None:
    assert counts(api, query) == [(0, 0, 0), expected]


def test_job_types_are_chosen_by_their_ids(
    api: APIClient, two_types: tuple[JobType, JobType]
) -> None:
    one, two = two_types
    assert counts(api, f"job_type_id={one.pk}")[1] == (0, 2, 1)
    assert counts(api, f"job_type_id={one.pk}&job_type_id={two.pk}")[1] == (0, 5, 2)


def test_pages_and_periods(api: APIClient, two_types: tuple[JobType, JobType]) -> None:
    page = api.get(f"/load/?{ALL_OF_IT}&page_size=1&page=2").json()
    assert (page["count"], page["next"]) == (2, None)
    assert [row["time"] for row in page["results"]] == ["2020-01-01T12:01:00.000Z"]
    assert len(found(api, "started=2020-01-01T12:01:00Z&ended=2020-01-02T00:00:00Z")) == 1
    assert len(found(api, "started=2020-01-01T00:00:00Z&ended=2020-01-01T12:00:00Z")) == 1


def test_a_week_is_the_default_and_31_days_are_the_most(api: APIClient) -> None:
    now = timezone.now()
    for days in (6, 8, 30):
        sample(now - timedelta(days=days))
    assert len(found(api, "")) == 1
    assert len(found(api, "started=P30DT12H")) == 3
    assert api.get("/load/?started=P31D").status_code == 200
    refused = api.get("/load/?started=P32D")
    assert (refused.status_code, refused.json()["field"]) == (400, "started")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("job_type_id=x", "job_type_id"),
        ("job_type_priority=high", "job_type_priority"),
        ("order=time", "order"),
        ("started=2020-01-01T00:00:00", "started"),
        ("started=", "started"),
    ],
)
def test_a_bad_parameter_is_named(query: str, field: str, api: APIClient) -> None:
    answer = api.get(f"/load/?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_queries_do_not_grow(
    api: APIClient,
    two_types: tuple[JobType, JobType],
    django_assert_num_queries: Callable[..., Any],
) -> None:
    for minutes in range(2, 6):
        sample(NOON + timedelta(minutes=minutes))
    with django_assert_num_queries(3):
        assert len(found(api)) == 6
    with django_assert_num_queries(3):
        assert len(counts(api, "job_type_name=one")) == 6


@pytest.mark.django_db
def test_a_period_has_one_sample_however_often_it_is_taken() -> None:
    assert sample(NOON) is True
    assert sample(NOON + timedelta(seconds=59)) is False
    assert sample(NOON + timedelta(seconds=60)) is True
    assert LoadSample.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_take_one_sample(make_execution: Callable[..., JobExecution]) -> None:
    make_execution(State.QUEUED)
    together = Barrier(2)

    def take(_: int) -> bool:
        try:
            together.wait()
            return sample(NOON)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(take, range(2))) == [False, True]
    assert LoadSample.objects.get().queued_count == 1
    assert JobTypeLoad.objects.get().queued_count == 1


@pytest.mark.django_db
def test_the_task_samples_by_the_period_of_the_settings() -> None:
    with override_settings(SCALE_LOAD_PERIOD_S=3600):
        measure_load()
        measure_load()
    assert LoadSample.objects.get().measured.minute == 0


def test_old_samples_are_thinned_out_and_very_old_ones_dropped(
    make_execution: Callable[..., JobExecution],
) -> None:
    make_execution(State.QUEUED)
    now = NOON + timedelta(days=400)
    for age in (timedelta(days=399), timedelta(days=9), timedelta(hours=1)):
        for minutes in (3, 4, 5):
            sample(now - age + timedelta(minutes=minutes))
    assert thin_out_load(now=now, kept_for=timedelta(days=100)) == 5
    kept = list(LoadSample.objects.order_by("measured").values_list("measured", flat=True))
    assert [at.minute for at in kept] == [3, 3, 4, 5]
    assert kept[0] == now - timedelta(days=9) + timedelta(minutes=3)
    assert JobTypeLoad.objects.count() == 4
    assert thin_out_load(now=now, kept_for=timedelta(days=100)) == 0
