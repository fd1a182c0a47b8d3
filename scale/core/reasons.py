"""Why an execution waits, as a code for programs and a sentence with numbers for people."""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from scale.core.resources import Resources


class WaitCode(StrEnum):
    """What stands in the way; those of the last group are the scheduler's, not the planner's."""

    NO_NODES = "NO_NODES"
    NO_NODE_LARGE_ENOUGH = "NO_NODE_LARGE_ENOUGH"
    INSUFFICIENT_CPUS = "INSUFFICIENT_CPUS"
    INSUFFICIENT_MEM = "INSUFFICIENT_MEM"
    INSUFFICIENT_DISK = "INSUFFICIENT_DISK"
    SCHEDULER_PAUSED = "SCHEDULER_PAUSED"
    MAX_SCHEDULED_REACHED = "MAX_SCHEDULED_REACHED"
    NODE_PAUSED = "NODE_PAUSED"
    WAITING_FOR_ITS_NODE = "WAITING_FOR_ITS_NODE"

    JOB_TYPE_PAUSED = "JOB_TYPE_PAUSED"
    RETRY_BACK_OFF = "RETRY_BACK_OFF"


@dataclass(frozen=True, slots=True)
class Reason:
    """Shown to users; the message names what is asked and what there is."""

    code: WaitCode
    message: str


SCHEDULER_PAUSED: Final = Reason(WaitCode.SCHEDULER_PAUSED, "the scheduler is paused")
MAX_SCHEDULED_REACHED: Final = Reason(
    WaitCode.MAX_SCHEDULED_REACHED, "as many of this job type run as its max_scheduled allows"
)


@dataclass(frozen=True, slots=True)
class Room:
    """A node: its name for people, its size, and what is free of it now."""

    name: str
    total: Resources
    free: Resources


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of the kinds of resources: how to read it and how to write it."""

    code: WaitCode
    amount: Callable[[Resources], int]
    unit: str
    divisor: int = 1

    def number(self, resources: Resources) -> str:
        whole, rest = divmod(self.amount(resources), self.divisor)
        return f"{whole}.{rest:03}".rstrip("0") if rest else f"{whole}"

    def asked(self, needs: Resources) -> str:
        return f"asks {self.number(needs)} {self.unit}"


_KINDS: Final = (
    _Kind(WaitCode.INSUFFICIENT_CPUS, lambda r: r.millicpus, "cpus", 1000),
    _Kind(WaitCode.INSUFFICIENT_MEM, lambda r: r.mem_mib, "MiB of memory"),
    _Kind(WaitCode.INSUFFICIENT_DISK, lambda r: r.disk_mib, "MiB of disk"),
)


class Shortage:
    """Explains why something that would fit an empty node fits none now.

    `rooms` are the nodes that take new work and offer something, `kept` how many more are closed
    for what comes first. One pass over the nodes, then O(1) for each question.
    """

    def __init__(self, rooms: Collection[Room], kept: int) -> None:
        self._roomiest = {
            kind.code: max(rooms, key=lambda room: (kind.amount(room.free), room.name))
            for kind in _KINDS
            if rooms
        }
        self._kept = kept

    def explain(self, needs: Resources, freed_for_it: str | None = None) -> Reason:
        """Name the kind that lacks most; `freed_for_it` is the node reserved for this."""
        kind = max(_KINDS, key=lambda kind: self._strain(kind, needs))
        message = f"{kind.asked(needs)}; {self._offered(kind, needs)}"
        if freed_for_it is not None:
            message += f"; node {freed_for_it} is being freed for it"
        elif self._kept:
            message += f"; {_count(self._kept, 'node')} kept for what comes first"
        return Reason(kind.code, message)

    def _strain(self, kind: _Kind, needs: Resources) -> float:
        """Return how much is asked as a share of what the roomiest node has free."""
        room, asked = self._roomiest.get(kind.code), kind.amount(needs)
        free = kind.amount(room.free) if room else 0
        if not asked:
            return 0.0
        return asked / free if free else math.inf

    def _offered(self, kind: _Kind, needs: Resources) -> str:
        room = self._roomiest.get(kind.code)
        if room is None or not kind.amount(room.free):
            return "no node has any free now"
        has = f"{kind.number(room.free)} free of {kind.number(room.total)}"
        if kind.amount(needs) > kind.amount(room.free):
            return f"the roomiest node, {room.name}, has {has}"
        return f"the roomiest node, {room.name}, has {has}, but too little else"


def no_room_at_all(
    needs: Resources, sizes: Iterable[Resources], paused: Iterable[Resources]
) -> Reason:
    """Explain what fits none of the nodes, however empty; sizes of nodes that do not pause."""
    sizes, paused = list(sizes), list(paused)
    if not sizes and not paused:
        return Reason(WaitCode.NO_NODES, "the cluster has no nodes")
    if any(needs.fits_in(size) for size in paused):
        return Reason(WaitCode.NODE_PAUSED, "every node that is large enough is paused")
    for kind in _KINDS:
        largest = max(sizes + paused, key=kind.amount)
        if kind.amount(needs) > kind.amount(largest):
            has = f"the largest node has {kind.number(largest)}"
            return Reason(WaitCode.NO_NODE_LARGE_ENOUGH, f"{kind.asked(needs)}; {has}")
    asked = " and ".join(f"{kind.number(needs)} {kind.unit}" for kind in _KINDS)
    return Reason(WaitCode.NO_NODE_LARGE_ENOUGH, f"asks {asked}; no node has all of it")


def waits_for_its_node(needs: Resources, room: Room | None) -> Reason:
    """Explain why a next phase waits; None if its node offers nothing now."""
    if room is None:
        return Reason(WaitCode.WAITING_FOR_ITS_NODE, "its node has nothing free now")
    for kind in _KINDS:
        if kind.amount(needs) > kind.amount(room.total):
            has = f"its node, {room.name}, has {kind.number(room.total)} in all"
            return Reason(WaitCode.NO_NODE_LARGE_ENOUGH, f"{kind.asked(needs)}; {has}")
    kind = next(kind for kind in _KINDS if kind.amount(needs) > kind.amount(room.free))
    has = f"{kind.number(room.free)} free of {kind.number(room.total)}"
    return Reason(
        WaitCode.WAITING_FOR_ITS_NODE, f"{kind.asked(needs)}; its node, {room.name}, has {has}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} is" if number == 1 else f"{number} {noun}s are"
