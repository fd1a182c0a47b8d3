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

    WAITING_FOR_OFFERS = "WAITING_FOR_OFFERS"
    NOT_CONNECTED = "NOT_CONNECTED"
    NO_SCHEDULER = "NO_SCHEDULER"


@dataclass(frozen=True, slots=True)
class Reason:
    """Shown to users; the message names what is asked and what there is."""

    code: WaitCode
    message: str


SCHEDULER_PAUSED: Final = Reason(WaitCode.SCHEDULER_PAUSED, "the scheduler is paused")
TYPE_PAUSED: Final = Reason(WaitCode.JOB_TYPE_PAUSED, "its job type is paused")
TYPE_INACTIVE: Final = Reason(WaitCode.JOB_TYPE_PAUSED, "its job type is not active")
MAX_SCHEDULED_REACHED: Final = Reason(
    WaitCode.MAX_SCHEDULED_REACHED, "as many of this job type run as its max_scheduled allows"
)
NOT_CONNECTED: Final = Reason(
    WaitCode.NOT_CONNECTED, "the scheduler is not connected to Mesos; nothing is launched"
)
NOT_SEEN_YET: Final = Reason(
    WaitCode.WAITING_FOR_OFFERS, "nothing is known to be in its way; the scheduler looks at it next"
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

    def of(self, room: Room) -> str:
        return f"{self.number(room.free)} free of {self.number(room.total)}"


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

    def explain(self, needs: Resources) -> Reason:
        """Name the kind that lacks most, and the node that has most of it."""
        kind = max(_KINDS, key=lambda kind: _strain(kind, needs, self._roomiest.get(kind.code)))
        room = self._roomiest.get(kind.code)
        message = f"{kind.asked(needs)}; no node has any free for it now"
        if room and kind.amount(room.free):
            message = f"{kind.asked(needs)}; the roomiest node, {room.name}, has {kind.of(room)}"
            if kind.amount(needs) <= kind.amount(room.free):
                message += ", but too little else"
        if self._kept:
            message += f"; nodes kept for what comes first: {self._kept}"
        return Reason(kind.code, message)


def waits_for_reserved(needs: Resources, room: Room) -> Reason:
    """Explain what has a node reserved, which does not have enough free yet."""
    kind = max(_KINDS, key=lambda kind: _strain(kind, needs, room))
    has = f"node {room.name} is kept for it and has {kind.of(room)}"
    return Reason(kind.code, f"{kind.asked(needs)}; {has}")


def waits_for_offer(node: str) -> Reason:
    """Explain what would fit a node that has not offered its room yet."""
    text = f"node {node} should have room; it starts when Mesos offers that"
    return Reason(WaitCode.WAITING_FOR_OFFERS, text)


def max_scheduled_reached(most: int) -> Reason:
    text = f"at most {most} of this job type may run at a time (its max_scheduled)"
    return Reason(WaitCode.MAX_SCHEDULED_REACHED, text)


def backs_off(failures: int, until: str | None) -> Reason:
    """Explain why a type waits until a time, or starts one by one after launches that failed."""
    then = f"the next is at {until}" if until else "one at a time starts until one works"
    text = f"launches of its job type failed {failures} times in a row; {then}"
    return Reason(WaitCode.RETRY_BACK_OFF, text)


def no_scheduler(heartbeat: str | None) -> Reason:
    """Explain what nobody launches; `heartbeat` is the time of the last sign of life."""
    since = f"since {heartbeat}" if heartbeat else "yet"
    text = f"no scheduler has been at work {since}; nothing is launched"
    return Reason(WaitCode.NO_SCHEDULER, text)


def _strain(kind: _Kind, needs: Resources, room: Room | None) -> float:
    """Return how much is asked as a share of what is free."""
    asked, free = kind.amount(needs), kind.amount(room.free) if room else 0
    if not asked:
        return 0.0
    return asked / free if free else math.inf


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


def waits_for_its_node(needs: Resources, room: Room) -> Reason:
    """Explain why a next phase waits: no other node has its work folder."""
    for kind in _KINDS:
        has = None
        if kind.amount(needs) > kind.amount(room.total):
            has = f"{kind.number(room.total)} in all"
        elif kind.amount(needs) > kind.amount(room.free):
            has = kind.of(room)
        if has:
            text = f"{kind.asked(needs)}; its node, {room.name}, has {has}"
            return Reason(WaitCode.WAITING_FOR_ITS_NODE, text)
    text = f"its node, {room.name}, should have room; it goes on when Mesos offers that"
    return Reason(WaitCode.WAITING_FOR_ITS_NODE, text)


def waits_for_its_node_to_return(node: str) -> Reason:
    return Reason(WaitCode.WAITING_FOR_ITS_NODE, f"its node, {node}, is not there now")
