"""The whole at a glance: the scheduler, the nodes, what waits and what is used.

Nothing here reads ended executions: each query goes by an index to what lives, or to the nodes.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.db.models import Count, QuerySet, Sum

from scale.core.lifecycle import HAS_TASK, ON_NODE, JobStatus, State
from scale.core.resources import Resources
from scale.job.models import Job, JobExecution, values
from scale.node.models import Node
from scale.scheduler.models import SchedulerState
from scale.scheduler.selectors import STALE_AFTER, scheduler_state

#: A longer queue is estimated.
EXACT_DEPTH: Final = 50_000
# Nodes that are named with what keeps them from work.
_MOST_TROUBLES: Final = 100
_TROUBLED: Final = ("paused", "degraded", "offline")

_DEPTH: Final = """
SELECT count(*) FROM (SELECT 1 FROM job_execution WHERE state = 'queued' LIMIT %s) AS queue
"""
# What the last ANALYZE or VACUUM counted in the index of the queue.
_ESTIMATE: Final = "SELECT reltuples::bigint FROM pg_class WHERE oid = 'execution_queue'::regclass"


@dataclass(frozen=True, slots=True)
class QueueDepth:
    count: int
    is_estimate: bool


def queue_depth() -> QueueDepth:
    """Return how many executions wait: one query, two if they are more than EXACT_DEPTH."""
    with connection.cursor() as cursor:
        cursor.execute(_DEPTH, [EXACT_DEPTH + 1])
        count: int = cursor.fetchone()[0]
        if count <= EXACT_DEPTH:
            return QueueDepth(count, is_estimate=False)
        cursor.execute(_ESTIMATE)
        return QueueDepth(max(count, cursor.fetchone()[0]), is_estimate=True)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A node that takes nothing new, and why."""

    id: int
    hostname: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """The nodes: how many are in each state, what is wrong with some, and how much they have.

    `total` sums the nodes that are online and active.
    """

    states: dict[str, int]
    troubles: list[Trouble]
    total: Resources


def fleet() -> Fleet:
    """Return how the nodes are; one query, which reads the nodes."""
    columns = ("id", "hostname", "is_active", "is_online", "is_paused", "is_paused_errors")
    sizes = ("millicpus_total", "mem_mib_total", "disk_mib_total")
    states = Counter(dict.fromkeys(("ready", *_TROUBLED, "inactive"), 0))
    troubles: list[Trouble] = []
    total = Resources()
    for row in Node.objects.order_by("id").values(*columns, *sizes, "pause_reason"):
        state, reason = _state_of(row)
        states[state] += 1
        if state in _TROUBLED and len(troubles) < _MOST_TROUBLES:
            troubles.append(Trouble(row["id"], row["hostname"], state, reason))
        if row["is_online"] and row["is_active"]:
            total += Resources(*(row[name] or 0 for name in sizes))
    return Fleet(dict(states), troubles, total)


def _state_of(node: dict[str, Any]) -> tuple[str, str]:
    if not node["is_active"]:
        return "inactive", "was retired"
    if not node["is_online"]:
        return "offline", "the cluster does not have it"
    if node["is_paused_errors"]:
        return "degraded", node["pause_reason"] or "too many errors"
    if node["is_paused"]:
        return "paused", node["pause_reason"] or "paused without a reason"
    return "ready", ""


def used() -> Resources:
    """Return what the tasks that live were placed by; one query, by index `execution_live`."""
    return _sums(JobExecution.objects.filter(state__in=values(HAS_TASK)))[1]


def _sums(rows: QuerySet[JobExecution]) -> tuple[int, Resources]:
    """Return how many executions, and what they need together."""
    found = rows.aggregate(
        count=Count("id"),
        cpus=Sum("needs_millicpus"),
        mem=Sum("needs_mem_mib"),
        disk=Sum("needs_disk_mib"),
    )
    needs = Resources(found["cpus"] or 0, found["mem"] or 0, found["disk"] or 0)
    return found["count"], needs


def left_of(total: Resources, taken: Resources) -> Resources:
    """Return what is free; no less than nothing if a node left while its tasks are counted."""
    return Resources(
        max(0, total.millicpus - taken.millicpus),
        max(0, total.mem_mib - taken.mem_mib),
        max(0, total.disk_mib - taken.disk_mib),
    )


@dataclass(frozen=True, slots=True)
class Overview:
    """`is_alive`: a leader has shown a sign of life within the last 12 s."""

    scheduler: SchedulerState | None
    is_alive: bool
    depth: QueueDepth
    fleet: Fleet
    used: Resources


def overview(*, now: datetime) -> Overview:
    """Return how everything is; four queries, five for a long queue."""
    state = scheduler_state()
    alive = (
        state is not None and state.heartbeat is not None and now - state.heartbeat <= STALE_AFTER
    )
    return Overview(state, alive, queue_depth(), fleet(), used())


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for: by how many, and by those that wait and those that run together."""

    pending: int
    queued: int
    running: int
    queued_resources: Resources
    running_resources: Resources


def demand() -> Demand:
    """Return what waits and runs; three queries.

    The one for what waits reads the queue's index, and no more than that.
    """
    queued, waiting = _sums(JobExecution.objects.filter(state=State.QUEUED.value))
    running, taken = _sums(JobExecution.objects.filter(state__in=values(ON_NODE)))
    pending = Job.objects.filter(status=JobStatus.PENDING.value).count()
    return Demand(pending, queued, running, waiting, taken)


def live_states() -> dict[str, int]:
    """Return how many executions are in each state on a node; one query."""
    rows = (
        JobExecution.objects.filter(state__in=values(ON_NODE))
        .values_list("state")
        .annotate(Count("id"))
    )
    return dict.fromkeys(values(ON_NODE), 0) | dict(rows)


def ended_since(at: datetime) -> Iterable[tuple[str, str, int]]:
    """Return status, category of the error, and how many jobs ended so since then; one query."""
    rows = (
        Job.objects.filter(
            status__in=["CANCELED", "COMPLETED", "FAILED"], last_status_change__gte=at
        )
        .values_list("status", "error__category")
        .annotate(Count("id"))
    )
    return [(status, category or "", count) for status, category, count in rows]


def owed() -> dict[str, int]:
    """Return how much is to be done after executions; one query for each, by their own indexes."""
    return {
        "logs": JobExecution.objects.filter(logs_owed=True).count(),
        "cleanups": JobExecution.objects.filter(cleanup_owed=True).count(),
    }
