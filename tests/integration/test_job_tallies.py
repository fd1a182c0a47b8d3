"""Kept counts are right whatever writes, and folding them changes no count.

After each of these tests, as after all others, every count is compared with the rows (conftest).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from threading import Barrier
from typing import Any

import psycopg2
import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone

from scale.core.lifecycle import State
from scale.job import tallies
from scale.job.models import ExecutionEvent, Job, JobExecution
from scale.job.services import cancel_job, requeue_job
from scale.job.tallies import (
    Scope,
    Tally,
    correct_tallies,
    differences,
    executions_by_error,
    executions_by_job_type,
    executions_by_status,
    fold,
    hour_at,
    jobs_by_job_type,
    total,
    whole_hours,
)
from scale.job.tasks import check_tallies, fold_tallies

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Make = Callable[..., Any]


@contextmanager
def another_session() -> Iterator[Any]:
    """A connection of its own to the same database."""
    parameters = connection.get_connection_params()
    parameters.pop("cursor_factory", None)
    parameters.pop("context", None)
    session = psycopg2.connect(**parameters)
    try:
        yield session
    finally:
        session.close()


def test_counts_follow_what_happens_to_executions(
    make_execution: Make, make_job_type: Make, make_node: Make
) -> None:
    job_type, node = make_job_type(), make_node()
    for state in (State.QUEUED, State.RUNNING, State.FAILED, State.COMPLETED, State.COMPLETED):
        made = make_execution(state, job_type=job_type, node=node)
    other = make_execution(State.CANCELED)
    wanted = {"QUEUED": 1, "RUNNING": 1, "FAILED": 1, "COMPLETED": 2}
    assert executions_by_status() == {**wanted, "CANCELED": 1}
    assert executions_by_job_type() == {job_type.pk: wanted, other.job_type_id: {"CANCELED": 1}}
    assert jobs_by_job_type() == executions_by_job_type()
    failed = JobExecution.objects.get(status="FAILED")
    assert failed.error_id is not None
    assert executions_by_error() == {failed.error_id: 1}
    assert total(Scope.EXECUTION_NODE, keys=[node.pk]) == 4
    assert total(Scope.EXECUTION_NODE, keys=[node.pk], statuses=["COMPLETED", "FAILED"]) == 3
    assert total(Scope.EXECUTION_NODE, keys=[]) == 0
    requeue_job(failed.job_id, at=timezone.now())
    cancel_job(failed.job_id, at=timezone.now())
    assert executions_by_job_type()[job_type.pk] == {**wanted, "CANCELED": 1}
    assert jobs_by_job_type()[job_type.pk]["CANCELED"] == 1
    assert made.pk


def test_each_count_is_one_query_whatever_there_is(
    make_execution: Make, django_assert_num_queries: Callable[..., Any]
) -> None:
    make_execution(State.FAILED)
    for ask in (executions_by_status, executions_by_job_type, jobs_by_job_type):
        with django_assert_num_queries(1):
            ask()
    with django_assert_num_queries(1):
        executions_by_error()


def test_a_statement_that_changes_no_status_node_or_error_appends_nothing(
    make_execution: Make,
) -> None:
    for _ in range(3):
        make_execution(State.RUNNING)
    before = Tally.objects.count()
    JobExecution.objects.update(deadline=timezone.now(), launches=7)
    Job.objects.update(priority=3)
    JobExecution.objects.filter(pk=-1).update(launches=8)
    assert Tally.objects.count() == before


def test_a_move_to_another_node_moves_a_count(make_execution: Make, make_node: Make) -> None:
    first, second = make_node(), make_node()
    execution = make_execution(State.RUNNING, node=first)
    JobExecution.objects.filter(pk=execution.pk).update(node=second)
    assert total(Scope.EXECUTION_NODE, keys=[first.pk]) == 0
    assert total(Scope.EXECUTION_NODE, keys=[second.pk]) == 1


def test_what_is_copied_and_deleted_is_counted(make_execution: Make) -> None:
    execution = make_execution(State.COMPLETED)
    columns = ", ".join(
        f'"{field.column}"' for field in Job._meta.concrete_fields if field.column != "id"
    )
    lines = StringIO()
    with connection.cursor() as cursor:
        read = f"COPY (SELECT {columns} FROM job WHERE id = {execution.job_id}) TO STDOUT"
        cursor.cursor.copy_expert(read, lines)
        cursor.cursor.copy_expert(
            f"COPY job ({columns}) FROM STDIN", StringIO(lines.getvalue() * 3)
        )
    assert jobs_by_job_type() == {execution.job_type_id: {"COMPLETED": 4}}
    Job.objects.exclude(pk=execution.job_id).delete()
    assert jobs_by_job_type() == {execution.job_type_id: {"COMPLETED": 1}}
    ExecutionEvent.objects.all().delete()
    JobExecution.objects.all().delete()
    assert executions_by_status() == {}


def test_tables_that_are_emptied_at_once_are_counted(make_execution: Make) -> None:
    make_execution(State.QUEUED)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("TRUNCATE job_execution CASCADE")
    assert executions_by_status() == {}
    assert sum(jobs_by_job_type().popitem()[1].values()) == 1


def test_what_is_rolled_back_was_never_counted(make_execution: Make) -> None:
    execution = make_execution(State.RUNNING)
    with transaction.atomic():
        JobExecution.objects.filter(pk=execution.pk).update(node=None, state="queued")
        assert executions_by_status() == {"QUEUED": 1}
        transaction.set_rollback(True)
    assert executions_by_status() == {"RUNNING": 1}


@pytest.mark.django_db(transaction=True)
def test_writers_do_not_wait_for_each_other_and_see_what_is_committed(
    make_job_type: Make, make_job: Make
) -> None:
    job_type = make_job_type()
    jobs = [make_job(job_type) for _ in range(3)]
    change = "UPDATE job SET priority = priority, status = 'BLOCKED' WHERE id = %s"
    with another_session() as one, another_session() as two:
        with one.cursor() as cursor:
            cursor.execute(change, [jobs[0].pk])
        with two.cursor() as cursor:
            # It would wait here for ever if both changed the same count.
            cursor.execute("SET statement_timeout = '5s'")
            cursor.execute(change, [jobs[1].pk])
            two.commit()
        assert jobs_by_job_type()[job_type.pk] == {"QUEUED": 2, "BLOCKED": 1}
        assert fold(1000) > 0
        one.rollback()
        assert jobs_by_job_type()[job_type.pk] == {"QUEUED": 2, "BLOCKED": 1}
    Job.objects.filter(status="BLOCKED").update(status="QUEUED")


def kept() -> dict[tuple[int, int, str], int]:
    found: dict[tuple[int, int, str], int] = {}
    for row in Tally.objects.all():
        key = (row.scope, row.key, row.status)
        found[key] = found.get(key, 0) + row.count
    return {key: count for key, count in found.items() if count}


def test_folding_keeps_the_counts_and_leaves_one_row_for_each(make_execution: Make) -> None:
    for state in (State.QUEUED, State.FAILED, State.COMPLETED, State.RUNNING):
        make_execution(state)
    before = kept()
    assert fold(5) == 5
    assert kept() == before
    assert fold(100_000) > 0
    assert fold(100_000) == 0
    assert kept() == before
    assert Tally.objects.count() == len(before)
    assert set(Tally.objects.values_list("is_sum", flat=True)) == {True}
    make_execution(State.FAILED)
    fold_tallies()
    assert fold(100_000) == 0
    assert differences() == []


@pytest.mark.django_db(transaction=True)
def test_a_fold_that_is_killed_has_not_happened(make_execution: Make) -> None:
    make_execution(State.FAILED)
    before, rows = kept(), Tally.objects.count()
    with another_session() as session:
        with session.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            [backend] = cursor.fetchone()
            cursor.execute("DELETE FROM tally")  # what a fold has done half-way
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [backend])
    assert (kept(), Tally.objects.count()) == (before, rows)


@pytest.mark.django_db(transaction=True)
def test_a_fold_leaves_alone_what_another_one_holds(make_execution: Make) -> None:
    make_execution(State.FAILED)
    assert fold(3) == 3
    before = kept()
    with another_session() as session:
        with session.cursor() as cursor:
            cursor.execute("SELECT id FROM tally WHERE is_sum OR id % 2 = 0 FOR UPDATE")
        assert fold(1000) > 0  # and does not wait
        session.rollback()
    assert kept() == before
    fold(1000)
    assert kept() == before
    assert differences() == []


@pytest.mark.django_db(transaction=True)
def test_a_table_that_is_emptied_while_a_fold_is_at_work_is_counted(make_execution: Make) -> None:
    make_execution(State.COMPLETED)
    with another_session() as session:
        with session.cursor() as cursor:
            cursor.execute(tallies._FOLD, [1000])

        def empty() -> None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("TRUNCATE job_execution CASCADE")
            finally:
                connection.close()

        with ThreadPoolExecutor(1) as pool:
            emptied = pool.submit(empty)
            wait([emptied], 10)  # it need not wait for the fold
            session.commit()
            emptied.result(10)
    assert executions_by_status() == {}
    assert sum(jobs_by_job_type().popitem()[1].values()) == 1


@pytest.mark.django_db(transaction=True)
def test_counts_are_right_when_many_write_fold_and_correct_at_a_time(
    make_job_type: Make, make_job: Make
) -> None:
    job_type = make_job_type()
    pks = [make_job(job_type).pk for _ in range(8)]
    together = Barrier(4)

    def work(number: int) -> None:
        try:
            together.wait(10)
            for turn in range(12):
                if number == 3:
                    fold(7)
                    if turn % 4 == 0:
                        assert correct_tallies() == []
                else:
                    status = "BLOCKED" if turn % 2 == 0 else "QUEUED"
                    Job.objects.filter(pk__in=pks[number::3]).update(status=status)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert differences() == []
    assert jobs_by_job_type() == {job_type.pk: {"QUEUED": 8}}


def test_a_check_corrects_what_is_wrong_and_says_so(
    make_execution: Make, caplog: pytest.LogCaptureFixture
) -> None:
    execution = make_execution(State.FAILED)
    Tally.objects.filter(scope=Scope.JOB_ERROR).delete()
    Tally.objects.create(scope=Scope.EXECUTION_NODE, key=77, status="RUNNING", count=5)
    wrong = {(each.scope, each.key, each.kept, each.true) for each in differences()}
    assert wrong == {
        (Scope.JOB_ERROR, execution.error_id, 0, 1),
        (Scope.EXECUTION_NODE, 77, 5, 0),
    }
    said = StringIO()
    call_command("check_tallies", stdout=said)
    assert "2 of the kept counts were wrong" in said.getvalue()
    assert "Execution Node 77 RUNNING: 5, should be 0" in said.getvalue()
    assert differences() == []
    said = StringIO()
    call_command("check_tallies", stdout=said)
    assert said.getvalue() == "All right.\n"
    check_tallies()
    assert caplog.records == []
    Tally.objects.create(scope=Scope.EXECUTION_NODE, key=78, status="RUNNING", count=-1)
    check_tallies()
    assert [record.message for record in caplog.records] == ["a kept count was wrong"]


def test_what_is_wrong_can_be_corrected_while_others_write(make_execution: Make) -> None:
    execution = make_execution(State.RUNNING)
    Tally.objects.filter(scope=Scope.EXECUTION_JOB_TYPE).delete()
    [found] = differences()
    assert (found.key, found.status, found.true) == (execution.job_type_id, "RUNNING", 1)
    # What has come since is in the tallies already; the difference stays the same.
    make_execution(State.RUNNING, job_type=execution.job_type)
    [corrected] = correct_tallies()
    assert corrected.true - corrected.kept == found.true - found.kept == 1


@pytest.mark.django_db(transaction=True)
def test_two_that_correct_at_a_time_do_not_correct_the_same_twice(make_execution: Make) -> None:
    make_execution(State.FAILED)
    Tally.objects.filter(scope=Scope.JOB_ERROR).delete()

    def second() -> Any:
        try:
            return correct_tallies()
        finally:
            connection.close()

    with another_session() as session, ThreadPoolExecutor(1) as pool:
        with session.cursor() as cursor:  # what the first one has done, and not committed
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [tallies._CORRECTING])
            cursor.execute(
                "INSERT INTO tally (scope, key, status, count)"
                " SELECT %s, error_id, status, 1 FROM job",
                [Scope.JOB_ERROR],
            )
        corrected = pool.submit(second)
        with connection.cursor() as cursor:
            for _ in range(500):
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if cursor.fetchone() != (0,) or corrected.done():
                    break
                wait([corrected], 0.01)
        session.commit()
        assert corrected.result(10) == []


@pytest.mark.parametrize(
    ("started", "ended", "hours"),
    [
        (NOON, NOON + timedelta(hours=2), (0, 2)),
        (NOON + timedelta(microseconds=1), NOON + timedelta(hours=2), (1, 2)),
        (NOON, NOON + timedelta(hours=2, minutes=59), (0, 2)),
        (NOON + timedelta(minutes=1), NOON + timedelta(hours=1, minutes=59), None),
        (NOON, NOON + timedelta(minutes=59), None),
    ],
)
def test_only_hours_that_are_whole_are_taken_from_the_tallies(
    started: datetime, ended: datetime, hours: tuple[int, int] | None
) -> None:
    noon = int(NOON.timestamp()) // 3600
    wanted = None if hours is None else (noon + hours[0], noon + hours[1])
    assert whole_hours(started, ended) == wanted
    assert whole_hours(None, ended) == (None, int(ended.timestamp()) // 3600)
    assert whole_hours(None, None) == (None, None)


def test_the_hour_of_a_position_is_that_of_its_row(make_job: Make) -> None:
    times = [NOON + timedelta(minutes=25 * number) for number in range(12)]
    for at in times:
        make_job(at=at)
    for position, at in enumerate(times):
        hour, before = hour_at(Scope.JOB_HOUR, position)
        assert hour == int(at.timestamp()) // 3600
        assert before == sum(each < at.replace(minute=0) for each in times)
        assert hour_at(Scope.JOB_HOUR, position, statuses=["QUEUED"]) == (hour, before)
    assert hour_at(Scope.JOB_HOUR, 0, statuses=["FAILED"]) == (0, 0)
