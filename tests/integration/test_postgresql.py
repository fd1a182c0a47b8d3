"""The look at a session before each request."""

import select
from collections.abc import Iterator

import psycopg2
import pytest
from django.db import close_old_connections, connection
from psycopg2 import extensions

from scale.error.models import Error

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other(transactional_db: None) -> Iterator[extensions.connection]:
    connection.ensure_connection()
    session = psycopg2.connect(**connection.get_connection_params())
    session.autocommit = True
    yield session
    session.close()


@pytest.fixture
def pid(other: extensions.connection) -> int:
    """Return which process of the server has our session."""
    return int(connection.connection.info.backend_pid)


def test_a_session_that_is_well_is_asked_nothing(other: extensions.connection, pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'the last one'")
    assert connection.is_usable()
    with other.cursor() as cursor:
        cursor.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid])
        assert cursor.fetchone() == ("SELECT 'the last one'",)


def test_a_session_that_was_ended_is_replaced_before_a_request(
    other: extensions.connection, pid: int
) -> None:
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert cursor.fetchone() == (True,)
    close_old_connections()  # as at the beginning of each request
    assert Error.objects.exists()
    assert connection.connection.info.backend_pid != pid


def test_a_session_that_we_have_closed_is_not_usable(other: extensions.connection) -> None:
    connection.connection.close()
    assert not connection.is_usable()
    connection.close()


def test_something_to_read_on_a_good_session_is_no_reason_to_leave_it(
    other: extensions.connection, pid: int
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("LISTEN hints")
    with other.cursor() as cursor:
        cursor.execute("NOTIFY hints")
    # PostgreSQL sends it at once to a session that waits.
    poller = select.poll()
    poller.register(connection.connection, select.POLLIN)
    assert poller.poll(10_000)
    assert connection.is_usable()
    assert connection.connection.info.backend_pid == pid
