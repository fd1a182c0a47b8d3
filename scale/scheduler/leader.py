"""One scheduler leads: a PostgreSQL advisory lock, and an epoch that fences the ones before."""

import logging
import math
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg2
from django.conf import settings
from django.db import connection, transaction
from psycopg2.extensions import POLL_OK, POLL_READ

from scale.core.errors import LeadershipLost
from scale.scheduler.models import SchedulerState
from scale.scheduler.patience import DATABASE_ERRORS, Patience
from scale.wake import WORK_CHANNEL

logger = logging.getLogger(__name__)

# So that the server notices within seconds that a leader's machine is gone; for TCP only.
_KEEPALIVE: Final = (
    "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2"
)
# Any number will do that nothing else in this database locks.
_LOCK: Final = 0x5CA1E
#: A standby looks at the leader's heartbeat this often.
_LOOK_S: Final = 1.0
#: A leader whose session broke may find its own ghost with the lock, until the keepalive ends it.
_GHOST_S: Final = 10.0

# Who holds the lock, and who sits in a transaction of a leader: the row of the scheduler is locked
# in each. A stopped process keeps both for ever.
_END_SILENT_LEADER: Final = """
SELECT pid, pg_terminate_backend(pid) FROM (
    SELECT pid FROM pg_locks
     WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0 AND objid = %(lock)s
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION
    SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
     WHERE relation = 'scheduler_state'::regclass AND mode IN ('RowShareLock', 'RowExclusiveLock')
       AND state LIKE 'idle in transaction%%'
       AND state_change < clock_timestamp() - %(lease_s)s * interval '1 second' / 2
) AS silent WHERE pid <> pg_backend_pid()
"""


class LockLost(LeadershipLost):
    """The session with the lock broke; whether somebody else leads now is not known."""


class Leadership:
    """The right to schedule, held by a database session of its own.

    The lock goes when the session goes, so a dead leader is replaced at once. One that is stopped
    keeps its session: a standby that sees no heartbeat for SCALE_LEASE_S ends it. Such a leader,
    or one that was only cut off from its session, could still write: each of its transactions is
    therefore inside `fenced`, which refuses once a newer leader has raised the epoch.
    """

    def __init__(self, name: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._fenced_s = monotonic()
        self.epoch = 0
        self._session = Patience().repeat(_connect)

    def acquire(self, *, now: datetime, standing_by: Callable[[], None] = lambda: None) -> None:
        """Wait until this process leads.

        `standing_by` is called if another one leads, before the wait. PostgreSQL may go away and
        come back meanwhile. `now` is when the wait begins.
        """
        began_s = self._monotonic()

        def lead() -> None:
            self._reopen()
            if not self._try_lock():
                logger.info("another scheduler leads; waiting as standby")
                standing_by()
                try:
                    self._stand_by()
                except DATABASE_ERRORS:
                    self._session.close()  # it is waiting still, and can do nothing else
                    raise
            self._listen()
            waited = timedelta(seconds=self._monotonic() - began_s)
            self._raise_epoch(now=now + waited, is_connected=False)

        Patience().repeat(lead)

    def retake(self, *, now: datetime) -> None:
        """Take the lock again after its session broke, if nobody else has led in between.

        Raises:
            LeadershipLost: somebody has; or the lock was not free in time.
            psycopg2.Error: PostgreSQL does not answer; may be tried again.
        """
        self._session.close()
        self._reopen()
        until_s = self._monotonic() + _GHOST_S
        with self.fenced():
            pass
        while not self._try_lock():
            if self._monotonic() > until_s:
                raise LeadershipLost("the lock is not free; another scheduler leads")
            time.sleep(0.1)
            with self.fenced():
                pass
        self._listen()
        self._raise_epoch(now=now, expected=self.epoch)
        logger.warning("the lock was lost and taken again", extra={"epoch": self.epoch})

    def _raise_epoch(self, *, now: datetime, expected: int | None = None, **fields: Any) -> None:
        """Begin a new epoch; with `expected`, only from that one."""
        with transaction.atomic():
            state = SchedulerState.objects.select_for_update().get()
            if expected is not None and state.epoch != expected:
                raise LeadershipLost(f"epoch {state.epoch} has begun; this one was {expected}")
            state.epoch += 1
            state.leader = self._name
            state.heartbeat = now
            for name, value in fields.items():
                setattr(state, name, value)
            state.save(update_fields=["epoch", "leader", "heartbeat", *fields])
        self.epoch = state.epoch
        self._fenced_s = self._monotonic()

    # The session.

    def _reopen(self) -> None:
        if self._session.closed:
            self._session = _connect()

    def _try_lock(self) -> bool:
        with self._session.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
            _wait(self._session)
            return bool(cursor.fetchone() == (True,))

    def _listen(self) -> None:
        with self._session.cursor() as cursor:
            cursor.execute(f"LISTEN {WORK_CHANNEL}")
            _wait(self._session)

    def _stand_by(self) -> None:
        """Wait for the lock; end the session of a leader that shows no sign of life.

        Ages are measured here, from one look to the next: clocks of machines differ.
        """
        seen, since_s = None, self._monotonic()
        with self._session.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            while not _wait(self._session, min(_LOOK_S, settings.SCALE_LEASE_S / 4)):
                sign = SchedulerState.objects.values_list("epoch", "heartbeat").get()
                if sign != seen:
                    seen, since_s = sign, self._monotonic()
                elif self._monotonic() - since_s > settings.SCALE_LEASE_S:
                    _end_silent_leader()
                    since_s = self._monotonic()

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Open a transaction that only commits if nobody else has become leader."""
        with transaction.atomic(durable=True):
            asked_s = self._monotonic()
            with connection.cursor() as cursor:
                # A newer leader's UPDATE waits for this lock, and so for our commit.
                cursor.execute(
                    "SELECT epoch FROM scheduler_state WHERE id = %s FOR SHARE",
                    [SchedulerState.ONLY],
                )
                (epoch,) = cursor.fetchone()
            if epoch != self.epoch:
                raise LeadershipLost(f"epoch {epoch} has begun; this scheduler was {self.epoch}")
            self._fenced_s = asked_s
            yield

    def confirm(self) -> None:
        """Make sure to lead still, if that was last known long ago; call it before telling Mesos.

        A process that was stopped between its commit and its call does not know of it.

        Raises:
            LeadershipLost: another scheduler leads.
        """
        if self._monotonic() - self._fenced_s > settings.SCALE_LEASE_S / 3:
            with self.fenced():
                pass

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is work, or when the lock is gone."""
        return int(self._session.fileno())

    def heard(self) -> bool:
        """Return whether a notification arrived since the last call; never blocks.

        Raises:
            LockLost: the session broke, and with it the lock.
        """
        try:
            self._session.poll()
            # The server's farewell comes first, then the end of the stream.
            while _is_ready(self._session, select.POLLIN, 0):
                self._session.poll()
        except psycopg2.Error as error:
            raise LockLost(f"the session with the lock broke: {error}") from None
        heard = bool(self._session.notifies)
        self._session.notifies.clear()
        if self._session.closed:
            raise LockLost("the session with the lock is closed")
        return heard

    def release(self) -> None:
        self._session.close()


def _connect() -> Any:
    """Open a session; asynchronous, so that waiting for the lock can be interrupted by a signal."""
    session = psycopg2.connect(
        **{**connection.get_connection_params(), "options": _KEEPALIVE}, async_=True
    )
    _wait(session)
    return session


def _wait(session: Any, timeout_s: float | None = None) -> bool:
    """Wait for what the session was asked to do; return whether that was done in time."""
    while (state := session.poll()) != POLL_OK:
        wanted = select.POLLIN if state == POLL_READ else select.POLLOUT
        if not _is_ready(session, wanted, timeout_s):
            return False
    return True


def _is_ready(session: Any, wanted: int, timeout_s: float | None) -> bool:
    poller = select.poll()  # unlike select.select, good for descriptors above 1023
    poller.register(session, wanted)
    return bool(poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))


def _end_silent_leader() -> None:
    with connection.cursor() as cursor:
        cursor.execute(_END_SILENT_LEADER, {"lock": _LOCK, "lease_s": settings.SCALE_LEASE_S})
        ended = [pid for pid, _done in cursor.fetchall()]
    logger.warning("the leader is silent; its sessions are ended", extra={"sessions": ended})
