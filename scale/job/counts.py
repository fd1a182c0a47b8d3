"""How many jobs and executions there are of each kind; what dashboards ask all the time.

Each count goes by an index to the rows that it counts, and reads no others.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Count, F, Max, Min, Q, QuerySet

from scale.core.lifecycle import HAS_TASK, JobStatus
from scale.error.models import Error
from scale.job.lists import Rows
from scale.job.models import Job, JobExecution, values


@dataclass(frozen=True, slots=True)
class Tally:
    """So many of one status; `category` is the error's, None unless they failed."""

    status: str
    count: int
    most_recent: datetime
    category: str | None


def executions_by_node(
    node_ids: Collection[int], *, started: datetime, ended: datetime | None
) -> dict[int, list[Tally]]:
    """Count the executions on these nodes that changed in a period; one query."""
    rows = JobExecution.objects.filter(node_id__in=node_ids, last_modified__gte=started)
    if ended is not None:
        rows = rows.filter(last_modified__lte=ended)
    return _tallies(_grouped(rows, "node_id", "last_modified"))


def running_on_nodes(node_ids: Collection[int], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the executions that have their task on one of these nodes, oldest first; one query.

    As `Rows` does: times are texts. Reads what has a task anywhere, by index `execution_live`.
    """
    # The sum has no index: what ever ran on these nodes is far more than what runs on all.
    on_node = JobExecution.objects.alias(on_node=F("node_id") + 0)
    rows = on_node.filter(on_node__in=node_ids, state__in=values(HAS_TASK))
    return Rows(rows).all(columns, ["started", "id"])


def jobs_by_type(
    job_type_ids: Collection[int], *, started: datetime, ended: datetime | None
) -> dict[int, list[Tally]]:
    """Count the jobs of these types that run, and those whose status changed in a period.

    Two queries: what runs is counted whenever it began, and each query has its index. Whatever
    changes the status is a modification; saying so lets the database choose `job_by_type`.
    """
    jobs = Job.objects.filter(job_type_id__in=job_type_ids)
    running = jobs.filter(status=JobStatus.RUNNING.value)
    changed = Q(last_modified__gte=started, last_status_change__gte=started)
    recent = jobs.filter(~Q(status=JobStatus.RUNNING.value), changed)
    if ended is not None:
        recent = recent.filter(last_status_change__lte=ended)
    return _tallies(
        [
            *_grouped(running, "job_type_id", "last_status_change"),
            *_grouped(recent, "job_type_id", "last_status_change"),
        ]
    )


#: How far back the details of a job type count, in hours.
WINDOWS_H: Final = (6, 12, 24)


def recent_jobs_of_type(job_type_id: int, *, now: datetime) -> dict[int, list[Tally]]:
    """Count the jobs of a type whose status changed in each of WINDOWS_H; hours -> tallies.

    One query, which reads the jobs that changed in the longest of them, by index `job_by_type`:
    whatever changes the status is a modification.
    """
    begin = {hours: now - timedelta(hours=hours) for hours in WINDOWS_H}
    first = min(begin.values())
    rows = (
        Job.objects.filter(
            job_type_id=job_type_id, last_modified__gte=first, last_status_change__gte=first
        )
        .order_by()
        .values_list("status", "error__category")
        .annotate(
            Max("last_status_change"),
            **{
                f"of_{each}_h": Count("id", filter=Q(last_status_change__gte=begin[each]))
                for each in WINDOWS_H
            },
        )
    )
    found: dict[int, list[Tally]] = {hours: [] for hours in WINDOWS_H}
    for status, category, most_recent, *counts in sorted(rows, key=lambda row: str(row[:2])):
        for hours, count in zip(WINDOWS_H, counts, strict=True):
            if count:
                found[hours].append(Tally(status, count, most_recent, category))
    return found


def _grouped(rows: QuerySet[Any, Any], key: str, changed: str) -> Iterable[tuple[Any, ...]]:
    found: Iterable[tuple[Any, ...]] = (
        rows.order_by()
        .values_list(key, "status", "error__category")
        .annotate(Count("id"), Max(changed))
    )
    return found


def _tallies(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[Tally]]:
    found: dict[int, list[Tally]] = defaultdict(list)
    for key, status, category, count, most_recent in sorted(rows, key=lambda row: str(row[:3])):
        found[key].append(Tally(status, count, most_recent, category))
    return found


def running_by_type() -> list[tuple[int, int, datetime]]:
    """Return job type, how many of it run, and since when the first does; oldest first.

    One query, which reads what runs.
    """
    rows = (
        Job.objects.filter(status=JobStatus.RUNNING.value)
        .values_list("job_type_id")
        .annotate(Count("id"), Min("last_status_change"))
    )
    return sorted(rows, key=lambda row: (row[2], row[0]))


@dataclass(frozen=True, slots=True)
class Failures:
    """How often jobs of one type failed by one error; the times are of the first and last."""

    job_type_id: int
    error_id: int
    count: int
    first_error: datetime
    last_error: datetime


def system_failures() -> list[Failures]:
    """Return what the system failed, most recent first; one query.

    It reads the entries of the jobs that failed so, by index `job_failed`.
    """
    rows = (
        Job.objects.filter(error__in=Error.objects.filter(category=Error.Category.SYSTEM))
        .values_list("job_type_id", "error_id")
        .annotate(Count("id"), Min("last_status_change"), Max("last_status_change"))
    )
    found = [Failures(*row) for row in rows]
    return sorted(found, key=lambda each: (each.last_error, each.job_type_id), reverse=True)
