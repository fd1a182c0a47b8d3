"""What runs out of time, is canceled, or lost its node."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from fake_gateway import Acknowledged, Listed, Reconciled
from pytest_django import Settings
from scheduled import (
    NOON,
    THREE_PHASES,
    Bench,
    bench,
    history,
    make_type,
    newest,
    statements,
    submit,
    submit_many,
)

from scale.core.cluster import (
    AgentLost,
    Disconnected,
    Subscribed,
    TaskState,
    TaskUpdate,
    UpdateReceived,
)
from scale.core.errors import NotAllowedNow
from scale.error.models import Error
from scale.job.models import Job, JobExecution, JobType
from scale.job.services import cancel_job, requeue_job
from scale.node.models import Node

pytestmark = pytest.mark.django_db
ENDS = [TaskState.KILLED, TaskState.FAILED, TaskState.FINISHED, TaskState.GONE]


@pytest.fixture
def scheduler(settings: Settings, db: None) -> Iterator[Bench]:
    settings.SCALE_STAGING_TIMEOUT_S = 300.0
    settings.SCALE_STEPS_TIMEOUT_S = 1000.0
    settings.SCALE_HOLD_TIMEOUT_S = 2000.0
    settings.SCALE_UNREACHABLE_GRACE_S = 60.0
    with bench() as made:
        yield made


def to_phase(scheduler: Bench, execution: JobExecution, phase: str, state: str) -> str:
    """Bring a waiting execution of three phases to a state in a phase; return its last task."""
    phases = ["pre", "job", "post"]
    for _each in phases[: phases.index(phase)]:
        task = scheduler.launch(execution)
        scheduler.tell(task.task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    if state == "holding":
        assert (execution.state, execution.phase) == ("holding", phase)
        return task.task_id
    return scheduler.run_to(execution, state).task_id


def three(**fields: object) -> JobExecution:
    return submit(make_type(THREE_PHASES, **fields))


# --- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "state", "limit_s", "error", "again"),
    [
        ("pre", "starting", 300, "launch-timeout", True),
        ("job", "starting", 300, "launch-timeout", True),
        ("pre", "running", 1000, "pre-timeout", True),
        ("job", "running", 77, "timeout", False),
        ("post", "running", 1000, "post-timeout", True),
    ],
)
def test_each_deadline_kills_the_task_and_has_its_own_error_and_retry(
    scheduler: Bench, phase: str, state: str, limit_s: float, error: str, again: bool
) -> None:
    execution = three(timeout=77)
    task_id = to_phase(scheduler, execution, phase, state)
    execution.refresh_from_db()
    assert execution.deadline == scheduler.now() + timedelta(seconds=limit_s)
    scheduler.round(after_s=limit_s - 0.1)
    assert scheduler.killed() == []
    scheduler.round(after_s=0.1)
    scheduler.gateway.take(Reconciled)
    assert scheduler.killed() == [task_id]
    execution.refresh_from_db()
    assert execution.state == state, "it ends when its task is gone, not before"
    scheduler.tell(task_id, TaskState.KILLED, message="Command terminated with signal Terminated")
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", error)
    assert execution.cleanup_owed
    job = execution.job
    assert (job.status, job.num_exes) == (("QUEUED", 2) if again else ("FAILED", 1))
    assert newest(job).state == ("queued" if again else "failed")


def test_a_type_without_a_timeout_runs_for_ever(scheduler: Bench) -> None:
    execution = submit(make_type(timeout=0))
    scheduler.run_to(execution, "running")
    scheduler.round(after_s=10_000_000)
    scheduler.gateway.take(Reconciled)
    assert scheduler.killed() == []


def test_what_holds_for_too_long_starves_and_tries_again(scheduler: Bench) -> None:
    execution = three()
    to_phase(scheduler, execution, "job", "holding")
    assert execution.deadline == scheduler.now() + timedelta(seconds=2000)
    scheduler.round(after_s=2000)
    scheduler.gateway.take(Reconciled)
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", "resource-starvation")
    assert execution.cleanup_owed
    assert newest(execution.job).exe_num == 2
    assert scheduler.killed() == []


def test_a_phase_that_ends_well_while_it_is_killed_for_time_goes_on(scheduler: Bench) -> None:
    execution = three(timeout=50)
    task_id = to_phase(scheduler, execution, "job", "running")
    scheduler.round(after_s=50)
    assert scheduler.killed() == [task_id]
    scheduler.tell(task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    assert (execution.state, execution.phase) == ("holding", "post")
    assert execution.deadline == scheduler.now() + timedelta(seconds=2000)
    last = scheduler.run_to(execution, "running")
    scheduler.round(after_s=20)
    assert scheduler.killed() == [], "the time-out of the phase before is over and done"
    scheduler.tell(last.task_id, TaskState.FINISHED)
    assert newest(execution.job).state == "completed"


def test_the_last_of_its_tries_fails_the_job(scheduler: Bench) -> None:
    execution = submit(make_type(max_tries=2))
    for attempt in (1, 2):
        current = newest(execution.job)
        assert current.exe_num == attempt
        task = scheduler.run_to(current, "running")
        scheduler.tell(task.task_id, TaskState.LOST, reason="REASON_AGENT_REMOVED")
    job = Job.objects.get(pk=execution.job_id)
    assert (job.status, job.error.name, job.num_exes) == ("FAILED", "node-lost", 2)
    assert job.ended == scheduler.now()


# --- kills ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_step_of_the_clock_does_not_change_how_long_a_task_may_run(
    scheduler: Bench, step_s: float
) -> None:
    execution = submit(make_type(timeout=60))
    scheduler.run_to(execution, "running")
    scheduler.round(after_s=30)
    scheduler.clock_step_s = step_s
    assert scheduler.round() <= 30
    assert scheduler.killed() == []
    scheduler.round(after_s=29)
    assert scheduler.killed() == []
    scheduler.round(after_s=1)
    assert len(scheduler.killed()) == 1


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_step_of_the_clock_does_not_change_it_for_a_task_that_is_out_of_reach_for_a_while(
    scheduler: Bench, step_s: float
) -> None:
    execution = submit(make_type(timeout=60))
    task = scheduler.run_to(execution, "running")
    scheduler.round(after_s=20)
    scheduler.clock_step_s = step_s
    scheduler.round()
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    scheduler.elapsed_s += 10
    scheduler.tell(task.task_id, TaskState.RUNNING, uuid=None)
    scheduler.round(after_s=29)
    assert scheduler.killed() == []
    scheduler.round(after_s=1)
    assert scheduler.killed() == [task.task_id]
    scheduler.elapsed_s += 2
    scheduler.tell(task.task_id, TaskState.KILLED, message="Command terminated with signal Killed")
    execution.refresh_from_db()
    assert execution.error.name == "timeout"
    assert (execution.job_completed - execution.job_started).total_seconds() == 62


def test_tasks_out_of_reach_do_not_hold_up_the_kills_of_others(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scale.scheduler.stops._ROUND_LIMIT", 1)
    away = submit()
    gone = scheduler.run_to(away, "running")
    here = submit()
    task = scheduler.run_to(here, "running", "a2")
    scheduler.tell(gone.task_id, TaskState.UNREACHABLE, uuid=None)
    for execution in (away, here):
        cancel_job(execution.job_id, at=scheduler.now())
    scheduler.round(hint=True)
    assert scheduler.killed() == [task.task_id]
    scheduler.tell(task.task_id, TaskState.KILLED, agent="a2")
    scheduler.tell(gone.task_id, TaskState.RUNNING, uuid=None)
    assert scheduler.killed() == [gone.task_id], "it is back"


def test_a_kill_is_repeated_until_the_task_is_gone(scheduler: Bench) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    cancel_job(execution.job_id, at=scheduler.now())
    scheduler.round(hint=True)
    assert scheduler.killed() == [task.task_id]
    pause_s = scheduler.round(after_s=9.9)
    assert scheduler.killed() == []
    assert pause_s == pytest.approx(0.1)
    for _ in range(3):
        scheduler.round(after_s=10)
        assert scheduler.killed() == [task.task_id]
    scheduler.tell(task.task_id, TaskState.KILLED)
    scheduler.round(after_s=30)
    assert scheduler.killed() == []


def test_kills_are_not_lost_while_the_master_is_away(scheduler: Bench) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    cancel_job(execution.job_id, at=scheduler.now())
    scheduler.round(hint=True)
    assert scheduler.killed() == [task.task_id]
    scheduler.gateway.say(Disconnected())
    pauses = [scheduler.round(), scheduler.round(after_s=20), scheduler.round(after_s=20)]
    assert scheduler.killed() == []
    assert min(pauses) > 0, "nothing can be done, so it must not spin"
    scheduler.gateway.say(Subscribed("framework-1", "master:5050"))
    scheduler.round()
    assert scheduler.killed() == [task.task_id]
    scheduler.gateway.take(Listed)
    scheduler.gateway.take(Reconciled)


@pytest.mark.parametrize("state", ["starting", "running"])
@pytest.mark.parametrize("end", ENDS)
def test_a_canceled_job_ends_canceled_whatever_its_task_says_at_the_end(
    scheduler: Bench, state: str, end: TaskState
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, state)
    cancel_job(execution.job_id, at=scheduler.now())
    assert Job.objects.get(pk=execution.job_id).status == "CANCELED", "at once"
    scheduler.round(hint=True)
    assert scheduler.killed() == [task.task_id]
    scheduler.tell(task.task_id, end)
    execution.refresh_from_db()
    assert (execution.state, execution.error) == ("canceled", None)
    assert history(execution)[-1] == "cancel"
    assert JobExecution.objects.filter(job=execution.job_id).count() == 1


def test_a_queued_job_is_canceled_at_once(scheduler: Bench) -> None:
    execution = submit()
    cancel_job(execution.job_id, at=scheduler.now())
    execution.refresh_from_db()
    assert (execution.state, execution.job.status) == ("canceled", "CANCELED")
    scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    assert scheduler.launched() == []


def test_a_job_between_phases_is_canceled_at_once_and_cleaned_up(scheduler: Bench) -> None:
    execution = three()
    to_phase(scheduler, execution, "job", "holding")
    cancel_job(execution.job_id, at=scheduler.now())
    execution.refresh_from_db()
    assert (execution.state, execution.cleanup_owed) == ("canceled", True)


def test_a_canceled_task_that_starts_late_is_still_killed(scheduler: Bench) -> None:
    execution = submit(make_type(timeout=30))
    task = scheduler.run_to(execution, "starting")
    cancel_job(execution.job_id, at=scheduler.now())
    scheduler.tell(task.task_id, TaskState.RUNNING)
    assert scheduler.killed() == [task.task_id]
    scheduler.round(after_s=40)
    assert scheduler.killed() == [task.task_id]
    scheduler.tell(task.task_id, TaskState.KILLED)
    execution.refresh_from_db()
    assert (execution.state, execution.error_id) == ("canceled", None)


def test_a_job_is_requeued_once_its_task_is_gone(scheduler: Bench) -> None:
    execution = submit(make_type(max_tries=1))
    task = scheduler.run_to(execution, "running")
    cancel_job(execution.job_id, at=scheduler.now())
    with pytest.raises(NotAllowedNow, match="still being stopped"):
        requeue_job(execution.job_id, at=scheduler.now())
    scheduler.tell(task.task_id, TaskState.KILLED)
    scheduler.killed()
    requeue_job(execution.job_id, at=scheduler.now(), priority=5)
    again = newest(execution.job)
    assert (again.exe_num, again.priority, again.job.max_tries) == (2, 5, 2)
    scheduler.run_to(again, "running")


# --- nodes that go away ---------------------------------------------------------------------------


def test_what_holds_on_an_agent_that_left_gets_the_grace_period(scheduler: Bench) -> None:
    execution = three()
    to_phase(scheduler, execution, "job", "holding")
    scheduler.gateway.say(AgentLost("a1"))
    scheduler.gateway.machines = []
    scheduler.round()
    execution.refresh_from_db()
    assert execution.deadline == scheduler.now() + timedelta(seconds=60)
    assert not Node.objects.get(slave_id="a1").is_online
    scheduler.round(after_s=60)
    execution.refresh_from_db()
    assert (execution.state, execution.error.name) == ("failed", "node-lost")
    again = scheduler.launch(newest(execution.job), "a2")
    assert again.task_id.endswith(".pre.1")


def test_what_holds_on_an_agent_that_came_back_may_wait_for_room_again(scheduler: Bench) -> None:
    execution = three()
    to_phase(scheduler, execution, "job", "holding")
    scheduler.gateway.say(AgentLost("a1"))
    scheduler.round()
    scheduler.offer("a1", cpus=0.5)
    scheduler.round(after_s=30)
    assert scheduler.gateway.take(Listed) == [Listed()]
    assert Node.objects.get(slave_id="a1").is_online
    execution.refresh_from_db()
    assert execution.unreachable_since is None
    assert execution.deadline == scheduler.now() + timedelta(seconds=2000)
    scheduler.round(after_s=60)
    scheduler.declined()
    scheduler.revived()
    execution.refresh_from_db()
    assert execution.state == "holding"
    scheduler.offer("a1")
    scheduler.round()
    assert [task.task_id for task in scheduler.launched()] == [f"{execution.uuid}.job.2"]


def test_offers_of_an_agent_that_left_are_void(scheduler: Bench) -> None:
    submit()
    scheduler.offer()
    scheduler.gateway.say(AgentLost("a1"))
    scheduler.round(hint=True)
    assert scheduler.launched() == []


@pytest.mark.parametrize("state", ["starting", "running"])
@pytest.mark.parametrize(
    ("told", "reason", "when_starting", "when_running"),
    [
        (TaskState.LOST, "REASON_AGENT_REMOVED", "node-lost", "node-lost"),
        (TaskState.LOST, "REASON_RECONCILIATION", "bounce", "node-lost"),
        (TaskState.LOST, "REASON_INVALID_OFFERS", "bounce", "node-lost"),
        (TaskState.DROPPED, "REASON_INVALID_OFFERS", "bounce", "node-lost"),
        (TaskState.GONE, "REASON_RECONCILIATION", "bounce", "node-lost"),
        (TaskState.GONE, "REASON_CONTAINER_PREEMPTED", "node-lost", "node-lost"),
        (TaskState.GONE_BY_OPERATOR, None, "node-lost", "node-lost"),
        (TaskState.UNKNOWN, "REASON_RECONCILIATION", "bounce", "node-lost"),
        (TaskState.ERROR, "REASON_TASK_INVALID", "task-launch", "task-launch"),
        (TaskState.FAILED, "REASON_CONTAINER_LIMITATION_MEMORY", "memory-limit", "memory-limit"),
        (TaskState.FAILED, None, "task-launch", "algorithm-unknown"),
    ],
)
def test_a_task_that_the_cluster_lost_or_refused_has_its_row_in_this_table(
    scheduler: Bench,
    state: str,
    told: TaskState,
    reason: str | None,
    when_starting: str,
    when_running: str,
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, state)
    message = "Command exited with status 4" if (state, told) == ("running", "TASK_FAILED") else ""
    scheduler.tell(task.task_id, told, reason=reason, message=message)
    execution.refresh_from_db()
    wanted = when_starting if state == "starting" else when_running
    if wanted == "bounce":
        assert (execution.state, execution.node, execution.exe_num) == ("queued", None, 1)
        return
    assert (execution.state, execution.error.name) == ("failed", wanted)
    assert (newest(execution.job).exe_num == 2) == Error.objects.get(name=wanted).should_be_retried


def test_a_later_phase_that_never_reached_its_agent_waits_there_again(scheduler: Bench) -> None:
    execution = three()
    task_id = to_phase(scheduler, execution, "job", "starting")
    scheduler.tell(task_id, TaskState.DROPPED, uuid=None)
    execution.refresh_from_db()
    assert (execution.state, execution.phase, execution.agent_id) == ("holding", "job", "a1")
    assert execution.deadline == scheduler.now() + timedelta(seconds=2000)
    assert scheduler.launch(execution).task_id == f"{execution.uuid}.job.3"


@pytest.mark.parametrize(
    ("phase", "code", "error"),
    [("pre", 10, "pull"), ("pre", 11, "missing-file"), ("post", 20, "missing-required-output")],
)
def test_the_exit_code_of_a_step_names_its_error(
    scheduler: Bench, phase: str, code: int, error: str
) -> None:
    execution = three()
    task_id = to_phase(scheduler, execution, phase, "running")
    scheduler.tell(task_id, TaskState.FAILED, message=f"Command exited with status {code}")
    execution.refresh_from_db()
    assert (execution.error.name, getattr(execution, f"{phase}_exit_code")) == (error, code)


def test_the_error_mapping_of_the_type_names_the_error_of_an_exit_code(scheduler: Bench) -> None:
    Error.objects.create(name="bad-data", category="DATA")
    mapping = {"version": "1.0", "exit_codes": {"3": "bad-data"}}
    execution = submit(make_type(error_mapping=mapping))
    task = scheduler.run_to(execution, "running")
    scheduler.tell(task.task_id, TaskState.FAILED, message="Command exited with status 3")
    execution.refresh_from_db()
    assert (execution.error.name, execution.job.error.name) == ("bad-data", "bad-data")
    assert execution.job_exit_code == 3


def test_updates_take_as_many_queries_however_many_they_are(scheduler: Bench) -> None:
    types = [make_type(cpus_required=0.1, timeout=5) for _ in range(3)]

    def cost(count: int, state: TaskState) -> int:
        executions = [each for job_type in types for each in submit_many(job_type, count)]
        scheduler.offer(mem=100_000)
        scheduler.round(hint=True)
        scheduler.gateway.take(Listed)
        ids = [task.task_id for task in scheduler.launched()]
        assert len(ids) == len(executions)
        if state is TaskState.KILLED:
            JobExecution.objects.filter(task_id__in=ids).update(
                stopping_since=NOON, stopping_error=Error.objects.get(name="launch-timeout")
            )
        for task_id in ids:
            scheduler.gateway.say(
                UpdateReceived(TaskUpdate(task_id, state, agent_id="a1", uuid="u"))
            )
        with statements() as sent:
            scheduler.round()
        scheduler.gateway.take(Acknowledged)
        scheduler.killed()
        JobExecution.objects.filter(task_id__in=ids).update(stopping_since=None)
        JobType.objects.update(is_paused=True)
        types[:] = [make_type(cpus_required=0.1, timeout=5) for _ in range(3)]
        return sent.count

    for state in (TaskState.RUNNING, TaskState.FINISHED, TaskState.UNREACHABLE, TaskState.KILLED):
        assert cost(1, state) == cost(7, state), state
