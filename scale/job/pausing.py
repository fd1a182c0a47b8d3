"""Holding a job type back, and letting it go again."""

from datetime import datetime

from django.db import transaction

from scale.job.models import JobType
from scale.wake import wake_scheduler


@transaction.atomic
def pause_job_type(job_type_id: int, *, paused: bool, at: datetime) -> JobType:
    """Start no new executions of a type, or start them again; what runs goes on.

    Raises JobType.DoesNotExist.
    """
    job_type = JobType.objects.select_for_update(no_key=True).get(pk=job_type_id)
    if job_type.is_paused != paused:
        job_type.is_paused = paused
        job_type.paused = at if paused else None
        job_type.save(update_fields=["is_paused", "paused", "last_modified"])
        wake_scheduler()
    return job_type
