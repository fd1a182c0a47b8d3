"""Why something waits, for whoever asks: from the same rules as placement, at the time of asking.

Placement sees offers; here the free part of a node is its size without the tasks that live there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import Count, Sum

from scale.core.lifecycle import HAS_TASK, ON_NODE, State
from scale.core.reasons import (
    MAX_SCHEDULED_REACHED,
    SCHEDULER_PAUSED,
    Reason,
    Room,
    Shortage,
    WaitCode,
    no_room_at_all,
    waits_for_its_node,
)
from scale.core.resources import Resources
from scale.job.models import JobExecution, JobType, values
from scale.job.services import needs_of
from scale.node.models import Node
from scale.scheduler.overview import left_of
from scale.scheduler.selectors import scheduler_state
from scale.scheduler.snapshot import waiting_shapes

_TYPE_PAUSED: Final = Reason(WaitCode.JOB_TYPE_PAUSED, "its job type is paused")
_TYPE_INACTIVE: Final = Reason(WaitCode.JOB_TYPE_PAUSED, "its job type is not active")


@dataclass(frozen=True, slots=True)
class Wait:
    """`since`: it has waited since then, and for this reason no longer than that."""

    reason: Reason
    since: datetime


@dataclass(frozen=True, slots=True)
class _Cluster:
    """The nodes that are there: those that take new work, and the sizes of those that do not."""

    rooms: list[Room]
    closed: list[Resources]

    def reason(self, needs: Resources) -> Reason | None:
        """Return what these needs lack; None if a node has room for them."""
        if not any(needs.fits_in(room.total) for room in self.rooms):
            return no_room_at_all(needs, [room.total for room in self.rooms], self.closed)
        if any(needs.fits_in(room.free) for room in self.rooms):
            return None
        return Shortage(self.rooms, kept=0).explain(needs)


def why_execution_waits(execution: JobExecution, *, now: datetime) -> Wait | None:
    """Return why this one waits; None if it does not, or if nothing is in its way that we know.

    Comes with its job type and node. No query unless it waits, five at most then.
    """
    if execution.state == State.HOLDING:
        return _why_held(execution)
    if execution.state != State.QUEUED:
        return None
    waits = _why_types_wait(
        {execution.job.job_type: needs_of(execution)},
        {execution.job_type_id: execution.queued},
        now=now,
    )
    return waits.get(execution.job_type_id)


def why_job_types_wait(since: Mapping[int, datetime], *, now: datetime) -> dict[int, Wait]:
    """Return why the least demanding work of each of these job types waits; six queries at most.

    `since` maps the types to when their oldest execution was queued.
    """
    if not since:
        return {}
    needs: dict[int, Resources] = {}
    for shape in waiting_shapes():
        needs.setdefault(shape.job_type_id, shape.needs)
    types = JobType.objects.filter(pk__in=since).defer("interface", "error_mapping")
    asked = {row: needs[row.pk] for row in types if row.pk in needs}
    return _why_types_wait(asked, since, now=now)


def _why_types_wait(
    asked: Mapping[JobType, Resources], since: Mapping[int, datetime], *, now: datetime
) -> dict[int, Wait]:
    state = scheduler_state()
    if state is not None and state.is_paused:
        return {row.pk: Wait(SCHEDULER_PAUSED, since[row.pk]) for row in asked}
    running = _running(row for row in asked if row.max_scheduled is not None)
    cluster = _cluster()
    waits = {}
    for row, needs in asked.items():
        reason = _held_back(row, running.get(row.pk, 0), now) or cluster.reason(needs)
        if reason is not None:
            waits[row.pk] = Wait(reason, _since(row, reason, since[row.pk]))
    return waits


def _since(row: JobType, reason: Reason, queued: datetime) -> datetime:
    if reason.code is WaitCode.JOB_TYPE_PAUSED and row.paused is not None:
        return max(row.paused, queued)
    return queued


def _held_back(row: JobType, running: int, now: datetime) -> Reason | None:
    """Return why the type itself may not start anything."""
    if row.is_paused:
        return _TYPE_PAUSED
    if not row.is_active:
        return _TYPE_INACTIVE
    if row.launch_after is not None and row.launch_after > now:
        left_s = (row.launch_after - now).total_seconds()
        text = f"its launches failed {row.launch_failures} times; the next is in {left_s:.0f} s"
        return Reason(WaitCode.RETRY_BACK_OFF, text)
    if row.max_scheduled is not None and running >= row.max_scheduled:
        return MAX_SCHEDULED_REACHED
    return None


def _running(types: Iterable[JobType]) -> dict[int, int]:
    limited = [row.pk for row in types]
    if not limited:
        return {}
    rows = JobExecution.objects.filter(state__in=values(ON_NODE), job_type__in=limited)
    return dict(rows.values_list("job_type").annotate(Count("id")))


def _cluster() -> _Cluster:
    """Read the nodes and what their tasks take; two queries."""
    taken = _taken()
    rooms, closed = [], []
    for node in Node.objects.filter(is_online=True, is_active=True):
        total = _size(node)
        if node.is_paused or node.is_paused_errors:
            closed.append(total)
        else:
            rooms.append(
                Room(node.hostname, total, left_of(total, taken.get(node.pk, Resources())))
            )
    return _Cluster(rooms, closed)


def _size(node: Node) -> Resources:
    return Resources(node.millicpus_total or 0, node.mem_mib_total or 0, node.disk_mib_total or 0)


def _taken(node_id: int | None = None) -> dict[int, Resources]:
    live = JobExecution.objects.filter(state__in=values(HAS_TASK))
    if node_id is not None:
        live = live.filter(node_id=node_id)
    rows = live.values_list("node_id").annotate(
        Sum("needs_millicpus"), Sum("needs_mem_mib"), Sum("needs_disk_mib")
    )
    return {key: Resources(*amounts) for key, *amounts in rows}


def _why_held(execution: JobExecution) -> Wait:
    """Explain why the next phase waits; one query."""
    assert execution.node is not None  # the database says so
    needs, total = needs_of(execution), _size(execution.node)
    free = left_of(total, _taken(execution.node.pk).get(execution.node.pk, Resources()))
    room = None if needs.fits_in(free) else Room(execution.node.hostname, total, free)
    ends = (execution.pre_completed, execution.job_completed, execution.started)
    since = max(at for at in ends if at is not None)
    return Wait(waits_for_its_node(needs, room), since)
