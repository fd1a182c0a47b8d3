"""Work folders of what ended badly are removed, and not for ever tried."""

from collections.abc import Iterator

import pytest
from fake_gateway import Declined, Killed, Listed, Reconciled, Revived
from scheduled import THREE_PHASES, Bench, bench, make_type, submit_many

from scale.core.cluster import TaskRef, TaskSpec, TaskState
from scale.job.models import JobExecution
from scale.job.orders import CLEANUP_BATCH
from scale.scheduler.cleanup import TIMEOUT_S

pytestmark = pytest.mark.django_db


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        yield made


def failed(scheduler: Bench, count: int = 1) -> list[JobExecution]:
    executions = submit_many(make_type(THREE_PHASES, max_tries=1, cpus_required=0.1), count)
    scheduler.offer(mem=100_000)
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    for task in scheduler.launched():
        scheduler.tell(task.task_id, TaskState.FAILED)
    for execution in executions:
        execution.refresh_from_db()
        assert (execution.state, execution.cleanup_owed) == ("failed", True)
    return executions


def cleanup(scheduler: Bench, **free: float) -> TaskSpec:
    scheduler.offer(**free)  # type: ignore[arg-type]
    scheduler.round()
    [task] = scheduler.launched()
    assert task.task_id.startswith("cleanup.")
    return task


def test_the_folder_of_a_failed_execution_is_removed_on_its_node(scheduler: Bench) -> None:
    [execution] = failed(scheduler)
    scheduler.offer("a2")
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    assert scheduler.launched() == []
    task = cleanup(scheduler)
    assert task.agent_id == "a1"
    assert str(execution.uuid) in task.command
    execution.refresh_from_db()
    assert execution.cleanup_task_id == task.task_id
    scheduler.offer()
    scheduler.round(hint=True)
    assert scheduler.launched() == [], "one task at a time"
    scheduler.tell(task.task_id, TaskState.RUNNING)
    assert scheduler.killed() == []
    scheduler.tell(task.task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    assert not execution.cleanup_owed
    scheduler.offer()
    scheduler.round(hint=True)
    assert scheduler.launched() == []


def test_a_clean_up_that_fails_is_tried_five_times_with_longer_and_longer_pauses(
    scheduler: Bench,
) -> None:
    [execution] = failed(scheduler)
    task = cleanup(scheduler)
    for pause_s in (15, 120, 405, 960):
        scheduler.tell(task.task_id, TaskState.FAILED)
        scheduler.offer(cpus=0.2)
        scheduler.round(after_s=pause_s - 1)
        scheduler.gateway.take(Declined)
        assert scheduler.launched() == []
        assert scheduler.round(after_s=1) > 0, "not again and again while there is no offer"
        scheduler.gateway.take(Revived)
        scheduler.gateway.take(Reconciled)  # of everything, now and then
        task = cleanup(scheduler)
    scheduler.tell(task.task_id, TaskState.FAILED)
    execution.refresh_from_db()
    assert (execution.cleanup_owed, execution.cleanup_tries) == (False, 5)
    scheduler.offer()
    scheduler.round(hint=True)
    assert scheduler.launched() == []


def test_many_folders_are_removed_in_batches(scheduler: Bench) -> None:
    executions = failed(scheduler, CLEANUP_BATCH + 3)
    first = cleanup(scheduler)
    scheduler.tell(first.task_id, TaskState.FINISHED)
    second = cleanup(scheduler)
    scheduler.tell(second.task_id, TaskState.FINISHED)
    commands = first.command + second.command
    assert [commands.count(str(each.uuid)) for each in executions] == [1] * len(executions)
    assert not JobExecution.objects.filter(cleanup_owed=True).exists()


def test_a_clean_up_that_does_not_fit_waits_for_room(scheduler: Bench) -> None:
    failed(scheduler)
    scheduler.offer(cpus=0.05)
    scheduler.round()
    assert scheduler.launched() == []
    cleanup(scheduler)


def test_clean_ups_on_nodes_without_offers_do_not_hold_up_other_nodes(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(scheduler, 2)
    [other] = submit_many(make_type(THREE_PHASES, max_tries=1), 1)
    task = scheduler.run_to(other, "running", "a2")
    scheduler.tell(task.task_id, TaskState.FAILED, agent="a2")
    monkeypatch.setattr("scale.scheduler.cleanup._ROUND_LIMIT", 2)
    scheduler.offer("a2")
    scheduler.round()
    [task] = scheduler.launched()
    assert (task.task_id.partition(".")[0], task.agent_id) == ("cleanup", "a2")


def test_a_clean_up_takes_its_room_from_the_offer(scheduler: Bench) -> None:
    failed(scheduler)
    waiting = submit_many(make_type(cpus_required=1.0), 2)
    scheduler.offer(cpus=2)
    scheduler.round(hint=True)
    assert sum(task.needs.millicpus for task in scheduler.launched()) == 1100
    assert [JobExecution.objects.get(pk=each.pk).state for each in waiting] == [
        "starting",
        "queued",
    ]


def test_a_clean_up_that_was_lost_with_a_crash_is_owed_again(scheduler: Bench) -> None:
    [execution] = failed(scheduler)
    task = cleanup(scheduler)
    scheduler.restart()
    asked = scheduler.subscribe()
    assert Reconciled((TaskRef(task.task_id, "a1"),)) in asked
    scheduler.tell(task.task_id, TaskState.GONE, uuid=None, reason="REASON_RECONCILIATION")
    assert cleanup(scheduler).task_id != task.task_id
    execution.refresh_from_db()
    assert execution.cleanup_tries == 2


def test_a_machine_with_a_new_agent_id_is_cleaned_all_the_same(scheduler: Bench) -> None:
    failed(scheduler)
    scheduler.gateway.machines = []
    scheduler.machine("a1-new", hostname="host-a1")
    scheduler.offer("a1-new")
    scheduler.round()
    scheduler.gateway.take(Listed)
    [task] = scheduler.launched()
    assert task.agent_id == "a1-new"


def test_a_late_clean_up_is_killed_on_the_agent_that_has_it(scheduler: Bench) -> None:
    failed(scheduler)
    scheduler.gateway.machines = []
    scheduler.machine("a1-new", hostname="host-a1")
    scheduler.offer("a1-new")
    scheduler.round()
    scheduler.gateway.take(Listed)
    [task] = scheduler.launched()
    scheduler.round(after_s=TIMEOUT_S)
    [call] = scheduler.gateway.take(Killed)
    assert call.task == TaskRef(task.task_id, "a1-new")
    scheduler.gateway.take(Reconciled)


def test_a_clean_up_that_is_lost_again_and_again_is_never_given_up_but_pauses(
    scheduler: Bench,
) -> None:
    [execution] = failed(scheduler)
    for _ in range(2):
        for _launch in range(5 - execution.cleanup_tries):
            task = cleanup(scheduler)
            scheduler.tell(task.task_id, TaskState.DROPPED, uuid=None)
        scheduler.offer(cpus=0.2)
        scheduler.round()
        scheduler.round(after_s=959)
        assert scheduler.launched() == []
        scheduler.round(after_s=1)
        for kind in (Declined, Revived, Reconciled):
            scheduler.gateway.take(kind)
        execution.refresh_from_db()
        assert execution.cleanup_owed


def test_a_clean_up_that_the_cluster_refuses_is_not_sent_again_at_once(scheduler: Bench) -> None:
    failed(scheduler)
    task = cleanup(scheduler)
    scheduler.tell(task.task_id, TaskState.ERROR, uuid=None, reason="REASON_TASK_INVALID")
    scheduler.offer(cpus=0.2)
    scheduler.round()
    assert scheduler.launched() == []
