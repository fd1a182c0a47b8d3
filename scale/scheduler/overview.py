"""The whole at a glance: the scheduler, the nodes, what waits and what is used.

Nothing here reads ended executions: each query goes by an index to what lives, or to the nodes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import Count, Q, QuerySet, Sum

from scale.core.lifecycle import HAS_TASK, ON_NODE, JobStatus, State, Status
from scale.core.resources import Resources
from scale.error.models import Error
from scale.job.models import JobExecution, values
from scale.job.tallies import (
    executions_by_error,
    executions_by_job_type,
    executions_by_status,
    jobs_by_job_type,
)
from scale.node.models import Node
from scale.scheduler.figures import Measured
from scale.scheduler.models import SchedulerState
from scale.scheduler.selectors import is_alive, scheduler_state
from scale.scheduler.snapshot import SHAPE_LIMIT, waiting_shapes

# Nodes that are named with what keeps them from work.
_MOST_TROUBLES: Final = 100
_TROUBLED: Final = ("paused", "degraded", "offline")
_FLAGS: Final = ("is_active", "is_online", "is_paused", "is_paused_errors")


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
    """Return how the nodes are; two queries, which read the nodes."""
    states = Counter(dict.fromkeys(("ready", *_TROUBLED, "inactive"), 0))
    total = Resources()
    sums = [Sum(f"{name}_total", default=0) for name in ("millicpus", "mem_mib", "disk_mib")]
    for *flags, count, millicpus, mem, disk in (
        Node.objects.order_by().values_list(*_FLAGS).annotate(Count("id"), *sums)
    ):
        row = dict(zip(_FLAGS, flags, strict=True))
        states[_state_of({**row, "pause_reason": None})[0]] += count
        if row["is_online"] and row["is_active"]:
            total += Resources(millicpus, mem, disk)
    wrong = Q(is_online=False) | Q(is_paused=True) | Q(is_paused_errors=True)
    rows = Node.objects.filter(wrong, is_active=True).order_by("id")
    troubles = [
        Trouble(row["id"], row["hostname"], *_state_of(row))
        for row in rows.values("id", "hostname", "pause_reason", *_FLAGS)[:_MOST_TROUBLES]
    ]
    return Fleet(dict(states), troubles, total)


def _state_of(node: dict[str, Any]) -> tuple[str, str]:
    """Return the health of a node, and why; those that were retired are counted apart."""
    if not node["is_active"]:
        return "inactive", ""
    health, reason = Node.health_of(node)
    return health.value.lower(), reason or ""


def used() -> Resources:
    """Return what the tasks that live were placed by; one query, which reads each of them.

    About a millisecond for a thousand: for the leader at its heartbeat, not for each who asks.
    """
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
    """`is_alive`: a leader has shown a sign of life within the last 12 s.

    `measured` is what the last leader stored with that, `executions` maps each status to how many
    have it. What is used, and offered, is as of the sign of life, too.
    """

    scheduler: SchedulerState | None
    measured: Measured | None
    is_alive: bool
    executions: dict[str, int]
    fleet: Fleet

    @property
    def used(self) -> Resources:
        return self.measured.used if self.measured else Resources()

    @property
    def queue_depth(self) -> int:
        return self.executions[Status.QUEUED]


def overview(*, now: datetime) -> Overview:
    """Return how everything is; four queries, whose cost does not grow with the work."""
    state = scheduler_state()
    executions = dict.fromkeys((each.value for each in Status), 0) | executions_by_status()
    measured = Measured.of(state.figures) if state else None
    return Overview(state, measured, is_alive(state, now=now), executions, fleet())


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for: by how many, and by those that wait and those that run together."""

    pending: int
    queued: int
    running: int
    queued_resources: Resources
    running_resources: Resources


def demand() -> Demand:
    """Return what waits and runs; five queries at most.

    Executions of job types with one shape in the queue are not counted one by one. Of the others
    the queue's index is read, about 0.1 s for a million of them.
    """
    executions = executions_by_job_type()
    queued = {pk: counts.get(Status.QUEUED, 0) for pk, counts in executions.items()}
    jobs = jobs_by_job_type().values()
    pending = sum(counts.get(JobStatus.PENDING, 0) for counts in jobs)
    running, taken = _sums(JobExecution.objects.filter(state__in=values(ON_NODE)))
    return Demand(pending, sum(queued.values()), running, _asked_by(queued), taken)


def _asked_by(queued: Mapping[int, int]) -> Resources:
    """Return what the queue needs; `queued` is how many of each job type there are."""
    shapes = waiting_shapes()
    if len(shapes) == SHAPE_LIMIT:
        return _sums(JobExecution.objects.filter(state=State.QUEUED.value))[1]
    shapes_of = Counter(shape.job_type_id for shape in shapes)
    several = [pk for pk, count in shapes_of.items() if count > 1]
    total = Resources()
    if several:
        waiting = JobExecution.objects.filter(state=State.QUEUED.value, job_type_id__in=several)
        total = _sums(waiting)[1]
    for shape in shapes:
        if shapes_of[shape.job_type_id] == 1:
            total += shape.needs * queued.get(shape.job_type_id, 0)
    return total


def states_on_nodes() -> dict[str, int]:
    """Return how many executions are in each state on a node; one query."""
    rows = (
        JobExecution.objects.filter(state__in=values(ON_NODE))
        .values_list("state")
        .annotate(Count("id"))
    )
    return dict.fromkeys(values(ON_NODE), 0) | dict(rows)


def failures_by_category() -> dict[str, int]:
    """Return how many executions failed by errors of each category; two queries."""
    found = Counter(dict.fromkeys(Error.Category.values, 0))
    categories = dict(Error.objects.values_list("id", "category"))
    for error_id, count in executions_by_error().items():
        found[categories[error_id]] += count
    return dict(found)


@dataclass(frozen=True, slots=True)
class Owed:
    """How much is to be done after executions that ended; `logs_since`: the oldest of those."""

    logs: int
    logs_since: datetime | None
    cleanups: int


def owed() -> Owed:
    """Return what is owed; three queries, which read what is owed by indexes of its own."""
    logs = JobExecution.objects.filter(logs_owed=True)
    oldest = logs.order_by("id").values_list("ended", flat=True).first()
    return Owed(logs.count(), oldest, JobExecution.objects.filter(cleanup_owed=True).count())
