"""What placement needs to know, read in a fixed number of queries whatever the queue's length."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection
from django.db.models import Count, Q

from scale.core.cluster import Offer
from scale.core.lifecycle import ON_NODE, State
from scale.core.placement import Capacity, Holding, Shape, Snapshot, Waiting
from scale.core.reasons import (
    TYPE_INACTIVE,
    TYPE_PAUSED,
    Reason,
    backs_off,
    max_scheduled_reached,
)
from scale.core.resources import Resources
from scale.job.models import JobExecution, JobType, values
from scale.job.orders import phase_needs
from scale.node.models import Node
from scale.scheduler.backoff import PATIENCE, room_after_failures
from scale.scheduler.cleanup import cleanups_wait
from scale.scheduler.models import SchedulerState
from scale.scheduler.probes import probes_wait
from scale.scheduler.selectors import first_those, shown

#: At most this many executions start in a round; more wait for the next, which follows at once.
LAUNCH_LIMIT: Final = 500
#: Different (job type, needs) that are looked at in a round.
SHAPE_LIMIT: Final = 2000

# From each shape to the next by the index `execution_queue`: the cost is the number of shapes, not
# of executions that wait.
_SHAPES: Final = """
WITH RECURSIVE shape AS (
    (SELECT job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib
       FROM job_execution
      WHERE state = 'queued'
        AND (job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib) > (%s, %s, %s, %s)
      ORDER BY job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib LIMIT 1)
    UNION ALL
    SELECT next.* FROM shape, LATERAL (
        SELECT job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib
          FROM job_execution
         WHERE state = 'queued'
           AND (job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib)
             > (shape.job_type_id, shape.needs_millicpus, shape.needs_mem_mib, shape.needs_disk_mib)
         ORDER BY job_type_id, needs_millicpus, needs_mem_mib, needs_disk_mib LIMIT 1
    ) AS next
)
SELECT * FROM shape LIMIT %s
"""
_HEADS: Final = """
SELECT head.id, shape.job_type_id, head.priority, shape.millicpus, shape.mem, shape.disk
  FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::int[], %s::int[])
       AS shape (job_type_id, millicpus, mem, disk, wanted),
       LATERAL (
           SELECT id, priority, queued FROM job_execution
            WHERE state = 'queued' AND job_type_id = shape.job_type_id
              AND needs_millicpus = shape.millicpus AND needs_mem_mib = shape.mem
              AND needs_disk_mib = shape.disk
            ORDER BY priority, queued, id LIMIT shape.wanted
       ) AS head
 ORDER BY head.priority, head.queued, head.id LIMIT %s
"""

_NEEDS: Final = ("needs_millicpus", "needs_mem_mib", "needs_disk_mib")


def something_waits(*, now: datetime) -> bool:
    """Return whether anything might start if there were offers; four queries at most."""
    return (
        JobExecution.objects.filter(state=State.QUEUED.value).exists()
        or JobExecution.objects.filter(state=State.HOLDING.value).exists()
        or cleanups_wait()
        or probes_wait(now=now)
    )


@dataclass(slots=True)
class Turn:
    """Where the next look at the shapes begins, if there are too many for one look."""

    after: Shape | None = None


def waiting_shapes(turn: Turn | None = None, *, limit: int = SHAPE_LIMIT) -> list[Shape]:
    """Return which shapes wait; one query, or two beyond the limit.

    Beyond it, each look goes on where the last one of this `turn` ended, so that none is starved.
    """
    turn = turn or Turn()
    shapes = _shapes_after(turn.after, limit)
    if turn.after is not None and len(shapes) < limit:
        first = _shapes_after(None, limit - len(shapes))
        shapes += [shape for shape in first if shape_key(shape) <= shape_key(turn.after)]
    turn.after = shapes[-1] if len(shapes) == limit else None
    return shapes


def shape_key(shape: Shape) -> tuple[int, int, int, int]:
    """Return what shapes are sorted by, in the queue's index and wherever they are walked."""
    needs = shape.needs
    return shape.job_type_id, needs.millicpus, needs.mem_mib, needs.disk_mib


def _shapes_after(after: Shape | None, limit: int) -> list[Shape]:
    least = (-1, -1, -1, -1) if after is None else shape_key(after)
    with connection.cursor() as cursor:
        cursor.execute(_SHAPES, [*least, limit])
        return [Shape(row[0], Resources(*row[1:])) for row in cursor.fetchall()]


def heads(wanted: Mapping[Shape, int]) -> list[Waiting]:
    """Return the most urgent executions, up to so many of each shape; one query."""
    if not wanted:
        return []
    columns = [
        (shape.job_type_id, shape.needs.millicpus, shape.needs.mem_mib, shape.needs.disk_mib, count)
        for shape, count in wanted.items()
    ]
    # Heads of shapes that fit nowhere must not crowd out what fits.
    limit = 2 * LAUNCH_LIMIT + len(columns)
    with connection.cursor() as cursor:
        cursor.execute(_HEADS, [*map(list, zip(*columns, strict=True)), limit])
        return [
            Waiting(
                execution_id=row[0],
                job_type_id=row[1],
                priority=row[2],
                needs=Resources(*row[3:]),
            )
            for row in cursor.fetchall()
        ]


def held_executions(agent_ids: Collection[str] = ()) -> list[Holding]:
    """Return executions between two phases, oldest first; one query.

    Those on these agents come before the others, which must not crowd them out.
    """
    rows = (
        JobExecution.objects.filter(state=State.HOLDING.value, stopping_since=None)
        .select_related("job")
        .only("agent_id", "phase", *_NEEDS, "job__mem_required")
        .order_by(first_those(Q(agent_id__in=agent_ids)), "id")[:LAUNCH_LIMIT]
    )
    return [
        Holding(execution_id=row.pk, agent_id=row.agent_id, needs=phase_needs(row)) for row in rows
    ]


class Limit(NamedTuple):
    """How many more of a job type may start, and why no more than that."""

    room: int
    reason: Reason


def headroom(job_type_ids: Iterable[int], *, now: datetime) -> dict[int, Limit]:
    """Return the limits of these job types; absent is no limit. Two queries at most.

    A paused or inactive type may start none, nor one that waits after failed launches.
    """
    types = JobType.objects.filter(pk__in=set(job_type_ids)).only(
        "is_paused", "is_active", "max_scheduled", "launch_failures", "launch_after"
    )
    limits, counted = {}, []
    for row in types:
        if row.is_paused or not row.is_active:
            limits[row.pk] = Limit(0, TYPE_PAUSED if row.is_paused else TYPE_INACTIVE)
        elif row.max_scheduled is not None or row.launch_failures >= PATIENCE:
            counted.append(row)
    counts = _on_nodes(counted)
    for row in counted:
        limits[row.pk] = min(_limits(row, *counts.get(row.pk, (0, 0)), now), key=lambda it: it.room)
    return limits


def _limits(row: JobType, running: int, starting: int, now: datetime) -> Iterator[Limit]:
    room = room_after_failures(row.launch_failures, row.launch_after, starting, now=now)
    if room is not None:
        until = row.launch_after if row.launch_after and row.launch_after > now else None
        yield Limit(room, backs_off(row.launch_failures, shown(until) if until else None))
    if row.max_scheduled is not None:
        most = row.max_scheduled
        yield Limit(max(0, most - running), max_scheduled_reached(most))


def _on_nodes(types: Sequence[JobType]) -> dict[int, tuple[int, int]]:
    """Return how many of each type are on nodes, and how many of those are starting."""
    if not types:
        return {}
    rows = (
        JobExecution.objects.filter(state__in=values(ON_NODE), job_type__in=types)
        .values_list("job_type")
        .annotate(running=Count("pk"), starting=Count("pk", filter=Q(state=State.STARTING.value)))
    )
    return {pk: (running, starting) for pk, running, starting in rows}


def snapshot(
    offers: Sequence[Offer],
    reserved: Mapping[Resources, str],
    shapes: Sequence[Shape],
    *,
    now: datetime,
    most_of_each: int = LAUNCH_LIMIT,
) -> Snapshot:
    """Read what waits of these shapes and what may run where; about seven queries.

    `reserved` is what the plan of the last round says.
    """
    limits = headroom((shape.job_type_id for shape in shapes), now=now)
    room = {pk: limit.room for pk, limit in limits.items()}
    sizes, paused = _nodes()
    wanted = {}
    capacity = Capacity(offers)
    for shape in shapes:
        most = min(room.get(shape.job_type_id, most_of_each), most_of_each)
        # One more than fits, so that what waits is seen to wait.
        wanted[shape] = min(most, capacity.of(shape.needs, most) + 1) if most else 1
    return Snapshot(
        offers=tuple(offers),
        paused_nodes=paused,
        nodes_total=sizes,
        holding=tuple(held_executions({offer.agent_id for offer in offers})),
        waiting=tuple(heads(wanted)),
        headroom=room,
        limits={pk: limit.reason for pk, limit in limits.items()},
        scheduler_paused=SchedulerState.objects.values_list("is_paused", flat=True).get(),
        reserved=reserved,
    )


def _nodes() -> tuple[dict[str, Resources], frozenset[str]]:
    """Return the sizes of the nodes that are there, and which take nothing new; one query."""
    rows = Node.objects.values_list(
        "slave_id",
        "is_online",
        "is_active",
        "is_paused",
        "is_paused_errors",
        "millicpus_total",
        "mem_mib_total",
        "disk_mib_total",
    )
    sizes, closed = {}, set()
    for agent_id, is_online, is_active, is_paused, has_errors, millicpus, mem, disk in rows:
        if is_paused or has_errors or not is_active:
            closed.add(agent_id)
        if is_online and is_active and millicpus:
            sizes[agent_id] = Resources(millicpus, mem or 0, disk or 0)
    return sizes, frozenset(closed)
