"""Why something waits is answered with a code, a sentence and a time; what the codes mean is tested
with the scheduler that gives them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import JobExecution, JobType
from scale.scheduler.models import SchedulerState, WaitingShape

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)
LATER = LONG_AGO + timedelta(hours=1)


@pytest.fixture
def leading(db: None) -> None:
    SchedulerState.objects.update(heartbeat=timezone.now(), is_connected=True)


def explained(execution: JobExecution, *, code: str = "NO_NODES", disk: int = 0) -> None:
    """Store a reason, as the leader does; `disk` is how much more disk than the execution needs."""
    WaitingShape.objects.create(
        job_type_id=execution.job_type_id,
        needs_millicpus=execution.needs_millicpus,
        needs_mem_mib=execution.needs_mem_mib,
        needs_disk_mib=execution.needs_disk_mib + disk,
        code=code,
        message=f"{code}, {disk} more",
        since=LATER,
    )


def reason(api: APIClient, execution: JobExecution) -> Any:
    found = api.get(f"/job-executions/{execution.pk}/").json()["waiting_reason"]
    if execution.state == State.QUEUED:
        (by_type,) = api.get("/queue/status/").json()["queue_status"]
        assert by_type["waiting_reason"] == found
    return found


def test_what_the_leader_stored_is_shown(
    leading: None, make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    queued = make_execution(State.QUEUED, at=LONG_AGO)
    explained(queued, disk=1, code="INSUFFICIENT_DISK")
    assert api.get(f"/job-executions/{queued.pk}/").json()["waiting_reason"] == {
        "code": "WAITING_FOR_OFFERS",
        "message": "nothing is known to be in its way; the scheduler looks at it next",
        "since": "2020-01-01T12:00:00.000Z",
    }
    explained(queued)
    assert reason(api, queued) == {
        "code": "NO_NODES",
        "message": "NO_NODES, 0 more",
        "since": "2020-01-01T13:00:00.000Z",
    }


def test_what_was_queued_later_waits_since_then(
    leading: None, make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    queued = make_execution(State.QUEUED, at=LATER + timedelta(hours=1))
    explained(queued)
    assert reason(api, queued)["since"] == "2020-01-01T14:00:00.000Z"


def test_without_a_leader_nothing_is_launched(
    make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    queued = make_execution(State.QUEUED, at=LONG_AGO)
    explained(queued)
    SchedulerState.objects.update(heartbeat=LATER, is_connected=True)
    assert reason(api, queued) == {
        "code": "NO_SCHEDULER",
        "message": "no scheduler has been at work since 2020-01-01T13:00:00Z; nothing is launched",
        "since": "2020-01-01T13:00:00.000Z",
    }
    SchedulerState.objects.all().delete()
    assert reason(api, queued)["message"] == (
        "no scheduler has been at work yet; nothing is launched"
    )


def test_a_next_phase_waits_for_its_node(
    leading: None, make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    held = make_execution(State.HOLDING, at=LONG_AGO)
    found = reason(api, held)
    assert found["code"] == "WAITING_FOR_ITS_NODE"
    assert found["since"] == "2020-01-01T12:00:00.000Z"


@pytest.mark.parametrize("state", [State.RUNNING, State.COMPLETED, State.CANCELED])
def test_what_does_not_wait_has_no_reason_and_costs_no_query(
    state: State,
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    execution = make_execution(state)
    with django_assert_num_queries(2):  # those of the details
        assert reason(api, execution) is None


def test_lists_are_filtered_by_what_is_waited_for(
    leading: None,
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    first, second, third = (make_execution(State.QUEUED) for _ in range(3))
    held = make_execution(State.HOLDING)
    make_execution(State.RUNNING, job_type=first.job.job_type)
    explained(first)
    explained(second, code="NODE_PAUSED")
    explained(third, code="INSUFFICIENT_CPUS")
    explained(third, disk=1)

    def found(query: str) -> list[int]:
        with django_assert_max_num_queries(5):
            answer = api.get(f"/job-executions/?order=id&{query}").json()
        assert answer["count"] == len(answer["results"])
        return [each["id"] for each in answer["results"]]

    assert found("waiting_reason=NO_NODES") == [first.pk]
    assert found("waiting_reason=NO_NODES&waiting_reason=NODE_PAUSED") == [first.pk, second.pk]
    assert found("waiting_reason=WAITING_FOR_ITS_NODE") == [held.pk]
    assert found(f"waiting_reason=NO_NODES&job_type_id={first.job_type_id}") == [first.pk]
    both = "waiting_reason=NO_NODES&waiting_reason=WAITING_FOR_ITS_NODE"
    assert found(both) == [first.pk, held.pk]
    assert found(f"{both}&status=RUNNING") == [held.pk]
    assert found("waiting_reason=NODE_PAUSED&status=RUNNING") == []
    own = f"/jobs/{first.job_id}/executions/"
    assert api.get(f"{own}?waiting_reason=NO_NODES").json()["count"] == 1
    assert api.get(f"{own}?waiting_reason=NODE_PAUSED").json()["count"] == 0
    for path in ("/job-executions/", own):
        answer = api.get(f"{path}?waiting_reason=TIRED")
        assert (answer.status_code, answer.json()["field"]) == (400, "waiting_reason")
    SchedulerState.objects.update(heartbeat=LONG_AGO)
    found_now = api.get("/job-executions/?order=id&waiting_reason=NO_SCHEDULER").json()["results"]
    assert [each["id"] for each in found_now] == [first.pk, second.pk, third.pk, held.pk]


def test_a_filter_that_nothing_fits_answers_an_empty_list(
    leading: None, make_execution: Callable[..., JobExecution], api: APIClient
) -> None:
    make_execution(State.QUEUED)
    for walk in ("", "&cursor=", "&cursor=&order=-id"):
        answer = api.get(f"/job-executions/?waiting_reason=NO_NODES{walk}")
        assert answer.json() == {"count": 0, "next": None, "previous": None, "results": []}


def test_reasons_cost_as_many_queries_however_much_waits(
    leading: None,
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    for count in (1, 5):
        for _ in range(count):
            queued = make_execution(State.QUEUED, job_type=make_job_type())
            explained(queued)
        with django_assert_num_queries(5):
            found = api.get("/queue/status/").json()["queue_status"]
        assert {each["waiting_reason"]["code"] for each in found} == {"NO_NODES"}
        with django_assert_num_queries(4):
            api.get(f"/job-executions/{queued.pk}/")
    held = make_execution(State.HOLDING)
    with django_assert_num_queries(4):
        api.get(f"/job-executions/{held.pk}/")
