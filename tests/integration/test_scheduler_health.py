"""What keeps failing is tried less and less: job types wait, nodes are set aside and probed."""

from collections.abc import Iterator

import pytest
from django.utils import timezone
from fake_gateway import Acknowledged, Listed, Reconciled
from scheduled import Bench, bench, make_type, newest, submit, submit_many

from scale.core.cluster import TaskSpec, TaskState
from scale.core.errors import GatewayError
from scale.job.models import JobExecution, JobType
from scale.node.models import Node
from scale.node.registry import mark_offline
from scale.node.services import NodeChange, change_node
from scale.scheduler import cleanup, probes
from scale.scheduler.backoff import LONGEST_WAIT_S
from scale.scheduler.explaining import EVERY_S

pytestmark = pytest.mark.django_db


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        yield made
        for kind in (Listed, Reconciled):
            made.gateway.take(kind)
        made.revived()
        made.declined()


def place(scheduler: Bench, agent: str = "a1") -> list[TaskSpec]:
    scheduler.offer(agent)
    scheduler.round(hint=True)
    return scheduler.launched()


def fail_to_launch(scheduler: Bench, times: int, agent: str = "a1") -> None:
    for _ in range(times):
        [task] = place(scheduler, agent)
        scheduler.tell(task.task_id, TaskState.FAILED, agent=agent, message="no shell")


# --- job types ------------------------------------------------------------------------------------


def test_a_type_whose_launches_keep_failing_waits_longer_and_longer(scheduler: Bench) -> None:
    job_type = make_type(max_tries=100)
    submit(job_type)
    fail_to_launch(scheduler, 3)
    waits = []
    for _ in range(8):
        waited = 0.0
        while not (tasks := place(scheduler)):
            scheduler.elapsed_s += 2.5
            waited += 2.5
        waits.append(waited)
        [task] = tasks
        scheduler.tell(task.task_id, TaskState.FAILED, message="no shell")
    assert waits == [5, 10, 20, 40, 80, 160, LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_it_wakes_by_itself_when_the_wait_is_over_and_asks_for_offers(scheduler: Bench) -> None:
    execution = submit(make_type(max_tries=100))
    fail_to_launch(scheduler, 3)
    assert place(scheduler) == []
    pause_s = scheduler.round(after_s=EVERY_S)
    assert pause_s == 5 - EVERY_S, "an offer is given back, and the wait ends"
    assert scheduler.round(after_s=pause_s) >= 0
    assert [task.task_id for task in scheduler.launched()] == [
        f"{newest(execution.job).uuid}.job.1"
    ]


def test_after_a_wait_launches_go_one_by_one_until_one_works(scheduler: Bench) -> None:
    job_type = make_type(max_tries=100, cpus_required=0.1)
    submit(job_type)
    fail_to_launch(scheduler, 3)
    submit_many(job_type, 4)
    scheduler.elapsed_s += 5
    [task] = place(scheduler)
    assert place(scheduler) == [], "one starts already"
    scheduler.tell(task.task_id, TaskState.RUNNING)
    assert len(scheduler.launched() or place(scheduler)) == 4
    job_type.refresh_from_db()
    assert (job_type.launch_failures, job_type.launch_after) == (0, None)


def test_other_types_do_not_wait_and_a_restart_does_not_end_the_wait(scheduler: Bench) -> None:
    submit(make_type(max_tries=100))
    fail_to_launch(scheduler, 3)
    scheduler.restart()
    scheduler.subscribe()
    other = submit()
    assert [task.task_id for task in place(scheduler)] == [f"{other.uuid}.job.1"]


def test_commands_that_run_and_fail_are_no_reason_to_wait(scheduler: Bench) -> None:
    job_type = make_type(max_tries=1)
    for _ in range(5):
        submit(job_type)
        [task] = place(scheduler)
        scheduler.tell(task.task_id, TaskState.FAILED, message="Command exited with status 1")
    assert JobType.objects.get(pk=job_type.pk).launch_failures == 0


def test_launches_that_bounce_once_are_free_and_one_that_always_does_waits(
    scheduler: Bench,
) -> None:
    execution = submit(make_type())
    launches = 0
    while tasks := place(scheduler):
        [task] = tasks
        launches += 1
        scheduler.tell(task.task_id, TaskState.DROPPED)
    assert launches == 7, "five, and then three that count"
    assert newest(execution.job).exe_num == 1


# --- nodes ----------------------------------------------------------------------------------------


def set_aside(scheduler: Bench) -> Node:
    """Let jobs of different types fail on a1 until it is set aside."""
    for _ in range(probes.PATIENCE):
        submit(make_type(max_tries=1))
        fail_to_launch(scheduler, 1)
    node = Node.objects.get(slave_id="a1")
    assert node.health == Node.Health.DEGRADED
    return node


def test_a_node_on_which_everything_fails_is_set_aside_with_a_reason(scheduler: Bench) -> None:
    node = set_aside(scheduler)
    assert node.pause_reason == "5 jobs in a row failed here, the last with task-launch"
    submit()
    assert place(scheduler) == []
    assert len(place(scheduler, "a2")) == 1, "the others go on"


def test_one_success_between_keeps_a_node_at_work(scheduler: Bench) -> None:
    for _ in range(2):
        for _ in range(probes.PATIENCE - 1):
            submit(make_type(max_tries=1))
            fail_to_launch(scheduler, 1)
        submit()
        [task] = place(scheduler)
        scheduler.tell(task.task_id, TaskState.FINISHED)
    assert Node.objects.get().health == Node.Health.READY


def test_one_job_that_fails_again_and_again_does_not_condemn_its_node(scheduler: Bench) -> None:
    submit(make_type(max_tries=100))
    for _ in range(2 * probes.PATIENCE):
        scheduler.elapsed_s += LONGEST_WAIT_S
        fail_to_launch(scheduler, 1)
    assert Node.objects.get().health == Node.Health.READY


def probe(scheduler: Bench) -> TaskSpec:
    scheduler.elapsed_s += probes.EVERY_S
    [task] = place(scheduler)
    assert (task.command, task.task_id.partition(".")[0]) == ("true", "probe")
    return task


def test_a_probe_that_ends_well_brings_the_node_back(scheduler: Bench) -> None:
    set_aside(scheduler)
    execution = submit()
    assert place(scheduler) == [], "not before its time"
    task = probe(scheduler)
    scheduler.tell(task.task_id, TaskState.RUNNING)
    assert scheduler.killed() == []
    scheduler.tell(task.task_id, TaskState.FINISHED)
    node = Node.objects.get()
    assert (node.health, node.pause_reason, node.failed_jobs) == (Node.Health.READY, None, [])
    tasks = scheduler.launched() or place(scheduler)
    assert [each.task_id for each in tasks] == [f"{execution.uuid}.job.1"]


def test_a_probe_that_fails_is_followed_by_another_a_minute_later(scheduler: Bench) -> None:
    set_aside(scheduler)
    for _ in range(2):
        task = probe(scheduler)
        assert place(scheduler) == []
        scheduler.tell(task.task_id, TaskState.FAILED)
        assert Node.objects.get().health == Node.Health.DEGRADED
        assert place(scheduler) == []


def test_a_probe_is_asked_for_although_no_offer_is_in_hand(scheduler: Bench) -> None:
    set_aside(scheduler)
    scheduler.offer()
    scheduler.round()
    scheduler.round(after_s=6)
    assert scheduler.declined()
    scheduler.revived()
    scheduler.round(after_s=probes.EVERY_S)
    assert scheduler.revived() == 1


def test_a_probe_that_hangs_is_killed_and_is_no_probe_any_more(scheduler: Bench) -> None:
    set_aside(scheduler)
    task = probe(scheduler)
    scheduler.round(after_s=probes.TIMEOUT_S)
    assert scheduler.killed() == [task.task_id]
    scheduler.tell(task.task_id, TaskState.RUNNING)
    assert scheduler.killed() == [task.task_id], "it lives still"
    scheduler.tell(task.task_id, TaskState.KILLED)
    assert probe(scheduler).task_id != task.task_id


def test_what_still_fails_on_a_node_that_was_set_aside_does_not_disturb_its_probe(
    scheduler: Bench,
) -> None:
    for _ in range(2 * probes.PATIENCE):
        submit(make_type(max_tries=1, cpus_required=0.1))
    tasks = place(scheduler)
    for each in tasks[: probes.PATIENCE]:
        scheduler.tell(each.task_id, TaskState.FAILED)
    task = probe(scheduler)
    for each in tasks[probes.PATIENCE :]:
        scheduler.tell(each.task_id, TaskState.FAILED)
    scheduler.tell(task.task_id, TaskState.FINISHED)
    assert Node.objects.get().health == Node.Health.READY


def test_a_probe_that_was_lost_with_a_crash_is_asked_about(scheduler: Bench) -> None:
    set_aside(scheduler)
    task = probe(scheduler)
    scheduler.restart()
    asked = scheduler.subscribe()
    assert task.task_id in {ref.task_id for call in asked for ref in call.tasks}
    scheduler.tell(task.task_id, TaskState.GONE, uuid=None, reason="REASON_RECONCILIATION")
    assert probe(scheduler).task_id != task.task_id


def test_an_operator_brings_a_node_back_at_once_and_it_starts_with_a_clean_sheet(
    scheduler: Bench,
) -> None:
    node = set_aside(scheduler)
    change_node(node.pk, NodeChange(is_paused=False), at=timezone.now())
    submit(make_type(max_tries=1))
    fail_to_launch(scheduler, 1)
    node.refresh_from_db()
    assert (node.health, len(node.failed_jobs)) == (Node.Health.READY, 1)


def test_the_health_of_a_node_is_the_worst_that_is_true_of_it(scheduler: Bench) -> None:
    node = set_aside(scheduler)
    change_node(node.pk, NodeChange(is_paused=True, pause_reason="tea"), at=timezone.now())
    node.refresh_from_db()
    assert node.health == Node.Health.PAUSED
    mark_offline(["a1"])
    node.refresh_from_db()
    assert node.health == Node.Health.OFFLINE


# --- clean-ups ------------------------------------------------------------------------------------


def test_a_clean_up_that_hangs_is_killed_and_counts_as_a_try(scheduler: Bench) -> None:
    execution = submit()
    [task] = place(scheduler)
    scheduler.tell(task.task_id, TaskState.FAILED, message="Command exited with status 1")
    JobExecution.objects.update(cleanup_owed=True)
    for tries in range(1, 6):
        [task] = place(scheduler)
        scheduler.round(after_s=cleanup.TIMEOUT_S)
        assert scheduler.killed() == [task.task_id]
        execution.refresh_from_db()
        assert execution.cleanup_tries == tries
        scheduler.elapsed_s += 1000  # the pause is over
        scheduler.round()
        scheduler.gateway.take(Reconciled)
    assert (execution.cleanup_owed, execution.cleanup_deadline) == (False, None)
    scheduler.gateway.take(Acknowledged)


# --- names ----------------------------------------------------------------------------------------


def test_two_agents_with_one_hostname_are_warned_of_and_both_are_used(
    scheduler: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.machine("a1", hostname="twin")
    scheduler.machine("a2", hostname="twin")
    scheduler.offer("a1", cpus=1)
    scheduler.offer("a2", cpus=1)
    submit()
    submit()
    scheduler.round(hint=True)
    assert sorted(task.agent_id for task in scheduler.launched()) == ["a1", "a2"]
    assert "two agents have the same hostname; give each its own" in caplog.messages


def test_new_agents_with_one_hostname_are_known_although_the_master_lists_none(
    scheduler: Bench,
) -> None:
    def refuse(_call: object) -> None:
        raise GatewayError("connection reset")

    scheduler.gateway.before[Listed] = refuse
    for agent in ("a1", "a2"):
        scheduler.machine(agent, hostname="twin")
        scheduler.offer(agent, cpus=1)
        submit()
    scheduler.round(hint=True)
    assert sorted(task.agent_id for task in scheduler.launched()) == ["a1", "a2"]
    scheduler.gateway.take(Listed)
