"""An agent that was out of reach comes back, without some of what was sent to it."""

from collections.abc import Iterator

import pytest
from fake_gateway import Declined, Listed, Reconciled
from scheduled import Bench, bench, history, newest, submit

from scale.core.cluster import AgentLost, TaskRef, TaskState

pytestmark = pytest.mark.django_db


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        yield made


def lose(scheduler: Bench, task_id: str) -> None:
    scheduler.tell(task_id, TaskState.UNREACHABLE, uuid=None)
    scheduler.gateway.say(AgentLost("a1"))
    scheduler.round()


def asked_on_return(scheduler: Bench) -> list[TaskRef]:
    """Let the agent offer itself again; return what the scheduler asks about."""
    scheduler.offer(cpus=0.01)
    scheduler.round()
    scheduler.gateway.take(Listed)
    scheduler.gateway.take(Declined)
    return [task for call in scheduler.gateway.take(Reconciled) for task in call.tasks]


def test_a_launch_that_never_reached_an_agent_that_is_back_costs_no_attempt(
    scheduler: Bench,
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "starting")
    lose(scheduler, task.task_id)
    assert asked_on_return(scheduler) == [TaskRef(task.task_id, "a1")]
    scheduler.tell(task.task_id, TaskState.GONE, uuid=None, reason="REASON_RECONCILIATION")
    again = newest(execution.job)
    assert (again.pk, again.state, again.unreachable_since) == (execution.pk, "queued", None)
    assert history(execution)[-1] == "bounce"


def test_what_the_agent_brought_back_is_not_asked_about(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    lose(scheduler, task.task_id)
    scheduler.tell(task.task_id, TaskState.RUNNING, uuid=None)
    assert asked_on_return(scheduler) == []


def test_a_task_that_runs_on_an_agent_that_is_back_is_asked_about_once(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    lose(scheduler, task.task_id)
    assert asked_on_return(scheduler) == [TaskRef(task.task_id, "a1")]
    scheduler.tell(task.task_id, TaskState.RUNNING, uuid=None)
    scheduler.round(after_s=30)
    scheduler.gateway.take(Declined)
    assert scheduler.gateway.take(Reconciled) == []
