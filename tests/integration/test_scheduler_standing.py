"""How the scheduler stands with the master, and with another scheduler."""

import select
import threading
from collections.abc import Iterator

import psycopg2
import pytest
from django.db import connection, transaction
from fake_gateway import Acknowledged, Declined, FakeGateway, Killed, Launched, Listed, Reconciled
from pytest_django import Settings
from scheduled import FRAMEWORK, NOON, Bench, bench, ended_well, make_type, newest, submit

from scale.core.cluster import (
    Agent,
    Deposed,
    Disconnected,
    FrameworkRemoved,
    NotSubscribed,
    Offer,
    OfferRescinded,
    OffersReceived,
    Subscribed,
    TaskRef,
    TaskState,
)
from scale.core.errors import GatewayError, LeadershipLost
from scale.core.resources import Resources
from scale.job.models import JobExecution
from scale.job.services import cancel_job
from scale.node.models import Node
from scale.node.registry import mark_offline
from scale.scheduler.leader import Leadership
from scale.scheduler.loop import CALL_AGAIN_S, SchedulerLoop
from scale.scheduler.models import SchedulerState
from scale.wake import wake_scheduler

pytestmark = pytest.mark.django_db
REAL = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        yield made


def refuse(_call: object) -> None:
    raise GatewayError("connection reset")


def test_the_framework_id_is_stored_at_the_first_subscription_and_used_ever_after(
    scheduler: Bench,
) -> None:
    assert scheduler.gateway.started == [None]
    state = SchedulerState.objects.get()
    assert (state.framework_id, state.master, state.is_connected) == (
        FRAMEWORK,
        "master:5050",
        True,
    )
    scheduler.restart()
    scheduler.subscribe()
    assert scheduler.gateway.started == [FRAMEWORK]


def test_a_master_that_cannot_be_looked_for_ends_the_scheduler_with_one_sentence(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_framework_id: str | None) -> None:
        raise GatewayError("the leading Mesos master cannot be found: no ZooKeeper")

    monkeypatch.setattr(scheduler.gateway, "start", fail)
    with pytest.raises(LeadershipLost, match="cannot be found: no ZooKeeper"):
        scheduler.loop.run()


def test_nothing_is_launched_before_the_subscription(db: None) -> None:
    submit()
    scheduler = Bench()
    scheduler.loop.start()
    scheduler.round(hint=True)
    scheduler.gateway.assert_all_taken()
    scheduler.close()


def test_work_from_before_the_subscription_is_launched_on_the_first_offer(db: None) -> None:
    execution = submit()
    with bench() as scheduler:
        scheduler.offer()
        scheduler.round()
        scheduler.gateway.take(Listed)
        assert [task.task_id for task in scheduler.launched()] == [f"{execution.uuid}.job.1"]


@pytest.mark.parametrize("event", [Disconnected(), Subscribed(FRAMEWORK, "master:5050")])
def test_offers_from_before_a_disconnection_or_subscription_are_void(
    scheduler: Bench, event: Disconnected | Subscribed
) -> None:
    scheduler.machine()
    scheduler.offer()
    scheduler.gateway.say(event)
    submit()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    scheduler.gateway.take(Reconciled)
    assert scheduler.launched() == []
    assert SchedulerState.objects.get().is_connected == isinstance(event, Subscribed)


def test_why_the_master_does_not_take_the_framework_is_stored_until_it_does(
    scheduler: Bench,
) -> None:
    scheduler.gateway.say(NotSubscribed("Role 'x\0' is not present"))
    scheduler.round()
    assert SchedulerState.objects.get().trouble == "Role 'x\ufffd' is not present"
    scheduler.gateway.say(Subscribed(FRAMEWORK, "other:5050"))
    scheduler.round()
    assert SchedulerState.objects.get().trouble == ""
    scheduler.gateway.take(Listed)
    scheduler.gateway.take(Reconciled)


def test_an_offer_that_was_rescinded_is_not_used(scheduler: Bench) -> None:
    first, second = scheduler.offer(), scheduler.offer()
    scheduler.gateway.say(OfferRescinded(first.offer_id), OfferRescinded("never seen"))
    submit()
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    assert [call.offer_ids for call in scheduler.gateway.take(Launched)] == [(second.offer_id,)]


def test_after_a_disconnection_everything_is_asked_about_again(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    scheduler.gateway.say(Disconnected())
    scheduler.round()
    scheduler.gateway.say(Subscribed(FRAMEWORK, "other:5050"))
    scheduler.round(after_s=100)
    scheduler.gateway.take(Listed)
    assert scheduler.gateway.take(Reconciled) == [
        Reconciled(()),
        Reconciled((TaskRef(task.task_id, "a1"),)),
    ]
    assert SchedulerState.objects.get().master == "other:5050"


def test_tasks_that_are_not_heard_of_are_asked_about_less_and_less_often(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    scheduler.restart()
    scheduler.subscribe()
    asked = []
    for second in range(1, 41):
        scheduler.round(after_s=1)
        if scheduler.gateway.take(Reconciled):
            asked.append(second)
    assert asked == [5, 15, 35]
    scheduler.tell(task.task_id, TaskState.RUNNING, uuid=None)
    scheduler.round(after_s=300)
    assert scheduler.gateway.take(Reconciled) == []


def test_everything_is_asked_about_every_quarter_of_an_hour(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(make_type(timeout=0)), "running")
    scheduler.round(after_s=899)
    assert scheduler.gateway.take(Reconciled) == []
    scheduler.round(after_s=1)
    assert scheduler.gateway.take(Reconciled) == [
        Reconciled(()),
        Reconciled((TaskRef(task.task_id, "a1"),)),
    ]


def test_everything_is_asked_about_even_if_the_agents_cannot_be_listed(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    scheduler.restart()
    scheduler.gateway.before[Listed] = refuse
    asked = scheduler.subscribe()
    assert asked == [Reconciled(()), Reconciled((TaskRef(task.task_id, "a1"),))]


def test_a_reconciliation_that_the_master_did_not_take_is_repeated(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    scheduler.restart()
    scheduler.gateway.before[Reconciled] = refuse
    scheduler.subscribe()
    scheduler.gateway.before.clear()
    asked = []
    for _ in range(10):
        scheduler.round(after_s=1)
        asked += scheduler.gateway.take(Reconciled)
    assert Reconciled(()) in asked
    assert Reconciled((TaskRef(task.task_id, "a1"),)) in asked


@pytest.mark.parametrize("call", [Declined, Launched, Acknowledged, Listed])
def test_a_master_that_takes_no_calls_neither_ends_the_scheduler_nor_makes_it_spin(
    scheduler: Bench, call: type
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    scheduler.restart()
    scheduler.subscribe()
    scheduler.gateway.before[call] = refuse
    scheduler.offer("a2")
    submit(make_type(cpus_required=1000))
    submit()
    pauses = [scheduler.round(hint=True)]
    scheduler.tell(task.task_id, TaskState.FINISHED)
    pauses += [scheduler.round(after_s=6), scheduler.round(), scheduler.round()]
    assert min(pauses[1:]) > 0
    for kind in (Declined, Launched, Acknowledged, Listed, Reconciled):
        scheduler.gateway.take(kind)


def test_calls_that_fail_are_not_repeated_without_end(scheduler: Bench) -> None:
    execution = submit()
    scheduler.run_to(execution, "running")
    cancel_job(execution.job_id, at=scheduler.now())
    scheduler.restart()
    scheduler.gateway.before = {Killed: refuse, Reconciled: refuse}
    scheduler.loop.start()
    scheduler.gateway.say(Subscribed(FRAMEWORK, "master:5050"))
    rounds = 0
    while scheduler.elapsed_s < 60:
        pause_s = scheduler.round()
        assert pause_s >= CALL_AGAIN_S
        scheduler.elapsed_s += pause_s
        rounds += 1
    assert rounds <= 61
    assert len(scheduler.killed()) >= 6, "and not given up"
    scheduler.gateway.take(Listed)
    scheduler.gateway.take(Reconciled)


def test_updates_of_a_round_are_stored_although_the_agents_of_its_offers_are_unknown(
    scheduler: Bench,
) -> None:
    task = scheduler.run_to(submit(), "running")
    scheduler.gateway.before = {Listed: refuse, Declined: refuse}
    scheduler.offer("a9")
    scheduler.tell(task.task_id, TaskState.FINISHED)
    assert JobExecution.objects.get().state == "completed"
    scheduler.gateway.take(Listed)
    scheduler.gateway.take(Declined)


def test_a_scheduler_that_was_deposed_stops_and_writes_no_more(scheduler: Bench) -> None:
    scheduler.gateway.say(Deposed("Framework failed over"))
    with pytest.raises(LeadershipLost, match="failed over"):
        scheduler.round()
    assert SchedulerState.objects.get().framework_id == FRAMEWORK


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_framework_that_was_removed_is_forgotten_and_its_work_runs_again(
    scheduler: Bench, state: str
) -> None:
    execution = submit()
    task = scheduler.run_to(execution, state)
    scheduler.gateway.say(FrameworkRemoved("Framework has been removed"))
    with pytest.raises(LeadershipLost, match="has been removed"):
        scheduler.round()
    scheduler.restart()
    scheduler.subscribe("framework-2")
    assert scheduler.gateway.started == [None]
    scheduler.tell(task.task_id, TaskState.GONE, uuid=None, reason="REASON_RECONCILIATION")
    # A new attempt, though it was not seen to run: it may have run to its end.
    again = newest(execution.job)
    assert (again.exe_num, again.state) == (2, "queued")
    execution.refresh_from_db()
    assert (execution.error and execution.error.name) == "scheduler-lost"
    assert SchedulerState.objects.get().framework_id == "framework-2"


def test_what_ended_before_the_framework_was_removed_has_ended(scheduler: Bench) -> None:
    execution = submit()
    task = scheduler.run_to(execution, "running")
    scheduler.gateway.say(*ended_well([task.task_id]), FrameworkRemoved("it has been removed"))
    with pytest.raises(LeadershipLost, match="has been removed"):
        scheduler.round()
    scheduler.gateway.take(Acknowledged)
    assert newest(execution.job).state == "completed", "it must not run again"


def test_a_leader_that_was_replaced_can_neither_write_nor_launch(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    submit()
    SchedulerState.objects.update(epoch=scheduler.leadership.epoch + 1)
    before = list(JobExecution.objects.order_by("id").values())
    scheduler.offer()
    with pytest.raises(LeadershipLost):
        scheduler.round(hint=True)
    with pytest.raises(LeadershipLost):
        scheduler.tell(task.task_id, TaskState.FINISHED)
    with pytest.raises(LeadershipLost):
        scheduler.round(after_s=10_000)
    assert list(JobExecution.objects.order_by("id").values()) == before
    scheduler.gateway.assert_all_taken()


def test_a_leader_that_was_replaced_does_not_touch_the_nodes(scheduler: Bench) -> None:
    SchedulerState.objects.update(epoch=scheduler.leadership.epoch + 1)
    scheduler.offer("a7")
    with pytest.raises(LeadershipLost):
        scheduler.round()
    scheduler.gateway.take(Listed)
    assert not Node.objects.exists()


def test_a_node_that_left_while_no_scheduler_ran_is_not_online(scheduler: Bench) -> None:
    scheduler.machine("a1")
    scheduler.machine("a2")
    scheduler.gateway.say(Subscribed(FRAMEWORK, "master:5050"))
    scheduler.round()
    scheduler.restart()
    scheduler.gateway.machines = [
        each for each in scheduler.gateway.machines if each.agent_id == "a1"
    ]
    scheduler.subscribe()
    assert dict(Node.objects.values_list("slave_id", "is_online")) == {"a1": True, "a2": False}


def test_a_node_that_was_away_at_the_start_is_online_with_its_first_offer(
    scheduler: Bench,
) -> None:
    scheduler.machine("a1")
    scheduler.gateway.say(Subscribed(FRAMEWORK, "master:5050"))
    scheduler.round()
    mark_offline(["a1"])
    scheduler.restart()
    machines, scheduler.gateway.machines = scheduler.gateway.machines, []
    scheduler.subscribe()
    assert not Node.objects.get().is_online
    scheduler.gateway.machines = machines
    scheduler.offer("a1")
    scheduler.round()
    scheduler.gateway.take(Listed)
    assert Node.objects.get().is_online


def test_an_agent_that_the_master_does_not_list_yet_is_known_by_its_offer(
    scheduler: Bench,
) -> None:
    execution = submit()
    scheduler.gateway.before[Listed] = refuse
    scheduler.offer("a3")
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    assert [task.task_id for task in scheduler.launched()] == [f"{execution.uuid}.job.1"]
    assert Node.objects.get().hostname == "host-a3"


# --- two schedulers, and a database that is really shared -----------------------------------------


@REAL
def test_a_standby_waits_for_the_leader_and_then_leads() -> None:
    first = Leadership("first")
    first.acquire(now=NOON)
    epochs: list[int] = []

    def stand_by() -> None:
        second = Leadership("second")
        try:
            second.acquire(now=NOON)
            epochs.append(second.epoch)
        finally:
            second.release()
            connection.close()

    thread = threading.Thread(target=stand_by, daemon=True)
    thread.start()
    try:
        _until_somebody_waits_for_the_lock()
        assert epochs == []
        assert SchedulerState.objects.get().leader == "first"
    finally:
        first.release()
        thread.join(10)
    assert epochs == [first.epoch + 1]
    assert SchedulerState.objects.get().leader == "second"
    with pytest.raises(LeadershipLost), first.fenced():
        pass


def _until_somebody_waits_for_the_lock() -> None:
    deadline = threading.Event()
    for _ in range(500):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            if cursor.fetchone() != (0,):
                return
        deadline.wait(0.01)
    pytest.fail("nobody waits for the lock")


@pytest.fixture
def leadership(transactional_db: None) -> Iterator[Leadership]:
    """Lead in a database with real commits; what leads on would stop the next test for ever."""
    made = Leadership("one")
    made.acquire(now=NOON)
    yield made
    made.release()


@REAL
def test_a_new_leader_waits_for_the_transaction_of_the_old_one(leadership: Leadership) -> None:
    took_over = threading.Event()

    def raise_the_epoch() -> None:
        other = psycopg2.connect(**connection.get_connection_params())
        with other, other.cursor() as cursor:
            cursor.execute("UPDATE scheduler_state SET epoch = epoch + 1")
        took_over.set()
        other.close()

    thread = threading.Thread(target=raise_the_epoch, daemon=True)
    with leadership.fenced():
        thread.start()
        assert not took_over.wait(0.2)
    thread.join(10)
    assert took_over.is_set()
    with pytest.raises(LeadershipLost), leadership.fenced():
        pass


@REAL
def test_a_leader_whose_session_broke_does_not_go_on(leadership: Leadership) -> None:
    assert not leadership.heard()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    # The server's farewell comes first, then the end of the stream.
    with pytest.raises(LeadershipLost):  # noqa: PT012 - one of a few calls
        for _ in range(3):
            assert select.select([leadership], [], [], 5)[0], "it would sleep on"
            leadership.heard()


@REAL
def test_new_work_wakes_a_scheduler_that_sleeps_and_stop_ends_it(
    leadership: Leadership, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SCALE_OFFER_HOLD_S = 60.0
    monkeypatch.setattr("scale.scheduler.means.HEARTBEAT_S", 60.0)
    gateway = FakeGateway()
    loop = SchedulerLoop(gateway, leadership)
    launched = threading.Event()
    gateway.before[Launched] = lambda _call: launched.set()
    total = Resources(8000, 8000, 8000)
    gateway.machines = [Agent("a1", "host-a1", "127.0.0.1", 5051, total)]
    offer = Offer("o1", "a1", "host-a1", "127.0.0.1", 5051, total)
    gateway.say(Subscribed(FRAMEWORK, "master:5050"), OffersReceived((offer,)))

    def run() -> None:
        try:
            loop.run()
        finally:
            connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        submit(at=NOON)
        assert launched.wait(8), "it slept until its next sign of life"
    finally:
        loop.stop()
        thread.join(10)
        gateway.close()
    assert not thread.is_alive()
    assert not gateway.running


@REAL
def test_a_hint_is_heard_once_and_only_after_its_commit(leadership: Leadership) -> None:
    with transaction.atomic():
        wake_scheduler()
        assert not select.select([leadership], [], [], 0.1)[0]
    assert select.select([leadership], [], [], 5)[0]
    assert leadership.heard()
    assert not leadership.heard()
