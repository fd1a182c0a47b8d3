"""The queue at a glance, by job type, for a price that does not grow with it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection

from scale.core.lifecycle import Status
from scale.job.models import JobType
from scale.job.tallies import executions_by_job_type


@dataclass(frozen=True, slots=True)
class Waiting:
    """The waiting executions of one job type.

    `longest_queued` is when the oldest was queued; `highest_priority` the lowest number.
    """

    count: int
    longest_queued: datetime
    job_type_id: int
    job_type_name: str
    job_type_version: str
    highest_priority: int
    is_job_type_paused: bool


# From each (shape, priority) to the next by the index `execution_queue`, to the oldest of each: the
# cost is the number of those pairs, not of executions that wait.
_EXTREMES: Final = """
WITH RECURSIVE head AS (
    (SELECT job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib, priority, queued
       FROM job_execution WHERE state = 'queued'
      ORDER BY job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib, priority, queued, id
      LIMIT 1)
    UNION ALL
    SELECT next.* FROM head, LATERAL (
        SELECT job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib, priority, queued
          FROM job_execution
         WHERE state = 'queued'
           AND (job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib, priority)
             > (head.job_type_id, head.needs_millicpus, head.needs_mem_mib, head.needs_disk_mib,
                head.priority)
         ORDER BY job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib, priority, queued, id
         LIMIT 1
    ) AS next
)
SELECT job_type_id, min(queued), min(priority) FROM head GROUP BY job_type_id
"""


def queue_by_job_type() -> list[Waiting]:
    """Return what waits: types that are not paused first, then the most urgent, then the oldest.

    Three queries, whose cost does not grow with the queue, but with its shapes and priorities.
    """
    with connection.cursor() as cursor:
        cursor.execute(_EXTREMES)
        extremes = {pk: (oldest, urgent) for pk, oldest, urgent in cursor.fetchall()}
    counts = executions_by_job_type() if extremes else {}
    types = JobType.objects.filter(pk__in=extremes)
    waiting = []
    for pk, name, version, is_paused in types.values_list("id", "name", "version", "is_paused"):
        oldest, urgent = extremes[pk]
        # What was queued between the two queries is counted the next time.
        count = max(1, counts.get(pk, {}).get(Status.QUEUED, 0))
        waiting.append(Waiting(count, oldest, pk, name, version, urgent, is_paused))
    return sorted(
        waiting,
        key=lambda each: (
            each.is_job_type_paused,
            each.highest_priority,
            each.longest_queued,
            each.job_type_id,
        ),
    )
