"""The load over time: how many jobs waited and ran, sampled, thinned out with age."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction

from scale.core.lifecycle import JobStatus
from scale.job.tallies import jobs_by_job_type
from scale.queue.models import JobTypeLoad, LoadSample

_STATUSES: Final = (JobStatus.PENDING, JobStatus.QUEUED, JobStatus.RUNNING)
#: After that only the first sample of each hour is kept; it covers what is asked for by default.
ALL_KEPT_FOR: Final = timedelta(days=8)
#: Samples, and the parts of job types with them, that are dropped in one transaction.
_BATCH: Final = 500


def sample_load(*, now: datetime, period_s: int) -> bool:
    """Store how many jobs are at hand; False if this period has its sample already.

    Periods begin at multiples of `period_s` seconds since 1970, so that all who sample agree on
    them. The counts are those that the database keeps; no job is read.
    """
    seconds = int(now.timestamp())
    measured = datetime.fromtimestamp(seconds - seconds % period_s, UTC)
    if LoadSample.objects.filter(measured=measured).exists():
        return False
    try:
        with transaction.atomic():
            _store(measured, jobs_by_job_type())
    except IntegrityError:
        if not LoadSample.objects.filter(measured=measured).exists():
            raise
        return False  # another worker was first
    return True


def _store(measured: datetime, tallies: Mapping[int, Mapping[str, int]]) -> None:
    parts = {
        key: [counts.get(status.value, 0) for status in _STATUSES]
        for key, counts in tallies.items()
    }
    pending, queued, running = (sum(part[n] for part in parts.values()) for n in range(3))
    hour = measured.replace(minute=0, second=0, microsecond=0)
    sample = LoadSample.objects.create(
        measured=measured,
        pending_count=pending,
        queued_count=queued,
        running_count=running,
        total_count=pending + queued + running,
        is_first_of_hour=not LoadSample.objects.filter(
            measured__gte=hour, measured__lt=measured
        ).exists(),
    )
    JobTypeLoad.objects.bulk_create(
        JobTypeLoad(
            sample=sample,
            job_type_id=key,
            pending_count=part[0],
            queued_count=part[1],
            running_count=part[2],
        )
        for key, part in sorted(parts.items())
        if any(part)
    )


def thin_out_load(*, now: datetime, kept_for: timedelta) -> int:
    """Drop samples that are no longer needed; return how many.

    Older than `kept_for` all, older than ALL_KEPT_FOR all but the first of each hour. In small
    transactions: who is killed has dropped some, and the next one goes on.
    """
    dropped = 0
    for rows in (
        LoadSample.objects.filter(measured__lt=now - kept_for),
        LoadSample.objects.filter(measured__lt=now - ALL_KEPT_FOR, is_first_of_hour=False),
    ):
        while keys := list(rows.order_by("measured").values_list("pk", flat=True)[:_BATCH]):
            with transaction.atomic():
                JobTypeLoad.objects.filter(sample__in=keys).delete()
                LoadSample.objects.filter(pk__in=keys).delete()
            dropped += len(keys)
    return dropped
