"""What people ask about the queue."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min

from scale.queue.models import QueuedExecution


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


def queue_by_job_type() -> list[Waiting]:
    """Return what waits: types that are not paused first, then the most urgent, then the oldest.

    One query, which reads the whole queue (index execution_queue).
    """
    rows = (
        QueuedExecution.objects.order_by()
        .values_list("job_type", "job_type__name", "job_type__version", "job_type__is_paused")
        .annotate(count=Count("id"), oldest=Min("queued"), urgent=Min("priority"))
        .order_by("job_type__is_paused", "urgent", "oldest", "job_type")
    )
    return [
        Waiting(count, oldest, pk, name, version, urgent, paused)
        for pk, name, version, paused, count, oldest, urgent in rows
    ]
