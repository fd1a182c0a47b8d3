"""What people ask about what was measured."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db.models import QuerySet, Sum

from scale.job.models import JobType
from scale.queue.catalogue import Column, Metric
from scale.queue.models import DailyJobType, JobTypeLoad, LoadSample


@dataclass(frozen=True, slots=True, kw_only=True)
class OfJobTypes:
    """Which job types; an empty collection does not restrict."""

    ids: Collection[int] = ()
    names: Collection[str] = ()
    categories: Collection[str] = ()
    priorities: Collection[int] = ()

    def is_empty(self) -> bool:
        return not (self.ids or self.names or self.categories or self.priorities)

    def rows(self) -> QuerySet[JobType]:
        chosen = {
            "id__in": self.ids,
            "name__in": self.names,
            "category__in": self.categories,
            "priority__in": self.priorities,
        }
        return JobType.objects.filter(**{name: given for name, given in chosen.items() if given})


def load_samples(*, started: datetime, ended: datetime | None) -> QuerySet[LoadSample]:
    """Return the samples of a period, both ends included, oldest first."""
    rows = LoadSample.objects.filter(measured__gte=started)
    if ended is not None:
        rows = rows.filter(measured__lte=ended)
    return rows.order_by("measured")


@dataclass(frozen=True, slots=True)
class Load:
    """How many jobs were at hand at one time."""

    time: datetime
    pending_count: int
    queued_count: int
    running_count: int


_COUNTS = ("pending_count", "queued_count", "running_count")


def load_at(times: Sequence[datetime], wanted: OfJobTypes) -> list[Load]:
    """Return the load of these job types at each of these times, which have samples.

    One query, by the samples' own keys; none without times.
    """
    if not times:
        return []
    rows: QuerySet[Any, Any]
    if wanted.is_empty():
        rows = LoadSample.objects.filter(pk__in=times).values_list("measured", *_COUNTS)
    else:
        parts = JobTypeLoad.objects.filter(sample__in=times, job_type__in=wanted.rows())
        sums = [Sum(name) for name in _COUNTS]
        rows = parts.order_by().values_list("sample_id").annotate(*sums)
    found = {row[0]: Load(*row) for row in rows}
    return [found.get(at) or Load(at, 0, 0, 0) for at in times]


@dataclass(frozen=True, slots=True)
class PlotValue:
    """A value of one day; `choice_id` is None if all choices are taken together."""

    choice_id: int | None
    date: date
    value: float


def plot(
    metric: Metric,
    columns: Sequence[Column],
    *,
    started: date,
    ended: date,
    choice_ids: Collection[int] = (),
) -> dict[str, list[PlotValue]]:
    """Return column -> values by day, both ends included; several choices are told apart.

    One query. Days of which nothing is known have no value.
    """
    rows = metric.days._default_manager.filter(day__gte=started, day__lte=ended)
    keys = ["day_id"]
    if choice_ids:
        rows = rows.filter(**{f"{metric.choice}__in": choice_ids})
        keys.append(metric.choice)
    made = {f"of_{column.name}": column.expression() for column in columns}
    grouped: QuerySet[Any, Any] = rows.order_by(*keys).values(*keys).annotate(**made)
    found: dict[str, list[PlotValue]] = {column.name: [] for column in columns}
    for row in grouped:
        choice = row.get(metric.choice) if len(choice_ids) > 1 else None
        for column in columns:
            value = row[f"of_{column.name}"]
            if value is not None:
                found[column.name].append(PlotValue(choice, row["day_id"], value))
    return found


def ended_by_day(
    job_type_ids: Collection[int], *, started: date, ended: date
) -> dict[int, list[tuple[date, int]]]:
    """Return job type id -> day and how many executions ended then, oldest first; one query."""
    rows = DailyJobType.objects.filter(
        job_type_id__in=job_type_ids, day__gte=started, day__lte=ended
    )
    found: dict[int, list[tuple[date, int]]] = defaultdict(list)
    for key, day, count in rows.order_by("day").values_list("job_type_id", "day_id", "total_count"):
        found[key].append((day, count))
    return found
