"""Statements of our own: what is prepared on a connection, and how times are read for lists."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import ProgrammingError, connection, transaction

from scale.api.renderers import instant
from scale.job import rows
from scale.job.rows import execute_repeated, read_times_as_texts

pytestmark = pytest.mark.django_db
TIMES = [
    datetime(2026, 1, 31, 12, 0, 5, microseconds, UTC)
    for microseconds in (0, 1, 999, 1000, 120_000, 999_999, 100, 500_010)
] + [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(1, 1, 1, tzinfo=UTC)]


def prepared() -> list[str]:
    """Return the names of what was prepared for what came again."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements")
        return [name for (name,) in cursor.fetchall()]


@pytest.fixture(autouse=True)
def a_connection_that_knows_nothing() -> Iterator[None]:
    forget()
    yield
    assert len(prepared()) <= rows._REPEATED
    forget()


def forget() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    connection.scale_prepared = None  # type: ignore[attr-defined]


def ask(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        execute_repeated(cursor, statement, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def test_what_comes_again_is_prepared_and_answers_the_same() -> None:
    statement = "SELECT id FROM job WHERE id = %s OR name LIKE 'a%%' OR name IN (%s, %s)"
    assert ask(statement, 1, "b", "c") == []
    assert prepared() == []
    assert ask(statement, 2, "b", "c") == []
    assert len(prepared()) == 1
    assert ask(statement, 3, "d", "e") == []
    assert len(prepared()) == 1
    assert [ask("SELECT 1") for _ in range(3)] == [[(1,)]] * 3
    assert len(prepared()) == 2


def test_no_more_stay_prepared_than_a_connection_may_keep() -> None:
    def asked(number: int) -> int:
        [(found,)] = ask(f"SELECT {number} + %s::integer", 1000)
        return int(found)

    kept = rows._REPEATED
    for _ in range(3):
        for number in range(kept + 5):
            assert [asked(number), asked(number)] == [number + 1000] * 2
        assert len(prepared()) == kept
    # What was used last is not what is forgotten.
    before = set(prepared())
    for number in range(5, kept + 5):
        asked(number)
    assert set(prepared()) == before
    asked(0)
    assert asked(5) == 1005
    assert len(before - set(prepared())) == 2


def test_what_cannot_be_run_is_refused_each_time() -> None:
    for _ in range(4):
        with pytest.raises(ProgrammingError, match="no_such_table"), transaction.atomic():
            ask("SELECT id FROM no_such_table")
    assert prepared() == []


def test_times_are_read_as_the_contract_writes_them() -> None:
    with connection.cursor() as cursor:
        read_times_as_texts(cursor)
        cursor.execute("SELECT unnest(%s::timestamptz[])", [TIMES])
        assert [text for (text,) in cursor.fetchall()] == [instant(each) for each in TIMES]
        cursor.execute("SELECT NULL::timestamptz, '2026-01-31 14:00:00.25+02'::timestamptz")
        assert cursor.fetchall() == [(None, "2026-01-31T12:00:00.250Z")]
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        [(now,)] = cursor.fetchall()
    assert isinstance(now, datetime)
