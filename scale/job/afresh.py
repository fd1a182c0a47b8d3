"""Trying a job again with all attempts that its job type grants."""

from datetime import datetime

from django.db import transaction

from scale.job.models import Job
from scale.job.services import requeue_job


@transaction.atomic
def requeue_afresh(job_id: int, *, at: datetime) -> None:
    """Requeue a job, which may fail as often again as a new one.

    Raises Job.DoesNotExist and NotAllowedNow as `requeue_job` does; nothing was written then.
    """
    job = requeue_job(job_id, at=at)
    most = job.num_exes - 1 + job.job_type.max_tries
    Job.objects.filter(pk=job_id).update(max_tries=most)
