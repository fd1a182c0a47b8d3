"""Each reason why something waits, from the scheduler's rounds to whoever asks."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from fake_gateway import Declined, Listed, Reconciled, Revived
from scheduled import NOON, THREE_PHASES, Bench, bench, make_type, submit, submit_many

from scale.core.cluster import AgentLost, Disconnected, Subscribed, TaskState
from scale.core.errors import LeadershipLost
from scale.core.placement import Shape
from scale.core.reasons import NOT_CONNECTED, WaitCode
from scale.job.editing import change_job_type
from scale.job.models import JobExecution, JobType
from scale.job.services import cancel_job
from scale.node.models import Node
from scale.scheduler import explaining
from scale.scheduler.explaining import CUT_OFF_S, EVERY_S
from scale.scheduler.models import SchedulerState, WaitingShape
from scale.scheduler.services import pause_scheduler
from scale.scheduler.snapshot import Turn, waiting_shapes
from scale.scheduler.waiting import Wait, waits_for, why_execution_waits, why_job_types_wait

pytestmark = pytest.mark.django_db


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        yield made


def look(scheduler: Bench) -> None:
    """Do a round with a hint, late enough to look at reasons again."""
    scheduler.round(after_s=EVERY_S, hint=True)
    for kind in (Listed, Revived, Declined):
        scheduler.gateway.take(kind)


def why(execution: JobExecution, now: datetime) -> Wait:
    row = JobExecution.objects.select_related("job", "node").get(pk=execution.pk)
    found = why_execution_waits(row, now=now)
    assert found is not None
    return found


def filtered(code: str, now: datetime) -> set[int]:
    found = waits_for([code], now=now)
    rows = JobExecution.objects.filter(found.condition, status__in=found.statuses)
    return set(rows.values_list("pk", flat=True))


# Each makes the cluster as it is said, and returns what waits.


def nothing(scheduler: Bench) -> JobExecution:
    return submit()


def a_small_node(scheduler: Bench) -> JobExecution:
    scheduler.offer(mem=99)
    scheduler.machine(mem=99)
    return submit()


def a_full_node(**needs: Any) -> Callable[[Bench], JobExecution]:
    def full(scheduler: Bench) -> JobExecution:
        scheduler.run_to(submit(make_type(**needs)), "running")
        return submit(make_type(**needs), priority=7)

    return full


def a_paused_type(scheduler: Bench) -> JobExecution:
    execution = submit()
    change_job_type(execution.job_type_id, {"is_paused": True}, at=NOON)
    return execution


def an_inactive_type(scheduler: Bench) -> JobExecution:
    execution = submit()
    JobType.objects.update(is_active=False)
    return execution


def a_paused_scheduler(scheduler: Bench) -> JobExecution:
    scheduler.offer()
    pause_scheduler(paused=True)
    return submit()


def a_limit(scheduler: Bench) -> JobExecution:
    job_type = make_type(max_scheduled=1)
    scheduler.run_to(submit(job_type), "running")
    scheduler.offer()
    return submit(job_type)


def a_paused_node(scheduler: Bench) -> JobExecution:
    scheduler.offer()
    scheduler.round()
    Node.objects.update(is_paused=True)
    return submit()


def a_node_set_aside(scheduler: Bench) -> JobExecution:
    scheduler.offer()
    scheduler.round()
    Node.objects.update(is_paused_errors=True, probe_at=NOON + timedelta(hours=1))
    return submit()


def failed_launches(scheduler: Bench) -> JobExecution:
    execution = submit()
    until = NOON + timedelta(seconds=100)
    JobType.objects.update(launch_failures=4, launch_after=until)
    scheduler.offer()
    return execution


def one_at_a_time(scheduler: Bench) -> JobExecution:
    first, second = submit_many(make_type(), 2)
    JobType.objects.update(launch_failures=3, launch_after=NOON - timedelta(seconds=1))
    scheduler.launch(first)
    scheduler.offer()
    return second


def a_reservation(scheduler: Bench) -> JobExecution:
    job_type = make_type(cpus_required=3)
    scheduler.run_to(submit(job_type), "running")
    big = submit(make_type(cpus_required=6))
    scheduler.offer(cpus=5)
    return big


def behind_a_reservation(scheduler: Bench) -> JobExecution:
    a_reservation(scheduler)
    return submit(priority=1000)


def no_offers(scheduler: Bench) -> JobExecution:
    scheduler.offer()
    scheduler.round()
    scheduler.loop._book.clear()
    return submit()


def a_lost_connection(scheduler: Bench) -> JobExecution:
    scheduler.gateway.say(Disconnected())
    scheduler.round()
    scheduler.elapsed_s += CUT_OFF_S
    return submit()


CASES = [
    (nothing, "NO_NODES", "the cluster has no nodes"),
    (a_small_node, "NO_NODE_LARGE_ENOUGH", "asks 100 MiB of memory; the largest node has 99"),
    (
        a_full_node(cpus_required=5.0),
        "INSUFFICIENT_CPUS",
        "asks 5 cpus; the roomiest node, host-a1, has 3 free of 8",
    ),
    (
        a_full_node(mem_required=4100.0),
        "INSUFFICIENT_MEM",
        "asks 4100 MiB of memory; the roomiest node, host-a1, has 3900 free of 8000",
    ),
    (
        a_full_node(disk_out_const_required=50_001.0),
        "INSUFFICIENT_DISK",
        "asks 50001 MiB of disk; the roomiest node, host-a1, has 49999 free of 100000",
    ),
    (a_paused_type, "JOB_TYPE_PAUSED", "its job type is paused"),
    (an_inactive_type, "JOB_TYPE_PAUSED", "its job type is not active"),
    (a_paused_scheduler, "SCHEDULER_PAUSED", "the scheduler is paused"),
    (
        a_limit,
        "MAX_SCHEDULED_REACHED",
        "at most 1 of this job type may run at a time (its max_scheduled)",
    ),
    (a_paused_node, "NODE_PAUSED", "every node that is large enough is paused"),
    (a_node_set_aside, "NODE_PAUSED", "every node that is large enough is paused"),
    (
        failed_launches,
        "RETRY_BACK_OFF",
        "launches of its job type failed 4 times in a row; the next is at 2026-03-04T12:01:40Z",
    ),
    (
        one_at_a_time,
        "RETRY_BACK_OFF",
        "launches of its job type failed 3 times in a row; one at a time starts until one works",
    ),
    (
        a_reservation,
        "INSUFFICIENT_CPUS",
        "asks 6 cpus; node host-a1 is kept for it and has 5 free of 8",
    ),
    (
        behind_a_reservation,
        "INSUFFICIENT_CPUS",
        "asks 1 cpus; no node has any free for it now; nodes kept for what comes first: 1",
    ),
    (
        no_offers,
        "WAITING_FOR_OFFERS",
        "node host-a1 should have room; it starts when Mesos offers that",
    ),
    (
        a_lost_connection,
        "NOT_CONNECTED",
        "the scheduler is not connected to Mesos; nothing is launched",
    ),
]


def test_every_code_is_tested() -> None:
    others = {"NO_SCHEDULER", "WAITING_FOR_ITS_NODE"}
    assert {code for _, code, _ in CASES} | others == set(WaitCode)


@pytest.mark.parametrize(
    ("make", "code", "message"), CASES, ids=[f"{code} {make.__name__}" for make, code, _ in CASES]
)
def test_each_reason_is_stored_shown_and_filtered_by(
    make: Callable[[Bench], JobExecution], code: str, message: str, scheduler: Bench
) -> None:
    waits = make(scheduler)
    look(scheduler)
    now = scheduler.now()
    found = why(waits, now)
    assert (found.reason.code, found.reason.message) == (code, message)
    assert waits.queued <= found.since <= now
    by_type = why_job_types_wait({waits.job_type_id: waits.queued}, now=now)
    assert by_type == {waits.job_type_id: found}
    assert waits.pk in filtered(code, now)
    others = {pk for other in WaitCode if other != code for pk in filtered(other, now)}
    assert waits.pk not in others


def test_without_a_leader_nothing_else_is_said_of_what_waits(scheduler: Bench) -> None:
    waits = submit()
    look(scheduler)
    last = SchedulerState.objects.get().heartbeat
    assert last is not None
    assert why(waits, last + timedelta(seconds=12)).reason.code == "NO_NODES"
    late = last + timedelta(seconds=12.1)
    assert (
        why(waits, late)
        == why_job_types_wait({waits.job_type_id: NOON}, now=late)[waits.job_type_id]
    )
    found = why(waits, late)
    assert found.reason.code == "NO_SCHEDULER"
    assert found.reason.message == (
        "no scheduler has been at work since 2026-03-04T12:00:00Z; nothing is launched"
    )
    assert found.since == last
    assert filtered("NO_SCHEDULER", late) == {waits.pk}
    assert filtered("NO_NODES", late) == set()


def test_what_is_queued_after_the_leader_fell_silent_waits_for_one_since_then(
    scheduler: Bench,
) -> None:
    later = NOON + timedelta(hours=1)
    assert why(submit(at=later), later).since == later


# --- next phases ----------------------------------------------------------------------------------


def held(scheduler: Bench) -> JobExecution:
    """Let a first phase end beside a task of 1500 MiB; the node offers nothing yet."""
    execution = submit(make_type(THREE_PHASES, mem_required=2000.0))
    task = scheduler.run_to(execution, "running")
    scheduler.run_to(submit(make_type(mem_required=1500.0)), "starting")
    scheduler.tell(task.task_id, TaskState.FINISHED)
    execution.refresh_from_db()
    assert execution.state == "holding"
    return execution


def test_a_next_phase_waits_for_its_node(scheduler: Bench) -> None:
    execution = held(scheduler)
    found = why(execution, scheduler.now())
    assert found.reason.code == "WAITING_FOR_ITS_NODE"
    assert found.reason.message.startswith("its node, host-a1, should have room")
    assert found.since == execution.pre_completed
    Node.objects.update(mem_mib_total=1999)
    message = why(execution, scheduler.now()).reason.message
    assert message == "asks 2000 MiB of memory; its node, host-a1, has 1999 in all"
    Node.objects.update(mem_mib_total=3000)
    message = why(execution, scheduler.now()).reason.message
    assert message == "asks 2000 MiB of memory; its node, host-a1, has 1500 free of 3000"
    Node.objects.update(is_online=False)
    message = why(execution, scheduler.now()).reason.message
    assert message == "its node, host-a1, is not there now"
    assert filtered("WAITING_FOR_ITS_NODE", scheduler.now()) == {execution.pk}
    SchedulerState.objects.update(is_connected=False)
    assert why(execution, scheduler.now()).reason == NOT_CONNECTED
    assert filtered("NOT_CONNECTED", scheduler.now()) == {execution.pk}
    assert filtered("WAITING_FOR_ITS_NODE", scheduler.now()) == set()
    late = scheduler.now() + timedelta(minutes=1)
    assert why(execution, late).reason.code == "NO_SCHEDULER"
    assert filtered("NO_SCHEDULER", late) == {execution.pk}


# --- since when -----------------------------------------------------------------------------------


def test_a_reason_holds_since_its_code_does_whatever_the_numbers(scheduler: Bench) -> None:
    scheduler.offer(mem=50)
    scheduler.machine(mem=50)
    waits = submit()
    look(scheduler)
    first = why(waits, scheduler.now())
    scheduler.elapsed_s += 100
    Node.objects.update(mem_mib_total=70)
    look(scheduler)
    second = why(waits, scheduler.now())
    assert second.reason.message == "asks 100 MiB of memory; the largest node has 70"
    assert second.since == first.since == NOON + timedelta(seconds=EVERY_S)
    change_job_type(waits.job_type_id, {"is_paused": True}, at=scheduler.now())
    look(scheduler)
    assert why(waits, scheduler.now()).since == scheduler.now()


def test_an_execution_waits_no_longer_than_it_is_queued(scheduler: Bench) -> None:
    job_type = make_type()
    first = submit(job_type)
    look(scheduler)
    later = scheduler.now() + timedelta(seconds=7)
    second = submit(job_type, at=later)
    assert why(first, later).since == NOON + timedelta(seconds=EVERY_S)
    assert why(second, later).since == later


def test_what_the_leader_has_not_looked_at_yet_is_told_so(scheduler: Bench) -> None:
    waits = submit()
    found = why(waits, scheduler.now())
    assert found.reason.code == "WAITING_FOR_OFFERS"
    assert found.since == NOON
    assert found == why_job_types_wait({waits.job_type_id: NOON}, now=NOON)[waits.job_type_id]


def test_a_new_leader_keeps_what_was_stored_and_writes_nothing_anew(scheduler: Bench) -> None:
    waits = submit()
    look(scheduler)
    before = WaitingShape.objects.get()
    scheduler.elapsed_s += 30
    scheduler.restart()
    scheduler.loop.round()
    scheduler.subscribe()
    look(scheduler)
    scheduler.gateway.take(Reconciled)
    after = WaitingShape.objects.get()
    assert (after.pk, after.since, after.message) == (before.pk, before.since, before.message)
    cancel_job(waits.job_id, at=scheduler.now())
    look(scheduler)
    assert not WaitingShape.objects.exists(), "it knows what the one before has stored"


# --- what it costs --------------------------------------------------------------------------------


def writes(queries: CaptureQueriesContext) -> list[str]:
    return [
        each["sql"]
        for each in queries.captured_queries
        if "waiting_shape" in each["sql"] and not each["sql"].startswith("SELECT")
    ]


def test_only_what_changed_is_written_and_nothing_while_idle(scheduler: Bench) -> None:
    kept, paused = submit(), submit()
    gone = submit(make_type(cpus_required=2))
    look(scheduler)
    change_job_type(paused.job_type_id, {"is_paused": True}, at=NOON)
    cancel_job(gone.job_id, at=NOON)
    before = WaitingShape.objects.get(job_type=kept.job_type_id)
    with CaptureQueriesContext(connection) as queries:
        look(scheduler)
    insert, delete = sorted(writes(queries), reverse=True)
    assert insert.startswith("INSERT")
    assert insert.count("JOB_TYPE_PAUSED") == 1
    assert "NO_NODES" not in insert
    assert delete.startswith("DELETE")
    assert WaitingShape.objects.get(job_type=kept.job_type_id).since == before.since
    with CaptureQueriesContext(connection) as queries:
        look(scheduler)
        look(scheduler)
    assert writes(queries) == []
    scheduler.round(after_s=EVERY_S)
    with CaptureQueriesContext(connection) as queries:
        pause_s = scheduler.round(after_s=EVERY_S)
    shapes = [each for each in queries.captured_queries if "needs_millicpus" in each["sql"]]
    assert shapes == [], "without news nothing is looked at"
    assert pause_s > EVERY_S


def test_reasons_take_as_many_statements_however_much_waits(scheduler: Bench) -> None:
    def cost(types: int) -> int:
        for _ in range(types):
            submit_many(make_type(max_scheduled=1), 3)
        with CaptureQueriesContext(connection) as queries:
            look(scheduler)
        return len(queries)

    scheduler.machine()
    scheduler.offer(cpus=0.5)
    look(scheduler)
    assert cost(2) == cost(10)
    assert WaitingShape.objects.count() == 12


def test_reasons_are_looked_for_at_most_once_a_second(scheduler: Bench) -> None:
    look(scheduler)
    waits = submit()
    pause_s = scheduler.round(after_s=EVERY_S / 4, hint=True)
    assert not WaitingShape.objects.exists()
    assert pause_s == pytest.approx(0.75 * EVERY_S), "but then without another hint"
    scheduler.round(after_s=pause_s)
    assert why(waits, scheduler.now()).reason.code == "NO_NODES"


def test_reasons_that_take_long_are_looked_for_less_often(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(turn: Turn) -> list[Shape]:
        scheduler.elapsed_s += 0.2
        return waiting_shapes(turn)

    monkeypatch.setattr(explaining, "waiting_shapes", slow)
    look(scheduler)
    submit()
    pause_s = scheduler.round(hint=True)
    assert pause_s == pytest.approx(3.8), "a twentieth of the time"


def test_reasons_come_after_the_cluster_was_told(scheduler: Bench) -> None:
    class Stop(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise Stop

    scheduler.machine()
    scheduler.offer()
    execution = submit()
    explaining_part = scheduler.loop._explaining
    explaining_part.explain = stop  # type: ignore[method-assign]
    with pytest.raises(Stop):
        scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    assert [task.task_id for task in scheduler.launched()] == [f"{execution.uuid}.job.1"]


def test_only_the_leader_writes_reasons(scheduler: Bench) -> None:
    waits = submit()
    look(scheduler)
    change_job_type(waits.job_type_id, {"is_paused": True}, at=NOON)
    SchedulerState.objects.update(epoch=99)
    scheduler.elapsed_s += EVERY_S
    explaining_part = scheduler.loop._explaining
    explaining_part.wanted = True
    with pytest.raises(LeadershipLost, match="epoch 99 has begun"):
        explaining_part.explain(connected=True)
    assert WaitingShape.objects.get().code == "NO_NODES"


# --- when things come and go ----------------------------------------------------------------------


def test_a_node_that_comes_and_one_that_leaves_change_the_reason(scheduler: Bench) -> None:
    waits = submit(make_type(cpus_required=9))
    look(scheduler)
    assert why(waits, scheduler.now()).reason.code == "NO_NODES"
    scheduler.offer()
    scheduler.round(after_s=EVERY_S)
    scheduler.gateway.take(Listed)
    assert why(waits, scheduler.now()).reason.code == "NO_NODE_LARGE_ENOUGH"
    scheduler.gateway.say(AgentLost("a1"))
    scheduler.round(after_s=EVERY_S)
    assert why(waits, scheduler.now()).reason.code == "NO_NODES"
    scheduler.gateway.take(Revived)


def test_a_short_break_of_the_connection_is_no_reason(scheduler: Bench) -> None:
    waits = submit()
    look(scheduler)
    scheduler.gateway.say(Disconnected())
    scheduler.round(after_s=EVERY_S)
    scheduler.round(after_s=CUT_OFF_S - 0.1)
    assert why(waits, scheduler.now()).reason.code == "NO_NODES"
    scheduler.round(after_s=0.1)
    assert why(waits, scheduler.now()).reason.code == "NOT_CONNECTED"
    scheduler.gateway.say(Subscribed("framework-1", "master:5050"))
    scheduler.round(after_s=EVERY_S)
    for kind in (Listed, Reconciled, Revived):
        scheduler.gateway.take(kind)
    assert why(waits, scheduler.now()).reason.code == "NO_NODES"


def test_more_shapes_than_one_look_takes_are_looked_at_in_turns(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "waiting_shapes", lambda turn: waiting_shapes(turn, limit=2))
    waiting = [submit(make_type()) for _ in range(5)]
    scheduler.round(hint=True, after_s=EVERY_S)
    assert WaitingShape.objects.count() == 2
    for _ in range(2):
        assert scheduler.loop._explaining.wanted
        scheduler.round(after_s=EVERY_S)
    assert not scheduler.loop._explaining.wanted, "once around"
    assert WaitingShape.objects.count() == 5
    for each in waiting[1:4]:
        cancel_job(each.job_id, at=NOON)
    scheduler.loop._explaining.wanted = True
    for _ in range(2):
        scheduler.round(after_s=EVERY_S)
    left = set(WaitingShape.objects.values_list("job_type", flat=True))
    assert left == {waiting[0].job_type_id, waiting[4].job_type_id}
    assert not scheduler.loop._explaining.wanted
