"""The only writer of states: what each event does to an execution, its job and its history."""

import itertools
import select
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg2
import pytest
from django.db import DataError, close_old_connections, connection, transaction
from django.forms.models import model_to_dict
from scheduled import NOON, THREE_PHASES, history, make_type, newest, statements, submit

from scale.core.errors import IllegalTransition, NotAllowedNow
from scale.core.lifecycle import MOVES, Event, Phase, State
from scale.core.resources import Resources
from scale.error.models import Error
from scale.job.bulk import update_rows
from scale.job.models import ExecutionEvent, Job, JobExecution
from scale.job.services import (
    Move,
    Placed,
    cancel_job,
    cancel_jobs,
    lock_executions,
    move_executions,
    requeue_job,
    stop_executions,
)
from scale.node.models import Node
from scale.wake import WORK_CHANNEL

pytestmark = pytest.mark.django_db
REAL = pytest.mark.django_db(transaction=True, serialized_rollback=True)
LATER = NOON + timedelta(minutes=1)
EVERY_PAIR = list(itertools.product(State, Event))


def node(agent_id: str = "a1") -> Node:
    made, _created = Node.objects.get_or_create(
        slave_id=agent_id, defaults={"hostname": agent_id, "port": 1, "address": "127.0.0.1"}
    )
    return made


def launch_of(execution: JobExecution) -> Move:
    task_id = f"{execution.uuid}.{execution.phase}.{execution.launches + 1}"
    placed = Placed(node().pk, "a1", "f", task_id, Resources(1000, 100, 10), "-x", {"A": "b"})
    return Move(execution.pk, Event.LAUNCH, deadline=LATER, placed=placed)


def move_of(execution: JobExecution, event: Event, **rest: Any) -> Move:
    if event is Event.LAUNCH:
        return launch_of(execution)
    named = rest.pop("error", "node-lost")
    error = named if event is Event.FAIL else None
    return Move(execution.pk, event, error=error, **rest)


def moved(execution: JobExecution, *events: Event, **rest: Any) -> JobExecution:
    """Let events happen one after the other; return the execution as it is stored then."""
    for event in events:
        current = JobExecution.objects.get(pk=execution.pk)
        move_executions([move_of(current, event, **rest)], at=NOON)
    return JobExecution.objects.select_related("job", "error").get(pk=execution.pk)


PATHS: dict[State, tuple[Event, ...]] = {
    State.QUEUED: (),
    State.STARTING: (Event.LAUNCH,),
    State.RUNNING: (Event.LAUNCH, Event.START),
    State.HOLDING: (Event.LAUNCH, Event.START, Event.HOLD),
    State.COMPLETED: (Event.LAUNCH, Event.START, Event.FINISH),
    State.FAILED: (Event.LAUNCH, Event.FAIL),
    State.CANCELED: (Event.CANCEL,),
}


def at_state(state: State, **fields: Any) -> JobExecution:
    return moved(submit(make_type(THREE_PHASES, **fields)), *PATHS[state])


@pytest.mark.parametrize(("state", "event"), EVERY_PAIR)
def test_a_move_is_stored_whole_or_refused_whole(state: State, event: Event) -> None:
    execution = at_state(state, max_tries=1)
    if (state, event) == (State.STARTING, Event.BOUNCE_TO_HOLD):  # never of the first phase
        execution = moved(at_state(State.HOLDING, max_tries=1), Event.LAUNCH)
    job, before = execution.job, len(history(execution))
    if (state, event) not in MOVES:
        with pytest.raises(IllegalTransition):
            move_executions([move_of(execution, event)], at=LATER)
        again = JobExecution.objects.get(pk=execution.pk)
        assert model_to_dict(again) == model_to_dict(execution)
        assert len(history(execution)) == before
        assert model_to_dict(Job.objects.get(pk=job.pk)) == model_to_dict(job)
        return
    [returned] = move_executions([move_of(execution, event, message="so it was")], at=LATER)
    stored = JobExecution.objects.get(pk=execution.pk)
    assert stored.state == returned.state == MOVES[state, event]
    assert stored.last_modified == LATER
    entry = ExecutionEvent.objects.filter(execution=execution).latest("id")
    assert (entry.event, entry.state, entry.at) == (event, stored.state, LATER)
    assert entry.phase == execution.phase, "the phase in which it happened"
    assert model_to_dict(stored) == model_to_dict(returned), "what is returned is what is stored"


def test_an_illegal_move_of_one_writes_nothing_of_the_others() -> None:
    good, bad = submit(), at_state(State.COMPLETED)
    before = ExecutionEvent.objects.count()
    with pytest.raises(IllegalTransition):
        move_executions([launch_of(good), move_of(bad, Event.START)], at=LATER)
    good.refresh_from_db()
    assert (good.state, good.job.status) == ("queued", "QUEUED")
    assert ExecutionEvent.objects.count() == before


def test_a_launch_stores_where_and_as_what() -> None:
    execution = submit()
    move_executions([launch_of(execution)], at=LATER)
    execution.refresh_from_db()
    assert (execution.node_id, execution.agent_id, execution.launches) == (node().pk, "a1", 1)
    assert execution.task_id == execution.job_task_id == f"{execution.uuid}.job.1"
    assert (execution.started, execution.deadline) == (LATER, LATER)
    assert (execution.command_arguments, execution.environment) == ("-x", {"A": "b"})
    assert (execution.cpus_scheduled, execution.mem_scheduled) == (1.0, 100.0)
    assert execution.disk_total_scheduled == 10.0
    assert (execution.job.status, execution.job.started) == ("RUNNING", LATER)
    assert execution.job.last_status_change == LATER


def test_a_bounce_makes_everything_as_it_was_before_the_launch() -> None:
    execution = submit(make_type(THREE_PHASES))
    before = model_to_dict(execution)
    after = moved(execution, Event.LAUNCH, Event.BOUNCE)
    changed = {key for key, value in model_to_dict(after).items() if value != before[key]}
    # Of the launch that reached nobody there remain its number, and what it would have been.
    assert changed <= {"launches", "last_modified", "command_arguments", "environment"}
    assert after.launches == 1
    job = Job.objects.get(pk=execution.job_id)
    assert (job.status, job.started, job.num_exes) == ("QUEUED", None, 1)


def test_a_bounce_to_hold_keeps_the_node_and_the_phase() -> None:
    execution = at_state(State.HOLDING)
    after = moved(execution, Event.LAUNCH, Event.BOUNCE_TO_HOLD)
    assert (after.state, after.phase, after.task_id, after.agent_id) == (
        "holding",
        "job",
        "",
        "a1",
    )
    assert after.job.status == "RUNNING"


def test_the_phases_follow_each_other_and_each_has_its_times_and_code() -> None:
    execution = submit(make_type(THREE_PHASES))
    minute = itertools.count(1)
    for phase in Phase:
        end = Event.FINISH if phase is Phase.POST else Event.HOLD
        for event in (Event.LAUNCH, Event.START, end):
            current = JobExecution.objects.get(pk=execution.pk)
            assert current.phase == phase
            code = 0 if event is end else None
            at = NOON + timedelta(minutes=next(minute))
            move_executions([move_of(current, event, exit_code=code)], at=at)
    done = JobExecution.objects.get(pk=execution.pk)
    times = [
        getattr(done, f"{phase}_{what}") for phase in Phase for what in ("started", "completed")
    ]
    assert times == [NOON + timedelta(minutes=number) for number in (2, 3, 5, 6, 8, 9)]
    assert [done.pre_exit_code, done.job_exit_code, done.post_exit_code] == [0, 0, 0]
    assert (done.logs_owed, done.cleanup_owed, done.task_id, done.deadline) == (
        True,
        False,
        "",
        None,
    )


def test_the_results_of_an_execution_become_those_of_its_job() -> None:
    execution = at_state(State.RUNNING)
    JobExecution.objects.filter(pk=execution.pk).update(results={"version": "1.0"})
    done = moved(execution, Event.FINISH)
    assert (done.job.status, done.job.results, done.job.ended) == (
        "COMPLETED",
        {"version": "1.0"},
        NOON,
    )


@pytest.mark.parametrize(
    ("error", "max_tries", "attempts"),
    [("node-lost", 3, 3), ("node-lost", 1, 1), ("timeout", 3, 1), ("unknown", 2, 2)],
)
def test_an_error_is_retried_as_the_catalogue_and_max_tries_say(
    error: str, max_tries: int, attempts: int
) -> None:
    execution = submit(make_type(THREE_PHASES, max_tries=max_tries))
    for number in range(1, attempts + 1):
        current = newest(execution.job)
        assert (current.exe_num, current.state) == (number, "queued")
        failed = moved(current, Event.LAUNCH, Event.START, Event.FAIL, error=error, exit_code=3)
        assert (failed.error.name, failed.pre_exit_code) == (error, 3)
        assert (failed.cleanup_owed, failed.logs_owed) == (True, True)
    job = Job.objects.get(pk=execution.job_id)
    assert (job.status, job.error.name, job.num_exes) == ("FAILED", error, attempts)
    assert JobExecution.objects.filter(job=job).count() == attempts


def test_a_retry_asks_for_the_same_and_waits_anew() -> None:
    execution = submit(make_type(THREE_PHASES, priority=3, timeout=44))
    move_executions([launch_of(execution)], at=NOON)
    move_executions([Move(execution.pk, Event.FAIL, error="node-lost")], at=LATER)
    again = newest(execution.job)
    same = ["job_type_id", "has_steps", "priority", "timeout", "needs_millicpus", "needs_mem_mib"]
    assert [getattr(again, name) for name in same] == [getattr(execution, name) for name in same]
    assert (again.queued, again.phase, again.uuid != execution.uuid) == (LATER, "pre", True)
    assert (again.job.status, again.job.error, again.job.ended) == ("QUEUED", None, None)
    assert history(again) == ["create"]


def test_what_the_steps_said_of_a_failure_is_kept() -> None:
    execution = at_state(State.RUNNING)
    JobExecution.objects.filter(pk=execution.pk).update(error_message="no such host: x")
    failed = moved(execution, Event.FAIL, error="pull", message="exited with status 10")
    assert failed.error_message == "no such host: x"


def test_a_canceled_job_is_not_retried_and_stays_canceled() -> None:
    execution = at_state(State.RUNNING)
    cancel_job(execution.job_id, at=LATER)
    failed = moved(execution, Event.FAIL)
    assert failed.job.status == "CANCELED"
    assert newest(failed.job).pk == execution.pk


@pytest.mark.parametrize("state", [State.QUEUED, State.HOLDING])
def test_what_has_no_task_is_canceled_at_once(state: State) -> None:
    execution = at_state(state)
    job = cancel_job(execution.job_id, at=LATER)
    execution.refresh_from_db()
    assert (execution.state, execution.ended, job.status, job.ended) == (
        "canceled",
        LATER,
        "CANCELED",
        LATER,
    )
    assert execution.cleanup_owed == (state is State.HOLDING)
    assert not execution.logs_owed or state is State.HOLDING


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING])
def test_what_has_a_task_is_stopped_and_its_job_canceled_at_once(state: State) -> None:
    execution = at_state(state)
    before = history(execution)
    cancel_job(execution.job_id, at=LATER)
    execution.refresh_from_db()
    assert (execution.state, execution.stopping_since, execution.stopping_error) == (
        state,
        LATER,
        None,
    )
    assert execution.deadline is None
    assert history(execution) == before
    assert Job.objects.get(pk=execution.job_id).status == "CANCELED"


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELED])
def test_what_has_ended_cannot_be_canceled(state: State) -> None:
    execution = at_state(state, max_tries=1)
    with pytest.raises(NotAllowedNow, match="cannot be canceled"):
        cancel_job(execution.job_id, at=LATER)
    with pytest.raises(Job.DoesNotExist):
        cancel_job(0, at=LATER)


def test_a_cancel_overrides_a_time_out_and_never_the_other_way_round() -> None:
    execution = at_state(State.RUNNING)
    timeout = Error.objects.get(name="timeout")
    stop_executions(lock_executions(ids=[execution.pk]).values(), error=timeout, at=NOON)
    cancel_job(execution.job_id, at=LATER)
    stop_executions(lock_executions(ids=[execution.pk]).values(), error=timeout, at=LATER)
    execution.refresh_from_db()
    assert (execution.stopping_since, execution.stopping_error) == (NOON, None)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED])
def test_a_job_that_failed_or_was_canceled_gets_one_more_attempt(state: State) -> None:
    execution = at_state(state, max_tries=1)
    job = requeue_job(execution.job_id, at=LATER, priority=1)
    again = newest(job)
    assert (again.exe_num, again.priority, again.queued) == (2, 1, LATER)
    stored = Job.objects.get(pk=job.pk)
    assert (stored.status, stored.max_tries, stored.num_exes, stored.priority) == (
        "QUEUED",
        2,
        2,
        1,
    )
    assert (stored.error, stored.ended) == (None, None)


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.HOLDING, State.COMPLETED])
def test_no_other_job_is_requeued(state: State) -> None:
    execution = at_state(state)
    with pytest.raises(NotAllowedNow, match="only FAILED and CANCELED"):
        requeue_job(execution.job_id, at=LATER)


def test_many_moves_take_as_many_statements_as_one() -> None:
    def cost(number: int, event: Event) -> int:
        executions = [submit(make_type(THREE_PHASES)) for _ in range(number)]
        for earlier in PATHS[State.RUNNING]:
            for execution in executions:
                moved(execution, earlier)
        with statements() as sent:
            move_executions([move_of(each, event) for each in executions], at=LATER)
        return sent.count

    for event in (Event.HOLD, Event.FAIL, Event.CANCEL):
        assert cost(1, event) == cost(6, event)


def test_a_bulk_update_refuses_what_the_column_cannot_hold_and_cuts_nothing() -> None:
    execution = submit()
    execution.agent_id = "x" * 256
    with pytest.raises(DataError), transaction.atomic():
        update_rows([execution], ["agent_id"])


def test_a_bulk_update_stores_nulls_documents_and_times_as_they_are() -> None:
    first, second = submit(), submit()
    first.environment, first.started, first.error_message = {"a": [1, None]}, NOON, "'%s"
    second.environment, second.started, second.error_message = {}, None, ""
    update_rows([first, second], ["environment", "started", "error_message"])
    for execution in (first, second):
        stored = JobExecution.objects.get(pk=execution.pk)
        for name in ("environment", "started", "error_message"):
            assert getattr(stored, name) == getattr(execution, name)
    update_rows([], ["started"])


# --- races ----------------------------------------------------------------------------------------


def race(*acts: Callable[[], object]) -> list[str]:
    """Do these at the same time, each on a connection of its own; return what came of each."""
    together = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> str:
        try:
            together.wait(10)
            act()
        except (IllegalTransition, NotAllowedNow):
            return "refused"
        finally:
            connection.close()
        return "done"

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


@REAL
@pytest.mark.parametrize("events", [(Event.FINISH, Event.FAIL), (Event.FAIL, Event.FAIL)])
def test_only_one_of_two_endings_wins(events: tuple[Event, Event]) -> None:
    for _ in range(5):
        execution = at_state(State.RUNNING)
        moves = [[move_of(execution, event)] for event in events]
        results = race(*[partial(move_executions, move, at=LATER) for move in moves])
        assert sorted(results) == ["done", "refused"]
        attempts = JobExecution.objects.filter(job=execution.job_id).count()
        assert attempts == (2 if execution.history.filter(event="fail").exists() else 1)


@REAL
def test_a_cancel_that_races_with_a_failing_retry_leaves_nothing_alive() -> None:
    for _ in range(8):
        execution = at_state(State.RUNNING)
        results = race(
            partial(cancel_job, execution.job_id, at=LATER),
            partial(move_executions, [move_of(execution, Event.FAIL)], at=LATER),
        )
        assert results == ["done", "done"]
        job = Job.objects.get(pk=execution.job_id)
        assert job.status == "CANCELED"
        assert {each.state for each in job.executions.all()} <= {"failed", "canceled"}


@REAL
def test_two_cancels_and_two_requeues_do_it_once() -> None:
    for _ in range(5):
        execution = submit()
        for act in (cancel_job, requeue_job):
            acts = [partial(act, execution.job_id, at=LATER)] * 2
            assert sorted(race(*acts)) == ["done", "refused"]
        assert newest(execution.job).exe_num == 2


def locks_nothing_else(act: Callable[[], object], *, held_job: int, free: str) -> None:
    """Do this while a job is held by another: meanwhile it must not have locked this row."""
    holder = psycopg2.connect(**connection.get_connection_params())
    prober = psycopg2.connect(**connection.get_connection_params())
    prober.autocommit = True
    with holder.cursor() as cursor:
        cursor.execute("SELECT FROM job WHERE id = %s FOR UPDATE", [held_job])

    def run() -> None:
        try:
            act()
        finally:
            connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with prober.cursor() as cursor:
            for _ in range(500):
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND datname = current_database()"
                )
                if cursor.fetchone() != (0,):
                    break
                threading.Event().wait(0.01)
            else:
                pytest.fail("it waits for nothing")
            cursor.execute(f"SELECT FROM {free} FOR UPDATE NOWAIT")
    finally:
        holder.rollback()
        thread.join(10)
        holder.close()
        prober.close()
        close_old_connections()


@REAL
def test_the_job_is_locked_before_the_execution_so_that_nobody_waits_in_a_circle() -> None:
    execution = at_state(State.RUNNING)
    locks_nothing_else(
        lambda: move_executions([move_of(execution, Event.FAIL)], at=LATER),
        held_job=execution.job_id,
        free=f"job_execution WHERE id = {execution.pk}",
    )
    assert JobExecution.objects.get(pk=execution.pk).state == "failed"


@REAL
def test_jobs_are_locked_in_their_own_order_whatever_that_of_their_executions() -> None:
    first, second = at_state(State.RUNNING), at_state(State.RUNNING)
    move_executions([move_of(first, Event.FAIL)], at=LATER)
    retry = newest(first.job)
    assert (first.job_id < second.job_id, retry.pk > second.pk) == (True, True)
    moves = [Move(pk, Event.CANCEL) for pk in (second.pk, retry.pk)]
    locks_nothing_else(
        lambda: move_executions(moves, at=LATER),
        held_job=first.job_id,
        free=f"job WHERE id = {second.job_id}",
    )
    assert JobExecution.objects.filter(state="canceled").count() == 2


@REAL
def test_many_jobs_are_canceled_in_their_order_wherever_they_lie() -> None:
    first, second = submit().job, submit().job
    Job.objects.filter(pk=first.pk).update(name="written anew, so that it lies behind the other")

    def cancel() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")
            cancel_jobs([second.pk, first.pk], at=LATER)

    locks_nothing_else(cancel, held_job=first.pk, free=f"job WHERE id = {second.pk}")
    assert Job.objects.filter(status="CANCELED").count() == 2


@REAL
@pytest.mark.parametrize(
    ("state", "act"), [(State.RUNNING, cancel_job), (State.CANCELED, requeue_job)]
)
def test_the_scheduler_hears_of_it_at_once(state: State, act: Callable[..., object]) -> None:
    execution = at_state(state)
    with closing(psycopg2.connect(**connection.get_connection_params())) as listener:
        listener.autocommit = True
        with listener.cursor() as cursor:
            cursor.execute(f"LISTEN {WORK_CHANNEL}")
        act(execution.job_id, at=LATER)
        assert select.select([listener], [], [], 10)[0]
        listener.poll()
        assert [each.channel for each in listener.notifies] == [WORK_CHANNEL]
