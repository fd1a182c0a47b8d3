"""Work folders that executions left behind are removed by small tasks on their nodes."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import uuid4

from django.db.models import F

from scale.core.cluster import ALIVE, TaskSpec, TaskState, TaskUpdate
from scale.job.models import JobExecution
from scale.job.orders import CLEANUP_BATCH, cleanup_task

logger = logging.getLogger(__name__)

CLEANUP_PREFIX: Final = "cleanup."
#: At most this many work folders are looked at in a round.
_ROUND_LIMIT: Final = 1000
_MAX_TRIES: Final = 5


def owed_cleanups(agent_ids: Iterable[str]) -> dict[str, list[JobExecution]]:
    """Return executions whose folder waits for removal on these agents, by agent; one query."""
    owed: dict[str, list[JobExecution]] = defaultdict(list)
    rows = JobExecution.objects.filter(
        cleanup_owed=True, cleanup_task_id="", node__slave_id__in=list(agent_ids)
    ).select_related("node")
    for row in rows.only("uuid", "node__slave_id").order_by("id")[:_ROUND_LIMIT]:
        if row.node:
            owed[row.node.slave_id].append(row)
    return owed


def start_cleanup(agent_id: str, executions: Sequence[JobExecution]) -> TaskSpec:
    """Note that a task removes the folders of up to CLEANUP_BATCH executions; return the task."""
    batch = executions[:CLEANUP_BATCH]
    task_id = f"{CLEANUP_PREFIX}{uuid4()}"
    JobExecution.objects.filter(pk__in=[row.pk for row in batch]).update(
        cleanup_task_id=task_id, cleanup_tries=F("cleanup_tries") + 1
    )
    return cleanup_task(task_id, agent_id, batch)


def note_cleanups(updates: Iterable[TaskUpdate]) -> None:
    """Store the ends of clean-up tasks; what did not end well is owed again."""
    done, again = [], []
    for update in updates:
        if update.state is TaskState.FINISHED:
            done.append(update.task_id)
        elif update.state not in ALIVE and update.state is not TaskState.UNREACHABLE:
            again.append(update.task_id)
    if done:
        JobExecution.objects.filter(cleanup_owed=True, cleanup_task_id__in=done).update(
            cleanup_owed=False
        )
    if again:
        failed = JobExecution.objects.filter(cleanup_owed=True, cleanup_task_id__in=again)
        left = failed.filter(cleanup_tries__gte=_MAX_TRIES).update(cleanup_owed=False)
        failed.update(cleanup_task_id="")
        if left:
            logger.error("work folders could not be removed", extra={"folders": left})
