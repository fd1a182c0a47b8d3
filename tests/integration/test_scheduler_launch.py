"""From the queue to the end, and what holds when it breaks in between."""

from collections.abc import Iterator

import psycopg2
import pytest
from django.db import connection
from fake_gateway import Acknowledged, Declined, Killed, Launched, Listed, Reconciled
from scheduled import (
    THREE_PHASES,
    Bench,
    bench,
    ended_well,
    history,
    make_type,
    newest,
    submit,
    submit_many,
)

from scale.core.cluster import (
    Disconnected,
    Subscribed,
    TaskRef,
    TaskState,
    TaskUpdate,
    UpdateReceived,
)
from scale.core.errors import GatewayError
from scale.core.placement import Plan, Snapshot, plan
from scale.job.models import ExecutionEvent, JobExecution
from scale.job.services import cancel_job
from scale.job.tokens import task_of
from scale.scheduler.models import SchedulerState

pytestmark = pytest.mark.django_db
UNREAL = "6f3b2a52-0000-4000-8000-000000000000"


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        yield made


def refuse(_call: object) -> None:
    raise GatewayError("connection reset")


def test_a_job_without_files_runs_its_one_phase(scheduler: Bench) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    assert (execution.phase, execution.node.hostname) == ("job", "host-a1")
    assert task.task_id == f"{execution.uuid}.job.1"
    assert task.agent_id == execution.agent_id == "a1"
    scheduler.elapsed_s += 7
    scheduler.tell(task.task_id, TaskState.FINISHED, message="Command exited with status 0")
    execution.refresh_from_db()
    assert (execution.state, execution.status) == ("completed", "COMPLETED")
    assert (execution.job_completed - execution.job_started).total_seconds() == 7
    assert execution.ended == scheduler.now()
    assert (execution.job_exit_code, execution.pre_started, execution.post_started) == (
        0,
        None,
        None,
    )
    assert execution.job.status == "COMPLETED"
    assert history(execution) == ["create", "launch", "start", "finish"]


def test_a_job_with_files_runs_three_phases_on_one_node(scheduler: Bench) -> None:
    execution = submit(make_type(THREE_PHASES))
    tokens = []
    for phase in ("pre", "job", "post"):
        scheduler.offer("a2")
        task = scheduler.launch(execution, "a1")
        assert task.agent_id == "a1"
        assert task.task_id.split(".")[1] == phase
        tokens.append(task.environment.get("SCALE_EXECUTION_TOKEN", ""))
        scheduler.tell(task.task_id, TaskState.RUNNING)
        scheduler.tell(task.task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    assert execution.state == "completed"
    assert [execution.pre_exit_code, execution.job_exit_code, execution.post_exit_code] == [0] * 3
    assert history(execution) == [
        "create",
        *["launch", "start", "hold"] * 2,
        "launch",
        "start",
        "finish",
    ]
    assert task_of(tokens[0], execution.uuid) == f"{execution.uuid}.pre.1"
    assert tokens[1] == "", "the command itself gets no token"
    assert task_of(tokens[2], execution.uuid) == f"{execution.uuid}.post.3"
    assert not execution.cleanup_owed
    scheduler.gateway.take(Listed)


def test_the_rows_start_before_the_cluster_hears(scheduler: Bench) -> None:
    executions = submit_many(make_type(), 3)
    seen: list[list[str]] = []

    def look(call: Launched) -> None:
        ids = [task.task_id.partition(".")[0] for task in call.tasks]
        rows = JobExecution.objects.filter(uuid__in=ids)
        seen.append([f"{row.state} {row.task_id}" for row in rows.order_by("id")])

    scheduler.gateway.before[Launched] = look
    scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    assert len(scheduler.launched()) == 3
    assert seen == [[f"starting {each.uuid}.job.1" for each in executions]]


def test_a_launch_that_the_cluster_did_not_take_goes_back_to_the_queue(scheduler: Bench) -> None:
    execution = submit()
    scheduler.gateway.before[Launched] = refuse
    scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    [task] = scheduler.launched()
    execution.refresh_from_db()
    assert execution.state == "starting", "whether the cluster heard is not known"
    scheduler.gateway.before.clear()
    scheduler.round(after_s=1)
    assert scheduler.gateway.take(Declined) == [Declined(("a1-o1",), 0.0)]
    assert scheduler.gateway.take(Reconciled) == [Reconciled((TaskRef(task.task_id, "a1"),))]
    scheduler.tell(task.task_id, TaskState.GONE, uuid=None, reason="REASON_RECONCILIATION")
    execution.refresh_from_db()
    assert (execution.state, execution.job.status, execution.started) == ("queued", "QUEUED", None)
    again = scheduler.launch(execution)
    assert again.task_id == f"{execution.uuid}.job.2", "a late update must not be taken for this"
    execution.refresh_from_db()
    assert execution.exe_num == 1, "a launch that reached nobody costs no attempt"


def test_the_offers_of_a_lost_accept_are_declined_before_its_tasks_are_asked_about(
    scheduler: Bench,
) -> None:
    submit()
    scheduler.gateway.before = {Launched: refuse, Declined: refuse}
    scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    scheduler.launched()
    other = submit()
    scheduler.gateway.before.pop(Launched)
    scheduler.offer("a2")
    scheduler.round(after_s=1, hint=True)
    scheduler.gateway.take(Listed)
    assert [task.task_id for task in scheduler.launched()] == [f"{other.uuid}.job.1"]
    assert scheduler.declined() == ["a1-o1"]
    assert scheduler.gateway.take(Reconciled) == [], "else the cluster could hear the launch later"
    scheduler.gateway.before.clear()
    scheduler.round(after_s=1)
    assert scheduler.declined() == ["a1-o1"]
    assert len(scheduler.gateway.take(Reconciled)) == 1
    scheduler.round(after_s=1)
    assert scheduler.declined() == []


def test_offers_of_a_lost_accept_are_forgotten_with_the_subscription(scheduler: Bench) -> None:
    submit()
    scheduler.gateway.before[Launched] = refuse
    scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.say(Disconnected(), Subscribed("framework-1", "master:5050"))
    scheduler.round(after_s=1)
    for kind in (Listed, Launched, Reconciled):
        scheduler.gateway.take(kind)
    assert scheduler.declined() == []


def test_what_waits_on_nodes_without_offers_does_not_hold_up_other_nodes(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_type = make_type(THREE_PHASES)
    held = []
    for agent in ("a1", "a2"):
        execution = submit(job_type)
        task = scheduler.launch(execution, agent)
        scheduler.tell(task.task_id, TaskState.FINISHED, agent=agent)
        held.append(execution)
    monkeypatch.setattr("scale.scheduler.snapshot.LAUNCH_LIMIT", 1)
    assert scheduler.launch(held[1], "a2").task_id == f"{held[1].uuid}.job.2"


def test_a_crash_between_commit_and_launch_loses_nothing(scheduler: Bench) -> None:
    class Died(BaseException):
        pass

    def die(_call: object) -> None:
        raise Died

    execution = submit(make_type(THREE_PHASES))
    scheduler.gateway.before[Launched] = die
    scheduler.offer()
    with pytest.raises(Died):
        scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    [task] = scheduler.launched()
    scheduler.restart()
    execution.refresh_from_db()
    assert execution.state == "starting"
    asked = scheduler.subscribe()
    assert scheduler.gateway.started == ["framework-1"]
    assert Reconciled(()) in asked
    assert Reconciled((TaskRef(task.task_id, "a1"),)) in asked
    scheduler.tell(task.task_id, TaskState.GONE, uuid=None, reason="REASON_RECONCILIATION")
    execution.refresh_from_db()
    assert execution.state == "queued"
    assert not execution.cleanup_owed
    scheduler.offer()
    scheduler.round()
    assert [each.task_id for each in scheduler.launched()] == [f"{execution.uuid}.pre.2"]
    assert history(execution) == ["create", "launch", "bounce", "launch"]


def test_running_work_goes_on_over_a_restart(scheduler: Bench) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    scheduler.restart()
    asked = scheduler.subscribe()
    assert Reconciled((TaskRef(task.task_id, "a1"),)) in asked
    scheduler.tell(task.task_id, TaskState.RUNNING, uuid=None, reason="REASON_RECONCILIATION")
    scheduler.tell(task.task_id, TaskState.FINISHED)
    assert newest(execution.job).state == "completed"
    assert history(execution) == ["create", "launch", "start", "finish"]


@pytest.mark.parametrize("state", [TaskState.FINISHED, TaskState.FAILED, TaskState.RUNNING])
def test_a_repeated_update_changes_nothing_and_is_acknowledged(
    scheduler: Bench, state: TaskState
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    update = scheduler.tell(task.task_id, state, message="Command exited with status 9")
    before = JobExecution.objects.values().get(pk=execution.pk)
    events = ExecutionEvent.objects.count()
    scheduler.elapsed_s += 10
    for again in (update, update):
        scheduler.gateway.say(UpdateReceived(again))
    scheduler.round()
    assert scheduler.gateway.take(Acknowledged) == [Acknowledged((update, update))]
    assert JobExecution.objects.values().get(pk=execution.pk) == before
    assert ExecutionEvent.objects.count() == events
    assert JobExecution.objects.filter(job=execution.job).count() == 1


def test_start_and_end_that_arrive_together_are_applied_in_their_order(scheduler: Bench) -> None:
    executions = submit_many(make_type(), 4)
    scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    ids = [task.task_id for task in scheduler.launched()]
    for task_id in ids:
        scheduler.gateway.say(
            UpdateReceived(TaskUpdate(task_id, TaskState.STARTING, agent_id="a1", uuid="u1")),
            UpdateReceived(TaskUpdate(task_id, TaskState.RUNNING, agent_id="a1", uuid="u2")),
        )
    scheduler.gateway.say(*ended_well(ids))
    scheduler.round()
    [confirmed] = scheduler.gateway.take(Acknowledged)
    assert len(confirmed.updates) == 12
    for execution in executions:
        assert history(execution) == ["create", "launch", "start", "finish"]


def test_the_end_of_a_phase_without_its_start_is_enough(scheduler: Bench) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "starting")
    scheduler.tell(task.task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    assert (execution.state, execution.job_exit_code) == ("completed", 0)
    assert execution.job_started == execution.job_completed == scheduler.now()


@pytest.mark.parametrize("task_id", [f"{UNREAL}.job.1", "not-ours", "", ".", "ü\0", "cleanup."])
def test_a_task_that_no_row_knows_is_killed_and_one_that_ended_is_ignored(
    scheduler: Bench, task_id: str
) -> None:
    scheduler.tell(task_id, TaskState.FINISHED)
    assert scheduler.killed() == []
    scheduler.tell(task_id, TaskState.FAILED)
    scheduler.tell(task_id, TaskState.RUNNING)
    assert scheduler.gateway.take(Killed)[0].task == TaskRef(task_id, "a1")
    assert ExecutionEvent.objects.count() == 0


def test_a_stray_task_of_an_earlier_launch_is_killed(scheduler: Bench) -> None:
    execution = submit()
    first = scheduler.run_to(execution, "starting")
    scheduler.tell(first.task_id, TaskState.DROPPED, uuid=None)
    second = scheduler.run_to(execution, "running")
    scheduler.tell(first.task_id, TaskState.RUNNING)
    assert scheduler.killed() == [first.task_id]
    scheduler.tell(first.task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    assert (execution.state, execution.task_id) == ("running", second.task_id)


@pytest.mark.parametrize("message", ["with a \0 in it", "\ud800 alone", "x" * 100_000])
def test_whatever_a_message_holds_it_is_stored_as_far_as_text_goes(
    scheduler: Bench, message: str
) -> None:
    execution = submit(make_type(max_tries=1))
    task = scheduler.run_to(execution, "running")
    scheduler.tell(task.task_id, TaskState.FAILED, message=message)
    stored = newest(execution.job)
    assert stored.state == "failed"
    assert stored.error_message[:6] == message[:6].replace("\0", "�").replace("\ud800", "?")
    assert len(stored.error_message) == len(message)


def test_what_was_canceled_after_it_was_read_is_not_launched(scheduler: Bench) -> None:
    executions = submit_many(make_type(), 2)
    cancel_job(executions[0].job_id, at=scheduler.now())
    scheduler.launch(executions[1])
    assert history(executions[0]) == ["create", "cancel"]


@pytest.mark.parametrize("phase", ["pre", "job"])
def test_what_is_canceled_between_plan_and_lock_is_left_out(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    canceled, other = submit_many(make_type(THREE_PHASES), 2)
    if phase == "job":
        scheduler.offer()
        scheduler.round(hint=True)
        scheduler.gateway.take(Listed)
        for task in scheduler.launched():
            scheduler.tell(task.task_id, TaskState.FINISHED)

    def plan_and_cancel(seen: Snapshot) -> Plan:
        decided = plan(seen)
        assert canceled.pk in {launch.execution_id for launch in decided.launches}
        cancel_job(canceled.job_id, at=scheduler.now())
        return decided

    monkeypatch.setattr("scale.scheduler.launch.plan", plan_and_cancel)
    scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    [task] = scheduler.launched()
    assert task.task_id.startswith(f"{other.uuid}.{phase}.")
    assert newest(canceled.job).state == "canceled"


def test_what_is_left_of_an_offer_is_offered_again_at_once(scheduler: Bench) -> None:
    submit()
    offer = scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    [call] = scheduler.gateway.take(Launched)
    assert (call.offer_ids, call.refuse_s) == ((offer.offer_id,), 0.0)


def test_offers_of_one_agent_are_used_together(scheduler: Bench) -> None:
    submit(make_type(cpus_required=6.0))
    offers = [scheduler.offer(cpus=4, mem=300) for _ in range(2)]
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    [call] = scheduler.gateway.take(Launched)
    assert sorted(call.offer_ids) == sorted(offer.offer_id for offer in offers)


def test_an_offer_is_used_once(scheduler: Bench) -> None:
    first = submit()
    scheduler.launch(first)
    submit()
    scheduler.round(hint=True)
    assert scheduler.launched() == []


def test_more_than_one_round_takes_is_launched_without_waiting_for_news(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scale.scheduler.launch.LAUNCH_LIMIT", 3)
    monkeypatch.setattr("scale.scheduler.snapshot.LAUNCH_LIMIT", 3)
    submit_many(make_type(cpus_required=0.1), 8)
    for number in range(9):
        scheduler.machine(f"a{number}", mem=100)
        scheduler.offer(f"a{number}", mem=100)
    counts, pauses = [], []
    for number in range(3):
        pauses.append(scheduler.round(hint=number == 0))
        counts.append(len(scheduler.launched()))
    assert counts == [3, 3, 2]
    assert pauses[:2] == [0, 0] < pauses[2:]
    scheduler.gateway.take(Listed)


# --- what only a real commit shows ----------------------------------------------------------------


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_updates_are_acknowledged_after_their_commit() -> None:
    with bench() as scheduler:
        execution = submit()
        task = scheduler.run_to(execution, "running")
        other = psycopg2.connect(**connection.get_connection_params())
        seen: list[tuple[str, ...]] = []

        def look(_call: object) -> None:
            with other, other.cursor() as cursor:
                cursor.execute("SELECT state FROM job_execution WHERE id = %s", [execution.pk])
                seen.extend(cursor.fetchall())

        scheduler.gateway.before[Acknowledged] = look
        scheduler.tell(task.task_id, TaskState.FINISHED)
        assert seen == [("completed",)]
        other.close()


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_tasks_are_launched_after_the_commit_of_their_rows() -> None:
    with bench() as scheduler:
        execution = submit()
        other = psycopg2.connect(**connection.get_connection_params())
        seen: list[tuple[str, ...]] = []

        def look(_call: object) -> None:
            with other, other.cursor() as cursor:
                cursor.execute("SELECT task_id FROM job_execution WHERE id = %s", [execution.pk])
                seen.extend(cursor.fetchall())

        scheduler.gateway.before[Launched] = look
        task = scheduler.launch(execution)
        assert seen == [(task.task_id,)]
        other.close()


def test_updates_that_cannot_be_stored_are_not_acknowledged(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    SchedulerState.objects.update(epoch=99)
    with pytest.raises(Exception, match="epoch 99"):
        scheduler.tell(task.task_id, TaskState.FINISHED)
    assert scheduler.gateway.take(Acknowledged) == []
