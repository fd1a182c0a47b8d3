"""Why what waits was not placed: worked out after placement, stored by shape, shown by `waiting`.

The planner itself says it, of a cluster in which each node without an offer in hand has free what
its tasks leave. What it would launch there waits for an offer only.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from django.db.models import Sum

from scale.core.cluster import Offer
from scale.core.lifecycle import HAS_TASK
from scale.core.placement import Shape, plan
from scale.core.reasons import NOT_CONNECTED, Reason, waits_for_offer
from scale.core.resources import Resources
from scale.job.bulk import storable
from scale.job.models import JobExecution, values
from scale.node.models import Node
from scale.scheduler.leader import Leadership
from scale.scheduler.means import Means
from scale.scheduler.models import WaitingShape
from scale.scheduler.overview import left_of
from scale.scheduler.placing import Placing
from scale.scheduler.snapshot import LAUNCH_LIMIT, Turn, shape_key, snapshot, waiting_shapes

#: Reasons are worked out no more often than this, in seconds,
EVERY_S: Final = 1.0
#: and never for more than this share of the time.
SHARE: Final = 0.05
#: A connection may be away for so long before it is a reason: it is at each change of leaders.
CUT_OFF_S: Final = 5.0

_SHAPE: Final = ("job_type", "needs_millicpus", "needs_mem_mib", "needs_disk_mib")
_REASON: Final = ("code", "message", "since")


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a row of the table says, since when it has had this code, and its key."""

    reason: Reason
    since: datetime
    pk: int | None = None


class Explaining:
    """Keeps the table of reasons true. `wanted` says that a reason may have changed."""

    def __init__(self, means: Means, placing: Placing) -> None:
        self._means = means
        self._placing = placing
        # What is stored: nobody else writes it. Read at the first look.
        self._stored: dict[Shape, _Stored] | None = None
        self._turn = Turn()
        self._not_before_s = means.monotonic()
        self._cut_off_s: float | None = None
        self.wanted = True

    def explain(self, *, connected: bool) -> None:
        """Store what changed, if it is time to look; no statement if nothing may have changed."""
        began_s = self._means.monotonic()
        if connected:
            self._cut_off_s = None
        elif self._cut_off_s is None:
            self._cut_off_s = began_s
        if not self.wanted or began_s < self._due_s():
            return
        start = self._turn.after
        shapes = self._means.stored(lambda: self._look(connected=connected))
        took_s = self._means.monotonic() - began_s
        self._not_before_s = began_s + max(EVERY_S, took_s / SHARE)
        # More shapes than one look takes: go on where it ended, but once around only.
        self.wanted = self._turn.after is not None and not _went_around(shapes, start)

    def next_s(self) -> float | None:
        """Return when to look again on the monotonic clock; None until something happens."""
        return self._due_s() if self.wanted else None

    def _due_s(self) -> float:
        if self._cut_off_s is None:
            return self._not_before_s
        return max(self._not_before_s, self._cut_off_s + CUT_OFF_S)

    def _look(self, *, connected: bool) -> list[Shape]:
        means = self._means
        if self._stored is None:
            self._stored = _read()
        start = self._turn.after
        shapes = waiting_shapes(self._turn)
        if not connected:
            reasons = dict.fromkeys(shapes, NOT_CONNECTED)
        else:
            reasons = _reasons(shapes, means.book.offers(), self._placing.reserved, now=means.now())
        changed = _changed(self._stored, reasons, now=means.now())
        passed = _passed(self._stored, start, self._turn.after)
        gone = [shape for shape in passed if shape not in reasons]
        if changed or gone:
            _write(self._stored, changed, gone, means.leadership)
        return shapes


def _went_around(shapes: Sequence[Shape], start: Shape | None) -> bool:
    return start is not None and bool(shapes) and shape_key(shapes[-1]) <= shape_key(start)


def _passed(stored: Iterable[Shape], start: Shape | None, end: Shape | None) -> list[Shape]:
    """Return the shapes that a look after `start` up to `end` has passed.

    It began with the first if there is no start, and has seen all if there is no end.
    """
    if end is None:
        return list(stored)
    first = shape_key(start) if start else (-1,)
    last = shape_key(end)
    if first < last:
        return [each for each in stored if first < shape_key(each) <= last]
    return [each for each in stored if not last < shape_key(each) <= first]


def _reasons(
    shapes: Sequence[Shape],
    offers: Sequence[Offer],
    reserved: Mapping[Resources, str],
    *,
    now: datetime,
) -> dict[Shape, Reason]:
    """Return why each of these shapes waits; nine queries, none without shapes.

    What left the queue meanwhile is not in the answer.
    """
    if not shapes:
        return {}
    elsewhere = _free_without_offers({offer.agent_id for offer in offers})
    room = (*offers, *elsewhere)
    most = max(1, LAUNCH_LIMIT // len(shapes))
    seen = snapshot(room, reserved, shapes, now=now, most_of_each=most)
    planned = plan(replace(seen, offers=tuple(offers), elsewhere=elsewhere))
    shape_of = {each.execution_id: Shape(each.job_type_id, each.needs) for each in seen.waiting}
    names = {offer.agent_id: offer.hostname for offer in room}
    would_start = {
        shape_of[launch.execution_id]: waits_for_offer(names[launch.agent_id])
        for launch in planned.launches
        if launch.execution_id in shape_of
    }
    return would_start | dict(planned.reasons)


def _free_without_offers(in_hand: Collection[str]) -> tuple[Offer, ...]:
    """Return what the nodes that offer nothing now should have free; two queries."""
    rows = JobExecution.objects.filter(state__in=values(HAS_TASK)).values_list("agent_id")
    needs = rows.annotate(Sum("needs_millicpus"), Sum("needs_mem_mib"), Sum("needs_disk_mib"))
    taken = {agent_id: Resources(*amounts) for agent_id, *amounts in needs}
    nodes = Node.objects.filter(is_online=True, is_active=True, millicpus_total__isnull=False)
    columns = ("slave_id", "hostname", "millicpus_total", "mem_mib_total", "disk_mib_total")
    return tuple(
        Offer(
            offer_id="",
            agent_id=agent_id,
            hostname=hostname,
            address="",
            port=0,
            free=left_of(Resources(cpus, mem or 0, disk or 0), taken.get(agent_id, Resources())),
        )
        for agent_id, hostname, cpus, mem, disk in nodes.values_list(*columns)
        if agent_id not in in_hand
    )


def _changed(
    stored: Mapping[Shape, _Stored], reasons: Mapping[Shape, Reason], *, now: datetime
) -> dict[Shape, _Stored]:
    """Return what is to be stored; a new message with the same code holds since the code did."""
    changed = {}
    for shape, reason in reasons.items():
        old = stored.get(shape)
        if old is None or old.reason.code != reason.code:
            changed[shape] = _Stored(reason, now)
        elif old.reason != reason:
            changed[shape] = _Stored(reason, old.since, old.pk)
    return changed


def _read() -> dict[Shape, _Stored]:
    return {
        Shape(row.job_type_id, row.needs): _Stored(row.reason, row.since, row.pk)
        for row in WaitingShape.objects.all()
    }


def _write(
    stored: dict[Shape, _Stored],
    changed: Mapping[Shape, _Stored],
    gone: Iterable[Shape],
    leadership: Leadership,
) -> None:
    """Bring the table, and what is known of it, up to date; one statement for each, fenced."""
    rows = [
        WaitingShape(
            job_type_id=shape.job_type_id,
            needs_millicpus=shape.needs.millicpus,
            needs_mem_mib=shape.needs.mem_mib,
            needs_disk_mib=shape.needs.disk_mib,
            code=new.reason.code.value,
            message=storable(new.reason.message),
            since=new.since,
        )
        for shape, new in changed.items()
    ]
    keys = [key for shape in gone if (key := stored[shape].pk) is not None]
    with leadership.fenced():
        if keys:
            WaitingShape.objects.filter(pk__in=keys).delete()
        if rows:
            rows = WaitingShape.objects.bulk_create(
                rows, update_conflicts=True, unique_fields=_SHAPE, update_fields=_REASON
            )
    for shape in gone:
        del stored[shape]
    for (shape, new), row in zip(changed.items(), rows, strict=True):
        stored[shape] = replace(new, pk=row.pk)
