"""Which execution starts on which node: a pure function from a snapshot to a plan.

Executions between two phases come first, on their own node; then the queue as it is sorted. Each
takes the fullest node that it fits (best fit). What is less obvious:

- A node on which a next phase does not fit yet takes no new work, and a shape that fits nowhere now
  but would fit an empty node has one such node reserved. Either ends when enough of what runs there
  has ended, so that small work starves neither next phases nor big work.
- A reservation closes a node only to what comes later in the queue. It is carried on to the next
  round and moves only to a node that lacks less. At most half of the nodes are reserved (one, if
  there is but one) and at most four, so that small work goes on beside big work. On a single node
  it waits until the big one fits: running work and next phases go on meanwhile, so it will.
- Within a round nodes only become fuller. What did not fit once fits no more, nor does anything
  that needs at least as much: a head of 100,000 such executions costs little more than one.

Cost: O(offers log offers + holding + waiting), and for each launch and each shape that does not fit
the scan of those nodes that have as much free in sum, but not of each kind.
"""

import sys
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from scale.core.cluster import Offer
from scale.core.reasons import (
    MAX_SCHEDULED_REACHED,
    SCHEDULER_PAUSED,
    Reason,
    Room,
    Shortage,
    no_room_at_all,
    waits_for_reserved,
)
from scale.core.resources import Resources

MAX_RESERVATIONS: Final = 4
_NOTHING: Final = Resources()


class Shape(NamedTuple):
    """What executions have in common that wait for the same reason."""

    job_type_id: int
    needs: Resources


@dataclass(frozen=True, slots=True)
class Holding:
    """An execution between two phases; `needs` is what the next one needs."""

    execution_id: int
    agent_id: str
    needs: Resources


@dataclass(frozen=True, slots=True)
class Waiting:
    """An execution in the queue."""

    execution_id: int
    job_type_id: int
    priority: int
    needs: Resources


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at the start of a round.

    Attributes:
        offers: in hand, in any order; several of one agent count as one.
        waiting: the queue, sorted by (priority, queued, id). Of each shape at least one, and no
            more than `Capacity` says can be launched.
        nodes_total: agent id -> size, of every node that is there, also without an offer now.
        paused_nodes: agent ids; they take next phases only.
        headroom: job type id -> how many more may start; absent = no limit.
        limits: job type id -> why no more than its headroom; absent = its max_scheduled.
        reserved: what the plan of the last round says; empty after a restart.
        elsewhere: what agents without an offer should have free; only to explain, and nothing is
            reserved there.
    """

    offers: tuple[Offer, ...]
    waiting: tuple[Waiting, ...] = ()
    holding: tuple[Holding, ...] = ()
    nodes_total: Mapping[str, Resources] = field(default_factory=dict)
    paused_nodes: frozenset[str] = frozenset()
    headroom: Mapping[int, int] = field(default_factory=dict)
    limits: Mapping[int, Reason] = field(default_factory=dict)
    scheduler_paused: bool = False
    reserved: Mapping[Resources, str] = field(default_factory=dict)
    elsewhere: tuple[Offer, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the next phase of this execution on this agent."""

    execution_id: int
    agent_id: str
    needs: Resources


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do in this round.

    Attributes:
        launches: next phases first, then new work, most urgent first.
        offers_used: agent id -> all its offers, for one ACCEPT.
        offers_unused: to decline; those of reserved nodes too, Mesos offers more when more is free.
        reasons: why what is left of a shape waits.
        held: ids of executions whose next phase waits for their node.
        reserved: needs -> agent id that is kept for them; hand it to the next round.
    """

    launches: tuple[Launch, ...]
    offers_used: Mapping[str, tuple[str, ...]]
    offers_unused: tuple[str, ...]
    reasons: Mapping[Shape, Reason]
    held: frozenset[int]
    reserved: Mapping[Resources, str]


def plan(snapshot: Snapshot) -> Plan:
    """Decide what starts where; the same snapshot gives the same plan, however offers are sorted.

    Launches on an agent never need more than its offers hold, and those of a job type are never
    more than its headroom.
    """
    current = _Round(snapshot)
    current.place_holding()
    if not snapshot.scheduler_paused:
        current.place_waiting()
    return current.outcome()


class Capacity:
    """How many of a shape some offers could take at most, if nothing else took any.

    Read so many rows of a shape, but always one: a shape that the planner does not see gets no
    reservation and no reason.
    """

    def __init__(self, offers: Iterable[Offer]) -> None:
        # Nodes that are full are many and alike.
        self._free = Counter(_pool(offers).values())

    def of(self, needs: Resources, most: int = sys.maxsize) -> int:
        """Return how many, or `most` if that is less; O(different nodes)."""
        count = 0
        for free, nodes in self._free.items():
            if needs.fits_in(free):
                count += nodes * _times(needs, free)
                if count >= most:
                    return most
        return count


def _times(needs: Resources, free: Resources) -> int:
    pairs = (
        (needs.millicpus, free.millicpus),
        (needs.mem_mib, free.mem_mib),
        (needs.disk_mib, free.disk_mib),
    )
    return min((there // need for need, there in pairs if need), default=sys.maxsize)


def _pool(offers: Iterable[Offer]) -> dict[str, Resources]:
    free: defaultdict[str, Resources] = defaultdict(Resources)
    for offer in offers:
        free[offer.agent_id] += offer.free
    return free


class _Nodes:
    """What is free on each agent, and those open to new work sorted from fullest to emptiest.

    Room is the sum of what is free, each kind as a share of the most that any agent has of it. It
    is linear and in whole numbers: needs that fit an agent never have more room than it has.
    """

    def __init__(self, free: dict[str, Resources]) -> None:
        self.free = free
        most = (
            max((each.millicpus for each in free.values()), default=0),
            max((each.mem_mib for each in free.values()), default=0),
            max((each.disk_mib for each in free.values()), default=0),
        )
        self._weights = tuple(2**40 // max(amount, 1) for amount in most)
        self._open: list[tuple[int, str]] = []
        self._too_big: list[Resources] = []

    def open(self, agent_ids: Iterable[str]) -> None:
        self._open = sorted((self._room(self.free[each]), each) for each in agent_ids)

    def close(self, agent_id: str) -> bool:
        """Keep new work off an agent; say whether it was open."""
        entry = (self._room(self.free.get(agent_id, _NOTHING)), agent_id)
        position = bisect_left(self._open, entry)
        if self._open[position : position + 1] != [entry]:
            return False
        del self._open[position]
        return True

    def open_ids(self) -> list[str]:
        return [agent_id for _, agent_id in self._open]

    def take(self, agent_id: str, needs: Resources) -> None:
        was_open = self.close(agent_id)
        self.free[agent_id] -= needs
        if was_open:
            insort(self._open, (self._room(self.free[agent_id]), agent_id))

    def best_fit(self, needs: Resources) -> str | None:
        """Return the fullest open agent that has the needs free."""
        if any(failed.fits_in(needs) for failed in self._too_big):
            return None
        start = bisect_left(self._open, (self._room(needs), ""))
        for _, agent_id in islice(self._open, start, None):
            if needs.fits_in(self.free[agent_id]):
                return agent_id
        # Only the smallest are kept. Few: needs of one job type differ in their disk alone.
        self._too_big = [each for each in self._too_big if not needs.fits_in(each)] + [needs]
        return None

    def lack(self, needs: Resources, agent_id: str) -> int:
        """Return how far an agent is from fitting the needs, as room."""
        free = self.free[agent_id]
        missing = Resources(
            max(0, needs.millicpus - free.millicpus),
            max(0, needs.mem_mib - free.mem_mib),
            max(0, needs.disk_mib - free.disk_mib),
        )
        return self._room(missing)

    def _room(self, resources: Resources) -> int:
        cpu, mem, disk = self._weights
        return resources.millicpus * cpu + resources.mem_mib * mem + resources.disk_mib * disk


class _Round:
    """The making of one plan."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        offers = (*snapshot.offers, *snapshot.elsewhere)
        free = _pool(offers)
        self._in_hand = {offer.agent_id for offer in snapshot.offers}
        self._totals = free | dict(snapshot.nodes_total)
        self._nodes = _Nodes(free)
        # Sizes are few where nodes are many, so that a shape is compared with them only.
        self._usable = sorted(self._totals.keys() - snapshot.paused_nodes)
        self._sizes = {self._totals[agent_id] for agent_id in self._usable}
        self._names = {offer.agent_id: offer.hostname for offer in offers}
        self._launches: list[Launch] = []
        self._held: dict[int, Holding] = {}
        self._stuck: dict[Shape, Reason | None] = {}
        self._reserved: dict[Resources, str] = {}

    def place_holding(self) -> None:
        for each in self._snapshot.holding:
            free = self._nodes.free.get(each.agent_id)
            if free is not None and each.needs.fits_in(free):
                self._launch(each.execution_id, each.agent_id, each.needs)
            else:
                self._held[each.execution_id] = each

    def place_waiting(self) -> None:
        kept = {each.agent_id for each in self._held.values() if self._could_ever_run(each)}
        self._nodes.open(
            agent_id
            for agent_id in self._nodes.free
            if agent_id not in self._snapshot.paused_nodes and agent_id not in kept
        )
        left = dict(self._snapshot.headroom)
        for each in self._snapshot.waiting:
            shape = Shape(each.job_type_id, each.needs)
            if shape in self._stuck:
                continue
            if left.get(each.job_type_id, 1) < 1:
                self._stuck[shape] = self._snapshot.limits.get(
                    each.job_type_id, MAX_SCHEDULED_REACHED
                )
            elif (agent_id := self._nodes.best_fit(each.needs)) is None:
                self._stuck[shape] = None
                self._reserve(each.needs)
            else:
                self._launch(each.execution_id, agent_id, each.needs)
                if each.job_type_id in left:
                    left[each.job_type_id] -= 1

    def outcome(self) -> Plan:
        by_agent: defaultdict[str, list[str]] = defaultdict(list)
        for offer in self._snapshot.offers:
            by_agent[offer.agent_id].append(offer.offer_id)
        used = {launch.agent_id for launch in self._launches}
        return Plan(
            launches=tuple(self._launches),
            offers_used={each: tuple(sorted(by_agent[each])) for each in sorted(used)},
            offers_unused=tuple(
                sorted(offer_id for each in by_agent.keys() - used for offer_id in by_agent[each])
            ),
            reasons=self._reasons(),
            held=frozenset(self._held),
            reserved=self._reserved,
        )

    def _launch(self, execution_id: int, agent_id: str, needs: Resources) -> None:
        self._nodes.take(agent_id, needs)
        self._launches.append(Launch(execution_id, agent_id, needs))

    def _could_ever_run(self, each: Holding) -> bool:
        return each.needs.fits_in(self._totals.get(each.agent_id, _NOTHING))

    def _reserve(self, needs: Resources) -> None:
        """Keep a node for needs that fit nowhere now.

        The one that lacks least, of those in hand: of the others nothing is known, and nothing of
        theirs can be given away. A node chosen earlier is kept while it is not in hand.
        """
        limit = max(1, min(MAX_RESERVATIONS, len(self._usable) // 2))
        if needs in self._reserved or len(self._reserved) >= limit or not self._fits_a_size(needs):
            return
        taken = set(self._reserved.values())
        large = [
            agent_id
            for agent_id in self._usable
            if agent_id not in taken and needs.fits_in(self._totals[agent_id])
        ]
        kept = self._snapshot.reserved.get(needs)
        if kept in large and kept not in self._in_hand:
            large = [kept]
        else:
            large = [agent_id for agent_id in large if agent_id in self._in_hand]
        if large:
            chosen = min(large, key=lambda each: (self._lack(needs, each), each != kept, each))
            self._reserved[needs] = chosen
            self._nodes.close(chosen)

    def _lack(self, needs: Resources, agent_id: str) -> int:
        return self._nodes.lack(needs, agent_id) if agent_id in self._nodes.free else 0

    def _fits_a_size(self, needs: Resources) -> bool:
        return any(needs.fits_in(size) for size in self._sizes)

    def _reasons(self) -> dict[Shape, Reason]:
        if self._snapshot.scheduler_paused:
            return {
                Shape(each.job_type_id, each.needs): SCHEDULER_PAUSED
                for each in self._snapshot.waiting
            }
        rooms = [self._room(agent_id) for agent_id in self._nodes.open_ids()]
        open_to_work = self._nodes.free.keys() - self._snapshot.paused_nodes
        shortage = Shortage(rooms, kept=len(open_to_work) - len(rooms))
        return {
            shape: known or self._reason(shape.needs, shortage)
            for shape, known in self._stuck.items()
        }

    def _reason(self, needs: Resources, shortage: Shortage) -> Reason:
        if not self._fits_a_size(needs):
            paused = self._snapshot.paused_nodes & self._totals.keys()
            return no_room_at_all(needs, self._sizes, {self._totals[each] for each in paused})
        if needs in self._reserved:
            return waits_for_reserved(needs, self._room(self._reserved[needs]))
        return shortage.explain(needs)

    def _room(self, agent_id: str) -> Room:
        free = self._nodes.free.get(agent_id, _NOTHING)
        return Room(self._names.get(agent_id, agent_id), self._totals[agent_id], free)
