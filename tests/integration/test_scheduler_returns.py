"""An agent that is out of reach: how long it is waited for, and what holds when it comes back."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from fake_gateway import Acknowledged, Declined, Killed, Listed, Reconciled
from pytest_django import Settings
from scheduled import THREE_PHASES, Bench, bench, ended_well, history, make_type, newest, submit

from scale.core.cluster import AgentLost, TaskRef, TaskState
from scale.core.errors import GatewayError
from scale.job.models import JobExecution
from scale.job.services import cancel_job
from scale.node.models import Node
from scale.scheduler.waiting import why_execution_waits

pytestmark = pytest.mark.django_db


@pytest.fixture
def scheduler(settings: Settings, db: None) -> Iterator[Bench]:
    settings.SCALE_STAGING_TIMEOUT_S = 300.0
    settings.SCALE_UNREACHABLE_GRACE_S = 60.0
    settings.SCALE_HOLD_TIMEOUT_S = 2000.0
    with bench() as made:
        yield made


def refuse(_call: object) -> None:
    raise GatewayError("connection reset")


def lose(scheduler: Bench, task_id: str) -> None:
    scheduler.tell(task_id, TaskState.UNREACHABLE, uuid=None)
    scheduler.gateway.say(AgentLost("a1"))
    scheduler.round()


def come_back_as(scheduler: Bench, agent: str) -> None:
    """Let the machine of a1 be in the cluster with this agent id, and not with the old one."""
    scheduler.gateway.machines = []
    scheduler.machine(agent, hostname="host-a1")


def asked_on_return(scheduler: Bench, agent: str = "a1") -> list[TaskRef]:
    """Let the agent offer itself again; return what the scheduler asks about."""
    scheduler.offer(agent, cpus=0.01)
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


# --- patience, and its end ------------------------------------------------------------------------


def test_an_unreachable_task_gets_a_grace_period_and_may_come_back(scheduler: Bench) -> None:
    execution = submit(make_type(timeout=500))
    task = scheduler.run_to(execution, "running")
    started = scheduler.now()
    scheduler.elapsed_s += 5
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    execution.refresh_from_db()
    assert (execution.state, execution.unreachable_since) == ("running", scheduler.now())
    assert execution.deadline == scheduler.now() + timedelta(seconds=60)
    scheduler.round(after_s=30)
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    execution.refresh_from_db()
    assert execution.deadline == started + timedelta(seconds=65), "asking again gives no more time"
    scheduler.round(after_s=29)
    scheduler.tell(task.task_id, TaskState.RUNNING, uuid=None)
    execution.refresh_from_db()
    assert execution.unreachable_since is None
    assert execution.deadline == started + timedelta(seconds=500), "its time-out holds again"
    scheduler.tell(task.task_id, TaskState.FINISHED)
    assert newest(execution.job).state == "completed"


def test_a_task_that_stays_unreachable_is_tried_elsewhere_and_killed_when_it_comes_back(
    scheduler: Bench,
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    scheduler.round(after_s=60)
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", "node-lost")
    again = newest(execution.job)
    other = scheduler.launch(again, "a2")
    assert other.agent_id == "a2"
    scheduler.tell(task.task_id, TaskState.RUNNING)
    assert scheduler.killed() == [task.task_id]
    scheduler.tell(task.task_id, TaskState.FINISHED)
    again.refresh_from_db()
    assert again.state == "starting"


def test_a_task_that_was_sent_and_comes_back_before_it_starts_keeps_a_deadline(
    scheduler: Bench,
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "starting")
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    scheduler.tell(task.task_id, TaskState.STAGING, uuid=None)
    execution.refresh_from_db()
    assert execution.deadline == scheduler.now() + timedelta(seconds=300)


def test_a_canceled_task_on_a_lost_node_ends_canceled_after_the_grace(scheduler: Bench) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    cancel_job(execution.job_id, at=scheduler.now())
    scheduler.round(after_s=60, hint=True)
    scheduler.killed()
    execution.refresh_from_db()
    assert (execution.state, execution.error) == ("canceled", None)


def test_a_task_that_is_killed_for_time_on_a_node_that_is_lost_fails_for_time(
    scheduler: Bench,
) -> None:
    execution = submit(make_type(timeout=10))
    task = scheduler.run_to(execution, "running")
    scheduler.round(after_s=10)
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    scheduler.round(after_s=60)
    assert set(scheduler.killed()) == {task.task_id}
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", "timeout")


def test_a_task_that_is_being_killed_and_comes_back_into_reach_does_not_spin(
    scheduler: Bench,
) -> None:
    execution = submit(make_type(timeout=10))
    task = scheduler.run_to(execution, "running")
    scheduler.round(after_s=10)
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    scheduler.tell(task.task_id, TaskState.RUNNING, uuid=None)
    scheduler.killed()
    assert scheduler.round(after_s=1) > 1
    scheduler.tell(task.task_id, TaskState.KILLED)
    assert newest(execution.job).error.name == "timeout"


# --- a machine that comes back with a new agent id ------------------------------------------------


def test_a_launch_that_never_reached_a_machine_with_a_new_agent_costs_no_attempt(
    scheduler: Bench,
) -> None:
    execution = submit()
    old = scheduler.run_to(execution, "starting")
    lose(scheduler, old.task_id)
    come_back_as(scheduler, "b1")
    assert asked_on_return(scheduler, "b1") == [TaskRef(old.task_id, "a1")]
    scheduler.tell(old.task_id, TaskState.UNKNOWN, uuid=None, reason="REASON_RECONCILIATION")
    execution.refresh_from_db()
    assert (execution.state, execution.exe_num, execution.deadline) == ("queued", 1, None)
    again = scheduler.run_to(execution, "running", "b1")
    assert again.task_id == f"{execution.uuid}.job.2"
    assert execution.node.slave_id == "b1"
    scheduler.tell(old.task_id, TaskState.RUNNING)
    assert scheduler.gateway.take(Killed)[0].task == TaskRef(old.task_id, "a1")
    scheduler.tell(old.task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    assert execution.state == "running", "the old task says nothing about the new one"
    scheduler.tell(again.task_id, TaskState.FINISHED, agent="b1")
    assert history(execution) == ["create", "launch", "bounce", "launch", "start", "finish"]


@pytest.mark.parametrize("agent", ["a1", "b1"])
@pytest.mark.parametrize("state", ["starting", "running"])
def test_what_the_cluster_still_calls_out_of_reach_fails_after_the_grace_and_is_tried_again(
    scheduler: Bench, state: str, agent: str
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, state)
    lose(scheduler, task.task_id)
    come_back_as(scheduler, agent)
    assert asked_on_return(scheduler, agent) == [TaskRef(task.task_id, "a1")]
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None, reason="REASON_RECONCILIATION")
    scheduler.round(after_s=60)
    scheduler.declined()
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", "node-lost")
    assert newest(execution.job).exe_num == 2


@pytest.mark.parametrize("told", [TaskState.UNKNOWN, TaskState.GONE])
def test_what_was_seen_to_run_on_a_machine_with_a_new_agent_is_lost_at_once(
    scheduler: Bench, told: TaskState
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    lose(scheduler, task.task_id)
    come_back_as(scheduler, "b1")
    assert asked_on_return(scheduler, "b1") == [TaskRef(task.task_id, "a1")]
    scheduler.tell(task.task_id, told, uuid=None, reason="REASON_RECONCILIATION")
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", "node-lost")


def holding(scheduler: Bench) -> JobExecution:
    execution = submit(make_type(THREE_PHASES))
    task = scheduler.run_to(execution, "running")
    scheduler.tell(task.task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    assert execution.state == "holding"
    return execution


def test_what_holds_on_a_machine_with_a_new_agent_does_not_wait_for_the_old_one(
    scheduler: Bench,
) -> None:
    execution = holding(scheduler)
    scheduler.restart()  # nobody hears how the old agent leaves
    come_back_as(scheduler, "b1")
    scheduler.subscribe()
    scheduler.round(after_s=59)
    execution.refresh_from_db()
    wait = why_execution_waits(execution, now=scheduler.now())
    assert wait is not None
    assert wait.reason.message == "its node, host-a1, is not there now", "not that it has room"
    scheduler.round(after_s=1)
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", "node-lost")


def test_what_holds_on_one_of_two_agents_with_one_hostname_waits_on(scheduler: Bench) -> None:
    scheduler.machine("a1", hostname="twin")
    scheduler.machine("a2", hostname="twin")
    scheduler.offer("a2", cpus=0.01)
    execution = holding(scheduler)
    scheduler.restart()
    scheduler.subscribe()
    scheduler.round(after_s=60)
    execution.refresh_from_db()
    assert (execution.state, execution.unreachable_since) == ("holding", None)
    scheduler.gateway.take(Listed)
    scheduler.gateway.take(Declined)


def test_an_agent_that_comes_back_with_nothing_free_is_known_by_its_tasks(
    scheduler: Bench,
) -> None:
    task = scheduler.run_to(submit(), "running")
    execution = holding(scheduler)
    lose(scheduler, task.task_id)
    scheduler.gateway.before[Listed] = refuse
    scheduler.tell(task.task_id, TaskState.RUNNING, uuid=None, reason="REASON_AGENT_REREGISTERED")
    scheduler.gateway.before.clear()
    scheduler.round(after_s=1)
    assert len(scheduler.gateway.take(Listed)) == 2, "asked again after a call that failed"
    assert Node.objects.get().is_online
    scheduler.round(after_s=60)
    execution.refresh_from_db()
    assert (execution.state, execution.unreachable_since) == ("holding", None)
    assert scheduler.gateway.take(Listed) == []


def test_what_ended_before_its_agent_left_holds_for_the_grace_only(scheduler: Bench) -> None:
    execution = submit(make_type(THREE_PHASES))
    task = scheduler.run_to(execution, "running")
    scheduler.gateway.say(*ended_well([task.task_id]), AgentLost("a1"))
    scheduler.round()
    scheduler.gateway.take(Acknowledged)
    execution.refresh_from_db()
    assert (execution.state, execution.unreachable_since) == ("holding", scheduler.now())
    scheduler.round(after_s=60)
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", "node-lost")
