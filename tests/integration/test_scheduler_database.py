"""PostgreSQL breaks under the scheduler: nothing is half done, and it goes on by itself."""

import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg2
import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection
from fake_gateway import Acknowledged, FakeGateway, Launched, Reconciled
from scheduled import NOON, Bench, bench, history, make_type, newest, submit

from scale.core.cluster import TaskState, TaskUpdate, UpdateReceived
from scale.core.errors import LeadershipLost
from scale.scheduler import launch, placing, updates
from scale.scheduler import leader as leader_module
from scale.scheduler import loop as loop_module
from scale.scheduler.leader import Leadership
from scale.scheduler.loop import SchedulerLoop
from scale.scheduler.models import SchedulerState
from scale.scheduler.patience import TRIES, DatabaseFailed, Patience

GIVEN_DATABASE = os.environ.get("DATABASE_URL")
pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def scheduler(transactional_db: None) -> Iterator[Bench]:
    with bench(leadership=Leadership("one")) as made:
        yield made


def ask(statement: str) -> list[Any]:
    """Ask in a session of its own, as somebody else does."""
    other = psycopg2.connect(**connection.get_connection_params())
    try:
        other.autocommit = True
        with other.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())
    finally:
        other.close()


def cut_all_sessions() -> None:
    ask(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def cut_the_lock() -> None:
    ask(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


def once(happens: Callable[[], None], then: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function: something happens after its first call."""
    calls: list[None] = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = then(*args, **kwargs)
        calls.append(None)
        if len(calls) == 1:
            happens()
        return result

    return wrapped


def place(scheduler: Bench) -> list[str]:
    scheduler.offer()
    scheduler.loop._placing.wanted = True
    scheduler.round()
    scheduler.gateway._calls = [
        call for call in scheduler.gateway._calls if isinstance(call, Launched | Reconciled)
    ]
    return [task.task_id for task in scheduler.launched()]


def test_sessions_that_are_cut_between_rounds_are_opened_again(scheduler: Bench) -> None:
    execution = submit()
    [task_id] = place(scheduler)
    epoch = scheduler.leadership.epoch
    cut_all_sessions()
    scheduler.tell(task_id, TaskState.FINISHED)
    assert newest(execution.job).state == "completed"
    assert scheduler.leadership.epoch == SchedulerState.objects.get().epoch == epoch + 1
    assert SchedulerState.objects.get().is_connected
    assert scheduler.gateway.started == [None], "the subscription goes on"
    assert Reconciled(()) in scheduler.gateway.take(Reconciled)


def test_an_update_is_stored_once_although_the_session_was_cut_before_its_commit(
    scheduler: Bench,
) -> None:
    execution = submit()
    [task_id] = place(scheduler)
    cut = once(cut_all_sessions, lambda _name: None)
    with patch.object(updates, "fail_point", cut):
        scheduler.tell(task_id, TaskState.FINISHED)
    assert history(execution) == ["create", "launch", "finish"]


def test_a_launch_is_planned_again_if_the_session_was_cut_before_its_commit(
    scheduler: Bench,
) -> None:
    execution = submit()
    with patch.object(launch, "_store", once(cut_all_sessions, launch._store)):
        assert place(scheduler) == [f"{execution.uuid}.job.1"]
    assert history(execution) == ["create", "launch"]


def test_a_commit_that_was_not_heard_of_is_cleared_up_by_the_cluster(scheduler: Bench) -> None:
    def fall_silent() -> None:
        raise OperationalError("server closed the connection") from psycopg2.OperationalError()

    execution = submit()
    with patch.object(placing, "decide", once(fall_silent, placing.decide)):
        assert place(scheduler) == []
    scheduler.round()
    assert Reconciled(()) in scheduler.gateway.take(Reconciled)
    task_id = f"{execution.uuid}.job.1"
    scheduler.tell(task_id, TaskState.GONE, uuid=None, reason="REASON_RECONCILIATION")
    assert place(scheduler) == [f"{execution.uuid}.job.2"]


@pytest.mark.skipif(GIVEN_DATABASE is not None, reason="only our own server may be crashed")
def test_a_crash_of_the_server_is_waited_for_and_nothing_is_told_to_the_cluster(
    scheduler: Bench,
) -> None:
    execution = submit()
    [task_id] = place(scheduler)
    with connection.cursor() as cursor:
        cursor.execute("CHECKPOINT")  # this server commits to memory only
    [(pid,)] = ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
    os.kill(pid, signal.SIGKILL)
    scheduler.tell(task_id, TaskState.FINISHED)
    assert history(execution) == ["create", "launch", "finish"]
    scheduler.gateway.take(Reconciled)


@pytest.mark.parametrize(("code", "tries"), [("40001", TRIES), ("40P01", TRIES), ("23514", 1)])
def test_what_lost_against_others_is_tried_again_with_a_bound(
    scheduler: Bench, code: str, tries: int
) -> None:
    counted: list[str] = []

    def lose(name: str) -> None:
        counted.append(name)
        with connection.cursor() as cursor:
            cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$")

    execution = submit()
    [task_id] = place(scheduler)
    update = TaskUpdate(task_id, TaskState.FINISHED, agent_id="a1", uuid="u")
    scheduler.gateway.say(UpdateReceived(update))
    with patch.object(updates, "fail_point", lose), pytest.raises(DatabaseFailed):
        scheduler.loop.run()
    assert len(counted) == tries
    assert history(execution) == ["create", "launch"]
    assert scheduler.gateway.take(Acknowledged) == []


def test_a_database_that_stays_away_ends_the_scheduler_with_one_sentence(
    scheduler: Bench,
) -> None:
    scheduler.loop._means.patience = Patience(away_s=0.2)

    def refuse() -> None:
        raise OperationalError("no route\nto host") from psycopg2.OperationalError()

    with (
        patch.object(SchedulerState.objects, "get", refuse),
        pytest.raises(DatabaseFailed, match="did not come back in time"),
    ):
        scheduler.loop.run()


def test_who_finds_another_leader_after_its_lock_was_lost_does_not_go_on(
    scheduler: Bench,
) -> None:
    cut_the_lock()
    other = Leadership("two")
    try:
        other.acquire(now=NOON)
        with pytest.raises(LeadershipLost, match="has begun"):
            scheduler.round()
    finally:
        other.release()
    assert SchedulerState.objects.get().leader == "two"


# --- leaders that die, and leaders that only stop -------------------------------------------------

LEADER = """
import sys, django
django.setup()
from django.utils import timezone
from scale.core.errors import LeadershipLost
from scale.scheduler.leader import Leadership
leadership = Leadership("stopped")
leadership.acquire(now=timezone.now())
with leadership.fenced():
    print("leads", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def leader(transactional_db: None) -> Iterator[subprocess.Popen[str]]:
    """Another process that leads, in the middle of a transaction."""
    params = connection.get_connection_params()
    where = f"postgresql:///{params['dbname']}?host={params.get('host')}&user={params.get('user')}"
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER],
        env={
            **os.environ,
            "DATABASE_URL": where,
            "SCALE_SECRET_KEY": "only for tests",
            "DJANGO_SETTINGS_MODULE": "scale.settings",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "leads\n"
    yield process
    process.kill()
    process.communicate()


def lead_in_a_thread(
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[threading.Thread, list[int]]:
    epochs: list[int] = []

    def stand_by() -> None:
        second = Leadership("second", monotonic=monotonic)
        try:
            second.acquire(now=NOON)
            epochs.append(second.epoch)
        finally:
            second.release()
            connection.close()

    thread = threading.Thread(target=stand_by, daemon=True)
    thread.start()
    return thread, epochs


OWN_SERVER = pytest.mark.skipif(
    GIVEN_DATABASE is not None, reason="the other process uses our socket"
)


@OWN_SERVER
def test_a_standby_leads_when_the_leader_was_killed(leader: subprocess.Popen[str]) -> None:
    epoch = SchedulerState.objects.get().epoch
    thread, epochs = lead_in_a_thread()
    leader.kill()
    thread.join(10)
    assert epochs == [epoch + 1]


@OWN_SERVER
def test_a_standby_replaces_a_leader_that_was_stopped_in_its_transaction(
    leader: subprocess.Popen[str], settings: Any
) -> None:
    settings.SCALE_LEASE_S = 0.5
    epoch = SchedulerState.objects.get().epoch
    os.kill(leader.pid, signal.SIGSTOP)
    thread, epochs = lead_in_a_thread()
    thread.join(10)
    assert epochs == [epoch + 1]
    os.kill(leader.pid, signal.SIGCONT)
    _out, said = leader.communicate("\n", timeout=10)
    assert leader.returncode == 1, "its commit is refused"
    assert "terminat" in said or "closed" in said


class Clock:
    """A standby's monotonic clock, which tells when the standby has looked at it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._looks = 0

    def __call__(self) -> float:
        self._looks += 1
        return self.now_s

    def until_looked_at(self) -> None:
        """Wait for two looks: the second is of somebody who has read all that was stored by now."""
        wanted = self._looks + 2
        until(lambda: [self] if self._looks >= wanted else [])


def test_a_leader_that_shows_signs_of_life_is_left_alone(scheduler: Bench, settings: Any) -> None:
    settings.SCALE_LEASE_S = 0.2
    clock = Clock()
    thread, epochs = lead_in_a_thread(clock)
    for beat in range(20):
        SchedulerState.objects.update(heartbeat=NOON.replace(second=beat))
        clock.until_looked_at()
        clock.now_s += 0.1
    assert epochs == []
    scheduler.leadership.release()
    thread.join(10)
    assert len(epochs) == 1


def test_the_first_sign_of_life_of_a_leader_is_not_as_old_as_its_wait(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "_LOOK_S", 0.05)
    clock = Clock()
    thread, epochs = lead_in_a_thread(clock)
    clock.until_looked_at()
    clock.now_s = 10.0
    scheduler.leadership.release()
    thread.join(10)
    assert len(epochs) == 1
    assert SchedulerState.objects.get().heartbeat == NOON + timedelta(seconds=10)


def looking_sessions() -> list[int]:
    """Return the sessions of standbys that look for signs of life, ours not."""
    ours = connection.connection.info.backend_pid
    found = ask(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ' AND query LIKE \'SELECT%"heartbeat"%"scheduler_state"%\''
    )
    return [pid for (pid,) in found if pid != ours]


def until(found: Callable[[], list[Any]]) -> list[Any]:
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.02)
    pytest.fail("it did not happen in time")


def test_a_standby_whose_session_is_cut_while_another_waits_for_the_lock_waits_on(
    scheduler: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "_LOOK_S", 0.05)
    thread, epochs = lead_in_a_thread()
    [cut] = until(looking_sessions)
    ask(f"SELECT pg_terminate_backend({cut}, 5000)")
    until(lambda: [pid for pid in looking_sessions() if pid != cut])
    assert epochs == []
    scheduler.leadership.release()
    thread.join(10)
    assert len(epochs) == 1


def test_a_leader_that_slept_between_commit_and_call_tells_the_cluster_nothing(
    transactional_db: None,
) -> None:
    clock = [0.0]
    leadership = Leadership("one", monotonic=lambda: clock[0])
    with bench(leadership=leadership) as scheduler:
        execution = submit(make_type())

        def sleep_on() -> None:
            clock[0] += django_settings.SCALE_LEASE_S + 1
            SchedulerState.objects.update(epoch=leadership.epoch + 1)

        with (
            patch.object(placing, "decide", once(sleep_on, placing.decide)),
            pytest.raises(LeadershipLost),
        ):
            place(scheduler)
        assert scheduler.launched() == []
        assert newest(execution.job).state == "starting", "the next leader clears it up"
        scheduler.gateway._calls.clear()


def open_pipes() -> int:
    gc.collect()
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            count += each.readlink().name.startswith("pipe:")
    return count


def test_a_scheduler_that_is_gone_leaves_no_descriptor_behind(transactional_db: None) -> None:
    before = open_pipes()
    for _ in range(2):
        with bench(leadership=Leadership("one")) as made:
            made.restart()
            made.subscribe()
        del made
    assert open_pipes() <= before


def test_a_leader_may_have_more_than_1024_descriptors(transactional_db: None) -> None:
    low = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if low < 1200:
        pytest.skip("this machine allows no such descriptor")
    taken = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
    try:
        while taken[-1] < 1100:
            taken.append(os.dup(taken[0]))
        leadership = Leadership("one")
        try:
            assert leadership.fileno() > 1023
            leadership.acquire(now=NOON)
            assert not leadership.heard()
        finally:
            leadership.release()
    finally:
        for each in taken:
            os.close(each)


def test_a_leader_that_slept_between_commit_and_acknowledgement_acknowledges_nothing(
    transactional_db: None,
) -> None:
    clock = [0.0]
    leadership = Leadership("one", monotonic=lambda: clock[0])
    with bench(leadership=leadership) as scheduler:
        execution = submit()
        [task_id] = place(scheduler)
        update = TaskUpdate(task_id, TaskState.FINISHED, agent_id="a1", uuid="u")
        stray = TaskUpdate("stray", TaskState.RUNNING, agent_id="a1", uuid="v")

        def sleep_on() -> None:
            clock[0] += django_settings.SCALE_LEASE_S + 1
            SchedulerState.objects.update(epoch=leadership.epoch + 1)

        scheduler.gateway.say(UpdateReceived(update), UpdateReceived(stray))
        with (
            patch.object(loop_module, "apply_updates", once(sleep_on, loop_module.apply_updates)),
            pytest.raises(LeadershipLost),
        ):
            scheduler.round()
        assert scheduler.gateway.take(Acknowledged) == []
        assert scheduler.killed() == []
        assert newest(execution.job).state == "completed", "the next leader is told again"


def test_stop_ends_the_wait_for_a_database(transactional_db: None) -> None:
    leadership = Leadership("one")
    leadership.acquire(now=NOON)
    gateway = FakeGateway()
    loop = SchedulerLoop(gateway, leadership)

    def refuse() -> None:
        loop.stop()
        raise OperationalError("away") from psycopg2.OperationalError()

    try:
        with patch.object(SchedulerState.objects, "get", refuse):
            loop.run()
        assert not gateway.running
    finally:
        leadership.release()
        gateway.close()
