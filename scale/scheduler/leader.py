"""One scheduler leads: a PostgreSQL advisory lock, and an epoch that fences the ones before."""

import logging
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import psycopg2
from django.db import connection, transaction
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE

from scale.core.errors import LeadershipLost
from scale.scheduler.models import SchedulerState
from scale.wake import WORK_CHANNEL

logger = logging.getLogger(__name__)

# So that the server notices within seconds that a leader's machine is gone; for TCP only.
_KEEPALIVE: Final = (
    "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2"
)
# Any number will do that nothing else in this database locks.
_LOCK: Final = 0x5CA1E


class Leadership:
    """The right to schedule, held by a database session of its own.

    The lock goes when the session goes, so a dead leader is replaced at once. A leader that was
    only cut off from its session could still write: each of its transactions is therefore inside
    `fenced`, which refuses once a newer leader has raised the epoch.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # Asynchronous, so that waiting for the lock can be interrupted by a signal.
        self._session = psycopg2.connect(
            **{**connection.get_connection_params(), "options": _KEEPALIVE}, async_=True
        )
        self._wait()
        self.epoch = 0

    def acquire(self, *, now: datetime, standing_by: Callable[[], None] = lambda: None) -> None:
        """Wait until this process leads; the wait is in the database and costs nothing.

        `standing_by` is called if another one leads, before the wait.
        """
        with self._session.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
            self._wait()
            if cursor.fetchone() != (True,):
                logger.info("another scheduler leads; waiting as standby")
                standing_by()
                cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
                self._wait()
            cursor.execute(f"LISTEN {WORK_CHANNEL}")
            self._wait()
        with transaction.atomic():
            state = SchedulerState.objects.select_for_update().get()
            state.epoch += 1
            state.leader = self._name
            state.is_connected = False
            state.heartbeat = now
            state.save(update_fields=["epoch", "leader", "is_connected", "heartbeat"])
        self.epoch = state.epoch

    def _wait(self) -> None:
        """Wait for what the session was asked to do."""
        while (state := self._session.poll()) != POLL_OK:
            descriptor = [self._session.fileno()]
            select.select(
                descriptor if state == POLL_READ else [],
                descriptor if state == POLL_WRITE else [],
                [],
            )

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Open a transaction that only commits if nobody else has become leader."""
        with transaction.atomic(durable=True):
            with connection.cursor() as cursor:
                # A newer leader's UPDATE waits for this lock, and so for our commit.
                cursor.execute(
                    "SELECT epoch FROM scheduler_state WHERE id = %s FOR SHARE",
                    [SchedulerState.ONLY],
                )
                (epoch,) = cursor.fetchone()
            if epoch != self.epoch:
                raise LeadershipLost(f"epoch {epoch} has begun; this scheduler was {self.epoch}")
            yield

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is work, or when the lock is gone."""
        return int(self._session.fileno())

    def heard(self) -> bool:
        """Return whether a notification arrived since the last call; never blocks.

        Raises:
            LeadershipLost: the session broke, and with it the lock.
        """
        try:
            self._session.poll()
        except psycopg2.Error as error:
            raise LeadershipLost(f"the session with the lock broke: {error}") from None
        heard = bool(self._session.notifies)
        self._session.notifies.clear()
        if self._session.closed:
            raise LeadershipLost("the session with the lock is closed")
        return heard

    def release(self) -> None:
        self._session.close()
