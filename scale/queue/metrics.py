"""What ended on each day, by job type and by error: worked out once, when the day is over."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models import (
    Count,
    DurationField,
    ExpressionWrapper,
    F,
    Max,
    Min,
    Q,
    QuerySet,
    Sum,
    Value,
)
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from scale.core.lifecycle import TERMINAL
from scale.error.models import Error
from scale.job.models import JobExecution, values
from scale.queue.models import TIMES, DailyError, DailyJobType, MeasuredDay

#: What ended just before midnight may be stored a little later.
_GRACE: Final = timedelta(minutes=10)
_NOTHING: Final = Value(timedelta(0), DurationField())


def days_to_measure(*, now: datetime, kept_for: timedelta) -> list[date]:
    """Return the days, in UTC, that are over and have no metrics, oldest first; two queries.

    They begin with the first execution that ended, and no earlier than `kept_for` ago.
    """
    last = (now - _GRACE).astimezone(UTC).date() - timedelta(days=1)
    first = _start((now - kept_for).astimezone(UTC).date())
    oldest = _ended(first, now).order_by("last_modified").values_list("last_modified", flat=True)
    begun = oldest.first()
    if begun is None:
        return []
    day = begun.astimezone(UTC).date()
    done = set(MeasuredDay.objects.filter(pk__gte=day).values_list("pk", flat=True))
    days = (day + timedelta(days=n) for n in range((last - day).days + 1))
    return [each for each in days if each not in done]


def measure_day(day: date) -> bool:
    """Work out the metrics of a day; False if they are there already.

    One transaction of five statements, by the index on the last change, which is when an
    execution ended. The database sums up: what comes back is one row for each job type and error.
    """
    try:
        with transaction.atomic():
            MeasuredDay.objects.create(pk=day)
            rows = _ended(_start(day), _start(day + timedelta(days=1))).order_by()
            _store_job_types(day, rows)
            _store_errors(day, rows)
    except IntegrityError:
        if not MeasuredDay.objects.filter(pk=day).exists():
            raise
        return False  # another worker was first
    return True


def forget_days(*, now: datetime, kept_for: timedelta) -> int:
    """Drop the metrics of days that ended longer ago; return how many days."""
    before = (now - kept_for).astimezone(UTC).date()
    keys = list(MeasuredDay.objects.filter(pk__lt=before).values_list("pk", flat=True))
    for key in keys:
        with transaction.atomic():
            DailyJobType.objects.filter(day=key).delete()
            DailyError.objects.filter(day=key).delete()
            MeasuredDay.objects.filter(pk=key).delete()
    return len(keys)


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _ended(first: datetime, until: datetime) -> QuerySet[JobExecution]:
    """Return what ended from `first` on and before `until`: nothing changes it afterwards."""
    return JobExecution.objects.filter(
        state__in=values(TERMINAL), last_modified__gte=first, last_modified__lt=until
    )


def _store_job_types(day: date, ended: QuerySet[JobExecution]) -> None:
    category = "error__category"
    counts = {
        "completed_count": Count("id", filter=Q(state="completed")),
        "failed_count": Count("id", filter=Q(state="failed")),
        "canceled_count": Count("id", filter=Q(state="canceled")),
        "total_count": Count("id"),
        "error_system_count": Count("id", filter=Q((category, Error.Category.SYSTEM.value))),
        "error_data_count": Count("id", filter=Q((category, Error.Category.DATA.value))),
        "error_algorithm_count": Count("id", filter=Q((category, Error.Category.ALGORITHM.value))),
    }
    rows = ended.values("job_type_id").annotate(**counts, **_time_sums())
    DailyJobType.objects.bulk_create(DailyJobType(day_id=day, **_in_seconds(row)) for row in rows)


def _time_sums() -> dict[str, Any]:
    """Return the aggregates of each time; a time that an execution did not have is null."""
    phases = {
        each: F(f"{each}_completed") - F(f"{each}_started") for each in ("pre", "job", "post")
    }
    run = F("ended") - F("started")
    stage = run
    for each in phases.values():
        stage = stage - Coalesce(_duration(each), _NOTHING)
    times = {"queue": F("started") - F("queued"), **phases, "run": run, "stage": stage}
    how = {"count": Count, "sum": Sum, "min": Min, "max": Max}
    return {
        f"{kind}_time_{name}": aggregate(_duration(times[kind]))
        for kind in TIMES
        for name, aggregate in how.items()
    }


def _duration(expression: Any) -> Combinable:
    return ExpressionWrapper(expression, output_field=DurationField())


def _in_seconds(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn durations into seconds; a clock that was set back makes none of them negative."""
    return {
        name: max(value.total_seconds(), 0.0) if isinstance(value, timedelta) else value
        for name, value in row.items()
    }


def _store_errors(day: date, ended: QuerySet[JobExecution]) -> None:
    rows = ended.filter(error__isnull=False).values_list("error_id").annotate(Count("id"))
    DailyError.objects.bulk_create(
        DailyError(day_id=day, error_id=error_id, total_count=count) for error_id, count in rows
    )
