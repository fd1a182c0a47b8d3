"""How many jobs and executions there are of each kind, without counting them.

Triggers on both tables append to `tally` what each statement changed (migration 0006), so that
counts are exact whatever writes: services, COPY, retention. The worker folds what was appended
into sums. A count is the sum of the rows of its key, folded or not.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import connection, models, transaction
from django.db.models import Sum

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)


class Scope(models.IntegerChoices):
    """What `Tally.key` is: the job type, node or error, or the hours from 1970 to the change."""

    EXECUTION_JOB_TYPE = 1
    EXECUTION_NODE = 2
    EXECUTION_ERROR = 3
    EXECUTION_HOUR = 4
    JOB_JOB_TYPE = 5
    JOB_ERROR = 6
    JOB_HOUR = 7
    JOB_STATUS_HOUR = 8


class Tally(models.Model):
    """So many more, or fewer, of a status; a sum if `is_sum`, else one statement's change."""

    scope = models.SmallIntegerField(choices=Scope.choices)
    key = models.BigIntegerField()
    status = models.CharField(max_length=50)
    count = models.BigIntegerField()
    is_sum = models.BooleanField(db_default=False)

    class Meta:
        db_table = "tally"
        indexes = [
            # Every count is read from it alone; folding finds the sums among what it adds.
            models.Index("scope", "key", "status", "is_sum", include=["count"], name="tally_by_key")
        ]

    def __str__(self) -> str:
        return f"{Scope(self.scope).label} {self.key} {self.status}: {self.count}"


def executions_by_status() -> dict[str, int]:
    """Return how many executions have each status; one query."""
    rows = _kept(Scope.EXECUTION_JOB_TYPE).values_list("status").annotate(Sum("count"))
    return {status: count for status, count in rows if count}


def executions_by_job_type() -> dict[int, dict[str, int]]:
    """Return job type id -> status -> number of executions; one query."""
    return _by_key_and_status(Scope.EXECUTION_JOB_TYPE)


def jobs_by_job_type() -> dict[int, dict[str, int]]:
    """Return job type id -> status -> number of jobs; one query."""
    return _by_key_and_status(Scope.JOB_JOB_TYPE)


def executions_by_error() -> dict[int, int]:
    """Return error id -> number of executions that failed by it; one query."""
    rows = _kept(Scope.EXECUTION_ERROR).values_list("key").annotate(Sum("count"))
    return {key: count for key, count in rows if count}


def total(
    scope: Scope, *, keys: Collection[int] | None = None, statuses: Collection[str] = ()
) -> int:
    """Return how many there are with one of these keys and statuses; None and () are all."""
    given: list[Any] = [scope, keys is None, list(keys or ()), not statuses, list(statuses)]
    with connection.cursor() as cursor:
        cursor.execute(_TOTAL, given)
        return int(cursor.fetchone()[0])


_TOTAL: Final = """
    SELECT coalesce(sum(count), 0) FROM tally
    WHERE scope = %s AND (%s OR key = ANY(%s::bigint[])) AND (%s OR status = ANY(%s::text[]))
"""


def of_hours(
    scope: Scope, first: int | None, last: int | None, *, statuses: Collection[str] = ()
) -> "models.QuerySet[Tally]":
    """Return what is kept of the hours from `first` to before `last`; None is no bound."""
    rows = _kept(scope)
    if first is not None:
        rows = rows.filter(key__gte=first)
    if last is not None:
        rows = rows.filter(key__lt=last)
    return rows.filter(status__in=statuses) if statuses else rows


def whole_hours(
    started: datetime | None, ended: datetime | None
) -> tuple[int | None, int | None] | None:
    """Return the hours that lie wholly within a period: first, and the one after the last.

    None if there are none.
    """
    first = None if started is None else -(-(started - _EPOCH) // _HOUR)
    last = None if ended is None else (ended - _EPOCH) // _HOUR
    if first is not None and last is not None and first >= last:
        return None
    return first, last


def beginning_of(hour: int) -> datetime:
    return _EPOCH + hour * _HOUR


def hour_at(scope: Scope, position: int, *, statuses: Collection[str] = ()) -> tuple[int, int]:
    """Return the hour in which the row at a position falls, and how many rows come before it.

    Positions are counted from 0 in the order of time. One query.
    """
    with connection.cursor() as cursor:
        cursor.execute(_HOUR_AT, [scope, not statuses, list(statuses), position])
        hour, before = cursor.fetchone() or (0, 0)
    return int(hour), int(before)


_HOUR_AT: Final = """
    SELECT key, before FROM (
        SELECT key, sum(sum(count)) OVER (ORDER BY key) - sum(count) AS before
        FROM tally WHERE scope = %s AND (%s OR status = ANY(%s::text[])) GROUP BY key
    ) AS hours
    WHERE before <= %s ORDER BY key DESC LIMIT 1
"""


def _kept(scope: Scope) -> "models.QuerySet[Tally]":
    return Tally.objects.filter(scope=scope).order_by()


def _by_key_and_status(scope: Scope) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for key, status, count in _kept(scope).values_list("key", "status").annotate(Sum("count")):
        if count:
            found[key][status] = count
    return dict(found)


_FOLD: Final = """
    WITH picked AS MATERIALIZED (
        SELECT id FROM tally WHERE NOT is_sum ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
    ), changes AS (
        DELETE FROM tally USING picked WHERE tally.id = picked.id
        RETURNING scope, key, status, count
    ), kept AS MATERIALIZED (
        SELECT id FROM tally
        WHERE is_sum AND (scope, key, status) IN (SELECT scope, key, status FROM changes)
        FOR UPDATE SKIP LOCKED
    ), sums AS (
        DELETE FROM tally USING kept WHERE tally.id = kept.id RETURNING scope, key, status, count
    ), stored AS (
        INSERT INTO tally (scope, key, status, count, is_sum)
        SELECT scope, key, status, sum(count), true
        FROM (SELECT * FROM changes UNION ALL SELECT * FROM sums) AS gone
        GROUP BY scope, key, status HAVING sum(count) <> 0
    )
    SELECT count(*) FROM picked
"""


def fold(most: int) -> int:
    """Fold up to so many changes into sums, the oldest first; return how many there were.

    One statement, which is done or not: it may be killed, and run beside others and itself. It
    waits for nobody: what another has locked is left to that one. So there may be two sums of one
    key, which the next fold that meets them makes one.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FOLD, [most])
        return int(cursor.fetchone()[0])


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a kept count is not that of the table."""

    scope: Scope
    key: int
    status: str
    kept: int
    true: int


_DIFFERENCES: Final = """
    SELECT scope, key, status, coalesce(kept.count, 0), coalesce(truth.count, 0)
    FROM tally_truth() AS truth
    FULL JOIN (
        SELECT scope, key, status, sum(count)::bigint AS count FROM tally GROUP BY 1, 2, 3
    ) AS kept USING (scope, key, status)
    WHERE coalesce(kept.count, 0) <> coalesce(truth.count, 0)
"""
_CORRECTING: Final = 0x5CA1E7A1


def differences() -> list[Difference]:
    """Count both tables and return where the tallies are wrong, as of one moment.

    Reads both tables whole: a minute or so for ten million rows of each. Holds up nobody.
    """
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENCES)
        rows = cursor.fetchall()
    return [Difference(Scope(scope), *rest) for scope, *rest in rows]


@transaction.atomic
def correct_tallies() -> list[Difference]:
    """Add the differences to the tallies and return them.

    Writers go on meanwhile: what was wrong at one moment is as wrong whatever has come since.
    """
    with connection.cursor() as cursor:
        # Two at a time would correct the same twice. What the next statement sees begins after.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CORRECTING])
    found = differences()
    Tally.objects.bulk_create(
        Tally(scope=each.scope, key=each.key, status=each.status, count=each.true - each.kept)
        for each in found
    )
    return found
