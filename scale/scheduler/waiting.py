"""Why something waits, for whoever asks: what the leader stored, or that there is no leader."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import F, Func, Q, Sum, TextField, Value
from django.db.models.lookups import In

from scale.core.lifecycle import HAS_TASK, State, Status
from scale.core.reasons import (
    NOT_CONNECTED,
    NOT_SEEN_YET,
    Reason,
    Room,
    WaitCode,
    no_scheduler,
    waits_for_its_node,
    waits_for_its_node_to_return,
)
from scale.core.resources import Resources
from scale.job.models import JobExecution, values
from scale.job.orders import phase_needs
from scale.node.models import Node
from scale.scheduler.models import SchedulerState, WaitingShape
from scale.scheduler.overview import left_of
from scale.scheduler.selectors import is_alive, scheduler_state, shown

_SHAPE: Final = ("job_type_id", "needs_millicpus", "needs_mem_mib", "needs_disk_mib")
_REASON: Final = ("code", "message", "since")
_BOTH: Final = (Status.QUEUED.value, Status.RUNNING.value)
# A shape as text, in Python and in SQL, to look for any of many.
_TEXT: Final = "{}/{}/{}/{}"
_SHAPE_TEXT: Final = Func(
    Value("/"), *map(F, _SHAPE), function="concat_ws", output_field=TextField()
)


@dataclass(frozen=True, slots=True)
class Wait:
    """`since`: it has waited for this reason since then."""

    reason: Reason
    since: datetime


def why_execution_waits(execution: JobExecution, *, now: datetime) -> Wait | None:
    """Return why this one waits; None if it does not.

    Comes with its job and node. No query unless it waits, two at most then.
    """
    if execution.state not in {State.QUEUED, State.HOLDING}:
        return None
    state = scheduler_state()
    if execution.state == State.HOLDING:
        return _why_held(execution, state, now=now)
    if not is_alive(state, now=now):
        return _without_scheduler(state, execution.queued)
    same = {name: getattr(execution, name) for name in _SHAPE}
    row = WaitingShape.objects.filter(**same).first()
    return _since(Wait(row.reason, row.since) if row else None, execution.queued)


def why_job_types_wait(queued: Mapping[int, datetime], *, now: datetime) -> dict[int, Wait]:
    """Return why the least demanding work of each of these job types waits; two queries at most.

    `queued` maps the types to when their oldest execution was queued.
    """
    if not queued:
        return {}
    state = scheduler_state()
    if not is_alive(state, now=now):
        return {pk: _without_scheduler(state, since) for pk, since in queued.items()}
    rows = WaitingShape.objects.order_by(*_SHAPE).distinct("job_type_id")
    least = {
        pk: Wait(Reason(WaitCode(code), message), since)
        for pk, code, message, since in rows.values_list("job_type_id", *_REASON)
    }
    return {pk: _since(least.get(pk), since) for pk, since in queued.items()}


def _without_scheduler(state: SchedulerState | None, queued: datetime) -> Wait:
    heartbeat = state.heartbeat if state else None
    return Wait(
        no_scheduler(shown(heartbeat) if heartbeat else None), max(heartbeat or queued, queued)
    )


def _since(shape: Wait | None, queued: datetime) -> Wait:
    """Return what the leader said of a shape; an execution waits no longer than it is queued."""
    if shape is None:
        return Wait(NOT_SEEN_YET, queued)
    return Wait(shape.reason, max(shape.since, queued))


def _why_held(execution: JobExecution, state: SchedulerState | None, *, now: datetime) -> Wait:
    """Explain why the next phase waits; one query more."""
    node = execution.node
    assert node is not None  # the database says so
    ends = (execution.pre_completed, execution.job_completed, execution.started)
    since = max(at for at in ends if at is not None)
    if not is_alive(state, now=now):
        return _without_scheduler(state, since)
    if state is not None and not state.is_connected:
        return Wait(NOT_CONNECTED, since)
    if execution.unreachable_since or not node.is_online:
        return Wait(waits_for_its_node_to_return(node.hostname), since)
    total = Resources(node.millicpus_total or 0, node.mem_mib_total or 0, node.disk_mib_total or 0)
    room = Room(node.hostname, total, left_of(total, _taken(node)))
    return Wait(waits_for_its_node(phase_needs(execution), room), since)


def _taken(node: Node) -> Resources:
    """Return what the tasks on a node were placed by; one query, by index `execution_live`."""
    live = JobExecution.objects.filter(state__in=values(HAS_TASK), node_id=node.pk)
    amounts = live.aggregate(
        millicpus=Sum("needs_millicpus", default=0),
        mem_mib=Sum("needs_mem_mib", default=0),
        disk_mib=Sum("needs_disk_mib", default=0),
    )
    return Resources(**amounts)


@dataclass(frozen=True, slots=True)
class Waiters:
    """Which executions wait for something: those with one of these statuses that fit a condition.

    The condition is empty if all of the statuses do, which is then all there is to look for. If it
    amounts to some job types, these are `job_type_ids`: counts of those are kept.
    """

    statuses: tuple[str, ...]
    condition: Q
    job_type_ids: tuple[int, ...] = ()


_QUEUED: Final = Waiters((Status.QUEUED.value,), Q())
_NOBODY: Final = Waiters((Status.QUEUED.value,), Q(pk__in=[]))


def waits_for(codes: Collection[str], *, now: datetime) -> Waiters:
    """Return which executions wait for one of these codes; three queries at most.

    By what the leader stored: what was queued since, about a second ago, waits for the same as
    others of its job type. Where all shapes of a type wait for it, the type alone is asked for, so
    that PostgreSQL knows how many to expect.
    """
    state = scheduler_state()
    held_by = WaitCode.WAITING_FOR_ITS_NODE
    if not is_alive(state, now=now):
        held_by = WaitCode.NO_SCHEDULER
        queued = _QUEUED if held_by in codes else _NOBODY
    else:
        if state is not None and not state.is_connected:
            held_by = WaitCode.NOT_CONNECTED
        queued = _queued_for(codes)
    held = Q(state=State.HOLDING.value)
    if held_by not in codes or not JobExecution.objects.filter(held).exists():
        return queued
    if queued is _NOBODY:
        return Waiters((Status.RUNNING.value,), held)
    return Waiters(_BOTH, held | Q(state=State.QUEUED.value) & queued.condition)


def _queued_for(codes: Collection[str]) -> Waiters:
    wanted: defaultdict[int, list[str]] = defaultdict(list)
    others: set[int] = set()
    for code, pk, *needs in WaitingShape.objects.values_list("code", *_SHAPE):
        if code in codes:
            wanted[pk].append(_TEXT.format(pk, *needs))
        else:
            others.add(pk)
    if not wanted:
        return _NOBODY
    if not others:
        return _QUEUED
    pure = tuple(sorted(wanted.keys() - others))
    condition = Q(job_type_id__in=pure)
    if mixed := sorted(wanted.keys() & others):
        texts = [text for pk in mixed for text in wanted[pk]]
        condition |= Q(job_type_id__in=mixed) & Q(In(_SHAPE_TEXT, texts))
    # Said twice: by the status there is an index in the order of lists, by the state the queue's.
    condition &= Q(state=State.QUEUED.value)
    return Waiters((Status.QUEUED.value,), condition, () if mixed else pure)
