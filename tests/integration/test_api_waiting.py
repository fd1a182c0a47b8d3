"""Why something waits is said with a code, numbers and a time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import JobExecution, JobType
from scale.node.models import Node
from scale.scheduler.models import SchedulerState

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def job_type(make_job_type: Callable[..., JobType]) -> JobType:
    return make_job_type(cpus_required=2, mem_required=4000, disk_out_const_required=10)


@pytest.fixture
def queued(job_type: JobType, make_execution: Callable[..., JobExecution]) -> JobExecution:
    return make_execution(State.QUEUED, job_type=job_type, at=LONG_AGO)


def reason(api: APIClient, execution: JobExecution) -> Any:
    found = api.get(f"/job-executions/{execution.pk}/").json()["waiting_reason"]
    if execution.state == State.QUEUED:
        (by_type,) = api.get("/queue/status/").json()["queue_status"]
        assert by_type["waiting_reason"] == found
    return found


def test_without_nodes_everything_waits_for_one(queued: JobExecution, api: APIClient) -> None:
    assert reason(api, queued) == {
        "code": "NO_NODES",
        "message": "the cluster has no nodes",
        "since": "2020-01-01T12:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("node", "code", "words"),
    [
        ({"mem_mib_total": 3999}, "NO_NODE_LARGE_ENOUGH", "the largest node has 3999"),
        ({"is_online": False}, "NO_NODES", "no nodes"),
        ({"is_paused": True}, "NODE_PAUSED", "paused"),
        ({"is_paused_errors": True}, "NODE_PAUSED", "paused"),
        ({"millicpus_total": None}, "NO_NODE_LARGE_ENOUGH", "asks 2 cpus"),
    ],
)
def test_nodes_that_will_not_do(
    node: dict[str, Any],
    code: str,
    words: str,
    queued: JobExecution,
    make_node: Callable[..., Node],
    api: APIClient,
) -> None:
    make_node(**node)
    found = reason(api, queued)
    assert found["code"] == code
    assert words in found["message"]


@pytest.mark.parametrize(
    ("taken", "code", "words"),
    [
        ({"mem_required": 15_000}, "INSUFFICIENT_MEM", "has 1000 free of 16000"),
        ({"cpus_required": 6.5}, "INSUFFICIENT_CPUS", "has 1.5 free of 8"),
        ({"disk_out_const_required": 99_995}, "INSUFFICIENT_DISK", "has 5 free of 100000"),
    ],
)
def test_nodes_that_are_full_are_named_with_numbers(
    taken: dict[str, Any],
    code: str,
    words: str,
    queued: JobExecution,
    make_node: Callable[..., Node],
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
) -> None:
    node = make_node()
    make_execution(State.RUNNING, node=node, job_type=make_job_type(**taken))
    found = reason(api, queued)
    assert found["code"] == code
    assert f"the roomiest node, {node.hostname}, {words}" in found["message"]


def test_what_fits_has_nothing_in_its_way(
    queued: JobExecution, make_node: Callable[..., Node], api: APIClient
) -> None:
    make_node()
    assert reason(api, queued) is None


def test_pauses_and_limits_come_before_the_nodes(
    queued: JobExecution,
    job_type: JobType,
    make_execution: Callable[..., JobExecution],
    api: APIClient,
) -> None:
    make_execution(State.RUNNING, job_type=job_type)
    JobType.objects.update(max_scheduled=1)
    assert reason(api, queued)["code"] == "MAX_SCHEDULED_REACHED"
    JobType.objects.update(launch_failures=4, launch_after=timezone.now() + timedelta(seconds=100))
    assert reason(api, queued)["code"] == "RETRY_BACK_OFF"
    paused = timezone.now()
    JobType.objects.update(is_paused=True, paused=paused)
    found = reason(api, queued)
    assert found["code"] == "JOB_TYPE_PAUSED"
    assert found["since"][:19] == paused.isoformat()[:19]
    SchedulerState.objects.update(is_paused=True)
    assert reason(api, queued)["code"] == "SCHEDULER_PAUSED"


def test_a_next_phase_waits_for_its_node(
    make_node: Callable[..., Node], make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    node = make_node(mem_mib_total=100)
    held = make_execution(State.HOLDING, node=node)
    found = reason(api, held)
    assert found["code"] == "WAITING_FOR_ITS_NODE"
    assert found["message"] == "its node has nothing free now"
    make_execution(State.RUNNING, node=node)
    make_execution(State.RUNNING, node=node)
    assert f"its node, {node.hostname}, has" in reason(api, held)["message"]


@pytest.mark.parametrize("state", [State.RUNNING, State.COMPLETED, State.CANCELED])
def test_what_does_not_wait_has_no_reason_and_costs_no_query(
    state: State,
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    execution = make_execution(state)
    with django_assert_num_queries(1):
        assert reason(api, execution) is None


def test_reasons_cost_as_many_queries_however_much_waits(
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Node],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    for _ in range(3):
        make_node()
        job_type = make_job_type(max_scheduled=1)
        execution = make_execution(State.QUEUED, job_type=job_type)
        make_execution(State.QUEUED, job_type=job_type)
    with django_assert_num_queries(7):
        assert len(api.get("/queue/status/").json()["queue_status"]) == 3
    with django_assert_num_queries(5):
        api.get(f"/job-executions/{execution.pk}/")
