"""Work with the database is repeated when it failed for a reason that passes."""

import logging
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeVar

import psycopg2
from django.db import DatabaseError, InterfaceError, connection

from scale.core.errors import LeadershipLost

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: What psycopg2 and Django raise for a database that failed or refused.
DATABASE_ERRORS: Final = (DatabaseError, InterfaceError, psycopg2.Error)
#: A transaction that lost against others is done this often in all.
TRIES: Final = 3
#: For so long PostgreSQL may be away, in seconds.
AWAY_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0

# SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})
# Shut down or starting, a session that the server ended, one that it made read-only.
_AWAY: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25006"})
# Connection, and too little disk, memory or connections.
_AWAY_CLASSES: Final = ("08", "53")


class Trouble(Enum):
    """What kind of failure it was."""

    CONFLICT = auto()  # at once again
    AWAY = auto()  # again when the server is back
    FAULT = auto()  # would fail again


class DatabaseFailed(LeadershipLost):
    """PostgreSQL refused what the scheduler wrote, or was away for too long."""


def trouble(error: BaseException) -> Trouble:
    """Say what kind of failure an error of psycopg2 or Django is."""
    cause = error if isinstance(error, psycopg2.Error) else error.__cause__
    code = cause.pgcode if isinstance(cause, psycopg2.Error) else None
    if code is None:  # no word of the server: the connection is at fault, or we are
        mild = (psycopg2.OperationalError, psycopg2.InterfaceError, InterfaceError)
        broken = isinstance(cause or error, mild) or type(cause) is psycopg2.DatabaseError
        return Trouble.AWAY if broken else Trouble.FAULT
    if code in _CONFLICTS:
        return Trouble.CONFLICT
    if code in _AWAY or code.startswith(_AWAY_CLASSES):
        return Trouble.AWAY
    return Trouble.FAULT


class Patience:
    """Repeats work within bounds. `pause` waits for so many seconds; true from it ends it all."""

    def __init__(
        self,
        *,
        pause: Callable[[float], bool | None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        away_s: float = AWAY_S,
    ) -> None:
        self._pause = pause
        self._monotonic = monotonic
        self._away_s = away_s
        #: A connection broke, so that perhaps a commit was not heard of.
        self.broke = False

    def repeat(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which must be whole transactions and change nothing else.

        Raises DATABASE_ERRORS of the last try: of what does not pass, after TRIES conflicts, or
        when PostgreSQL was away for too long.
        """
        failures = _Failures(self._monotonic, self._away_s)
        while True:
            failures.begin()
            try:
                return work()
            except DATABASE_ERRORS as error:
                kind = trouble(error)
                if connection.in_atomic_block or failures.are_enough(kind):
                    raise
                if kind is Trouble.AWAY:
                    self._reconnect(error)
                if self._pause(failures.pause_s):
                    raise

    def _reconnect(self, error: BaseException) -> None:
        connection.close()  # the next statement opens it anew
        if not self.broke:
            reason = (str(error).splitlines() or [""])[0]
            logger.warning("PostgreSQL is away; waiting for it", extra={"reason": reason})
        self.broke = True


class _Failures:
    """Counts the failures of one work, and since when PostgreSQL is away."""

    def __init__(self, monotonic: Callable[[], float], away_s: float) -> None:
        self._monotonic = monotonic
        self._away_s = away_s
        self._conflicts = 0
        self._began = self._away_since = monotonic()
        self.pause_s = _FIRST_PAUSE_S / 2

    def begin(self) -> None:
        self._began = self._monotonic()

    def are_enough(self, kind: Trouble) -> bool:
        """Take in one more; return whether to give up."""
        self.pause_s = min(2 * self.pause_s, _LONGEST_PAUSE_S)
        if kind is not Trouble.AWAY:
            self._conflicts += 1
            return kind is Trouble.FAULT or self._conflicts == TRIES
        now_s = self._monotonic()
        if now_s - self._began >= self._away_s:
            self._away_since = now_s  # work that waits, a standby's; it was there till now
            return False
        return now_s - self._away_since >= self._away_s
