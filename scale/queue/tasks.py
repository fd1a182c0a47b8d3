"""Background work of measuring; each task may come late, twice, or be killed half-way."""

import logging
import time
from datetime import timedelta
from typing import Final

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from scale.queue.load import sample_load, thin_out_load
from scale.queue.metrics import days_to_measure, forget_days, measure_day

logger = logging.getLogger(__name__)

# So that catching up on a year does not keep a thread of the worker; beat calls again.
_CATCH_UP_S: Final = 60.0


@shared_task
def measure_load() -> None:
    """Sample the load; beat calls it once a period (settings)."""
    sample_load(now=timezone.now(), period_s=settings.SCALE_LOAD_PERIOD_S)


@shared_task
def measure_days() -> None:
    """Work out the metrics of days that are over; beat calls it (settings)."""
    until = time.monotonic() + _CATCH_UP_S
    kept_for = timedelta(days=settings.SCALE_METRICS_KEPT_DAYS)
    for day in days_to_measure(now=timezone.now(), kept_for=kept_for):
        if measure_day(day):
            logger.info("measured a day", extra={"day": str(day)})
        if time.monotonic() > until:
            break


@shared_task
def forget_measures() -> None:
    """Drop what is too old or too fine; beat calls it (settings)."""
    now, kept_for = timezone.now(), timedelta(days=settings.SCALE_METRICS_KEPT_DAYS)
    thin_out_load(now=now, kept_for=kept_for)
    forget_days(now=now, kept_for=kept_for)
