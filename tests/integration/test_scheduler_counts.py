"""What the leader counts of its work reaches the database with its heartbeat, and only so."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from fake_gateway import Listed, Reconciled, Revived
from scheduled import NOON, THREE_PHASES, Bench, bench, make_type, submit

from scale.core.cluster import TaskState
from scale.core.resources import Resources
from scale.job.services import cancel_job
from scale.scheduler.figures import Measured
from scale.scheduler.means import HEARTBEAT_S
from scale.scheduler.models import SchedulerState

pytestmark = pytest.mark.django_db


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        yield made


def beat(scheduler: Bench) -> Measured:
    """Let the next heartbeat come; return what it stored."""
    scheduler.round(after_s=HEARTBEAT_S)
    for kind in (Revived, Reconciled):
        scheduler.gateway.take(kind)
    found = Measured.of(SchedulerState.objects.get().figures)
    assert found is not None
    return found


def test_work_is_counted_by_what_it_is(scheduler: Bench) -> None:
    good = scheduler.run_to(submit(make_type(THREE_PHASES)), "running")
    scheduler.elapsed_s += 2
    bad = scheduler.run_to(submit(make_type(max_tries=1)), "running")
    scheduler.tell(good.task_id, TaskState.FINISHED)
    scheduler.tell(bad.task_id, TaskState.FAILED, message="Command exited with status 1")
    found = beat(scheduler)
    assert found.counts == {
        "launches": 2,
        "updates": 4,
        "offers": 2,
        "kills": 0,
        "finished": 0,
        "failed": 1,
    }
    assert found.since == NOON
    assert dict(found.waits.buckets)[0.05] == 1, "one waited for nothing"
    assert (dict(found.waits.buckets)[2.5], found.waits.sum) == (2, 2.0)
    assert found.rounds.buckets[-1][1] >= 6
    assert found.rates["updates"] == pytest.approx(4 / 7, abs=0.001)


def test_a_next_phase_leaves_no_queue_and_ends_an_execution(scheduler: Bench) -> None:
    execution = submit(make_type(THREE_PHASES))
    for phase in ("pre", "job", "post"):
        task = scheduler.run_to(execution, "running")
        assert task.task_id.split(".")[1] == phase
        scheduler.tell(task.task_id, TaskState.FINISHED)
    found = beat(scheduler)
    assert (found.counts["launches"], found.counts["finished"]) == (3, 1)
    assert found.waits.buckets[-1] == (None, 1)


def test_kills_are_counted(scheduler: Bench) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    cancel_job(execution.job_id, at=NOON)
    scheduler.round(hint=True)
    assert scheduler.killed() == [task.task_id]
    assert beat(scheduler).counts["kills"] == 1


def test_what_live_tasks_were_placed_by_is_what_is_used(scheduler: Bench) -> None:
    assert beat(scheduler).used == Resources()
    scheduler.run_to(submit(make_type(cpus_required=0.5, mem_required=100)), "running")
    submit(make_type(cpus_required=1000))
    found = beat(scheduler)
    assert (found.used.millicpus, found.used.mem_mib) == (500, 100)


def test_what_is_in_hand_is_what_is_offered(scheduler: Bench) -> None:
    scheduler.offer("a1", cpus=2, mem=100)
    scheduler.offer("a2", cpus=1, mem=50)
    scheduler.round()
    scheduler.gateway.take(Listed)
    scheduler.round(after_s=HEARTBEAT_S - 1)
    scheduler.loop._means.next_beat_s = 0.0
    scheduler.round()
    found = Measured.of(SchedulerState.objects.get().figures)
    assert found is not None
    assert found.offered == Resources(3000, 150, 200_000)


def test_figures_come_with_the_heartbeat_and_with_nothing_else(scheduler: Bench) -> None:
    scheduler.run_to(submit(), "running")
    with CaptureQueriesContext(connection) as queries:
        scheduler.round(after_s=HEARTBEAT_S - 0.5)
    assert not any("figures" in each["sql"] for each in queries.captured_queries)
    with CaptureQueriesContext(connection) as queries:
        scheduler.round(after_s=0.5)
    [stored] = [each["sql"] for each in queries.captured_queries if "UPDATE" in each["sql"]]
    assert "heartbeat" in stored
    assert "figures" in stored


def test_what_fails_because_its_node_stays_away_is_counted(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    scheduler.tell(task.task_id, TaskState.UNREACHABLE, uuid=None)
    scheduler.round(after_s=settings.SCALE_UNREACHABLE_GRACE_S)
    assert beat(scheduler).counts["failed"] == 1


def test_another_leader_counts_from_nothing(scheduler: Bench) -> None:
    scheduler.run_to(submit(), "running")
    assert beat(scheduler).counts["launches"] == 1
    scheduler.restart()
    scheduler.subscribe()
    scheduler.gateway.take(Reconciled)
    found = beat(scheduler)
    assert found.counts["launches"] == 0
    assert found.since > NOON
