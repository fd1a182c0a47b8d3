"""Work folders that executions left behind are removed by small tasks on their nodes."""

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db.models import F, Q, QuerySet

from scale.core.cluster import ALIVE, TaskRef, TaskSpec, TaskState, TaskUpdate
from scale.job.models import JobExecution
from scale.job.orders import CLEANUP_BATCH, cleanup_task
from scale.scheduler.selectors import first_those

logger = logging.getLogger(__name__)

_PREFIX: Final = "cleanup"
#: At most this many work folders are looked at in a round.
_ROUND_LIMIT: Final = 1000
_MAX_TRIES: Final = 5
# After the n-th clean-up that failed, n cubed times this: from seconds to a quarter of an hour, as
# a disk that is full now, or a file that is still written to, may not be then.
_PAUSE: Final = timedelta(seconds=15)
#: A clean-up that has not ended by then is killed; it counts as a try.
TIMEOUT_S: Final = 900.0


def owed_cleanups(agent_ids: Collection[str]) -> dict[str, list[JobExecution]]:
    """Return executions whose folder waits for removal, by agents that are there; one query.

    Those on these agents come before the others, which must not crowd them out.
    """
    owed: dict[str, list[JobExecution]] = defaultdict(list)
    rows = _waiting().select_related("node").only("uuid", "node__slave_id")
    order = first_those(Q(node__slave_id__in=agent_ids)), "id"
    for row in rows.order_by(*order)[:_ROUND_LIMIT]:
        if row.node:
            owed[row.node.slave_id].append(row)
    return owed


def cleanups_wait() -> bool:
    """Return whether a machine that is there owes a clean-up; one query."""
    return _waiting().exists()


def _waiting() -> QuerySet[JobExecution]:
    """Return those that neither have a clean-up under way nor pause before the next."""
    return JobExecution.objects.filter(
        cleanup_owed=True, cleanup_task_id="", cleanup_deadline=None, node__is_online=True
    )


def start_cleanup(agent_id: str, executions: Sequence[JobExecution], *, now: datetime) -> TaskSpec:
    """Note that a task removes the folders of up to CLEANUP_BATCH executions; return the task."""
    batch = executions[:CLEANUP_BATCH]
    task_id = f"{_PREFIX}.{uuid4()}"
    JobExecution.objects.filter(pk__in=[row.pk for row in batch]).update(
        cleanup_task_id=task_id,
        cleanup_tries=F("cleanup_tries") + 1,
        cleanup_deadline=now + timedelta(seconds=TIMEOUT_S),
    )
    return cleanup_task(task_id, agent_id, batch)


def is_cleanup(task_id: str) -> bool:
    """Return whether a task may be one of `start_cleanup`; the cluster may tell of anything."""
    prefix, _, number = task_id.partition(".")
    try:
        return prefix == _PREFIX and str(UUID(number)) == number
    except ValueError:
        return False


def note_cleanups(updates: Collection[TaskUpdate], *, now: datetime) -> set[str]:
    """Store the ends of clean-up tasks; return those that nobody owes, though they may live.

    What did not end well is owed again: after a pause if it failed, at once if it was lost.
    """
    done, failed, lost = [], [], []
    for update in updates:
        if update.state is TaskState.FINISHED:
            done.append(update.task_id)
        elif update.state in (TaskState.FAILED, TaskState.ERROR):
            failed.append(update.task_id)
        elif update.state not in ALIVE and update.state is not TaskState.UNREACHABLE:
            lost.append(update.task_id)
    strays = _strays({update.task_id for update in updates if update.state in ALIVE})
    if done:
        JobExecution.objects.filter(cleanup_owed=True, cleanup_task_id__in=done).update(
            cleanup_owed=False, cleanup_deadline=None
        )
    if failed:
        _note_failed(failed, now)
    if lost:
        _note_lost(lost, now)
    return strays


def _of(task_ids: Collection[str]) -> QuerySet[JobExecution]:
    return JobExecution.objects.filter(cleanup_owed=True, cleanup_task_id__in=task_ids)


def _note_failed(task_ids: Collection[str], now: datetime) -> None:
    """Let the folders of these clean-ups be owed again, or given up after too many tries."""
    failed = _of(task_ids)
    left = failed.filter(cleanup_tries__gte=_MAX_TRIES).update(
        cleanup_owed=False, cleanup_deadline=None
    )
    for tries in range(1, _MAX_TRIES):
        again = now + _PAUSE * tries**3
        failed.filter(cleanup_tries=tries).update(cleanup_task_id="", cleanup_deadline=again)
    if left:
        logger.error("work folders could not be removed", extra={"folders": left})


def _note_lost(task_ids: Collection[str], now: datetime) -> None:
    """Let the folders be owed again: at once, but after many losses in a row with a pause.

    Nobody has tried to remove them, so that they are never given up for it.
    """
    last = _MAX_TRIES - 1
    lost = _of(task_ids)
    often = lost.filter(cleanup_tries__gte=_MAX_TRIES)
    often.update(cleanup_task_id="", cleanup_tries=last, cleanup_deadline=now + _PAUSE * last**3)
    lost.update(cleanup_task_id="", cleanup_deadline=None)


def give_up_late_cleanups(*, now: datetime) -> list[TaskRef]:
    """Count clean-ups that took too long as failed, and end pauses; return the tasks to kill."""
    due = JobExecution.objects.filter(cleanup_owed=True, cleanup_deadline__lte=now)
    due.filter(cleanup_task_id="").update(cleanup_deadline=None)
    pairs = set(due.values_list("cleanup_task_id", "node__slave_id"))
    if pairs:
        _note_failed([task_id for task_id, _agent_id in pairs], now)
    return [TaskRef(*pair) for pair in sorted(pairs)]


def _strays(task_ids: set[str]) -> set[str]:
    if not task_ids:
        return set()
    owed = JobExecution.objects.filter(cleanup_owed=True, cleanup_task_id__in=task_ids)
    return task_ids.difference(owed.values_list("cleanup_task_id", flat=True))
