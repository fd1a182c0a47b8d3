"""A job type whose launches keep failing waits longer and longer before the next one."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from scale.job.models import JobType
from scale.scheduler.signs import Sign

logger = logging.getLogger(__name__)

#: So many launches in a row may fail before the type waits.
PATIENCE: Final = 3
FIRST_WAIT_S: Final = 5.0
LONGEST_WAIT_S: Final = 300.0


def note_types(signs: Iterable[tuple[int, Sign]], *, now: datetime) -> None:
    """Store what was seen of job types (id, sign), in this order; two queries, none without signs.

    What fails while its type waits was launched before and says nothing new.
    """
    signs = list(signs)
    if not signs:
        return
    rows = JobType.objects.only("launch_failures", "launch_after", "name", "version")
    types = rows.in_bulk({pk for pk, _ in signs})
    changed: set[int] = set()
    for pk, sign in signs:
        if _note(types[pk], sign, now):
            changed.add(pk)
    for pk in sorted(changed):
        row = types[pk]
        JobType.objects.filter(pk=pk).update(
            launch_failures=row.launch_failures, launch_after=row.launch_after
        )
        if row.launch_after:
            facts = {"job_type": str(row), "failures": row.launch_failures}
            logger.warning("launches of a job type keep failing; it waits", extra=facts)


def _note(row: JobType, sign: Sign, now: datetime) -> bool:
    """Change the row in memory; return whether it did."""
    if sign is Sign.WORKS:
        had_failed = row.launch_failures > 0
        row.launch_failures, row.launch_after = 0, None
        return had_failed
    if row.launch_after and row.launch_after > now:
        return False
    row.launch_failures += 1
    if row.launch_failures >= PATIENCE:
        doubled = min(row.launch_failures - PATIENCE, 10)
        wait_s = min(FIRST_WAIT_S * 2**doubled, LONGEST_WAIT_S)
        row.launch_after = now + timedelta(seconds=wait_s)
    return True


def room_after_failures(
    failures: int, launch_after: datetime | None, starting: int, *, now: datetime
) -> int | None:
    """Return how many of a type may start: after a wait one by one; None is no limit."""
    if failures < PATIENCE:
        return None
    if launch_after and launch_after > now:
        return 0
    return max(0, 1 - starting)
