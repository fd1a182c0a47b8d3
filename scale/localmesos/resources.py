"""Amounts of a machine, exact to three decimals, and their forms in the Mesos API."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Ranges = tuple[tuple[int, int], ...]
WHOLE: Final = 1000
MIN_CPUS: Final = 10  # thousandths; --min_allocatable_resources=cpus:0.01|mem:32
MIN_MEM: Final = 32 * WHOLE
_ORDER: Final = ("cpus", "mem", "disk", "gpus")


class InvalidResource(Exception):
    """A resource that no task may ask for; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Scalars in thousandths (mesos.proto, Value.Scalar keeps three decimals) and ranges.

    Nothing is negative, no scalar is zero, ranges are sorted and apart.
    """

    scalars: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, Ranges] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.scalars or self.ranges)

    def __add__(self, other: Resources) -> Resources:
        scalars = dict(self.scalars)
        for name, amount in other.scalars.items():
            scalars[name] = scalars.get(name, 0) + amount
        ranges = dict(self.ranges)
        for name, mine in other.ranges.items():
            ranges[name] = merged([*ranges.get(name, ()), *mine])
        return Resources(scalars, ranges)

    def __sub__(self, other: Resources) -> Resources:
        """Return what is left; the caller has checked `contains`."""
        scalars = dict(self.scalars)
        for name, amount in other.scalars.items():
            scalars[name] = scalars.get(name, 0) - amount
        ranges = dict(self.ranges)
        for name, theirs in other.ranges.items():
            ranges[name] = without(ranges.get(name, ()), theirs)
        return Resources(
            {name: amount for name, amount in scalars.items() if amount > 0},
            {name: left for name, left in ranges.items() if left},
        )

    def contains(self, other: Resources) -> bool:
        return all(
            self.scalars.get(name, 0) >= amount for name, amount in other.scalars.items()
        ) and all(
            not without(theirs, self.ranges.get(name, ())) for name, theirs in other.ranges.items()
        )

    def is_offerable(self) -> bool:
        """Tell whether this is enough for an offer (--min_allocatable_resources)."""
        return self.scalars.get("cpus", 0) >= MIN_CPUS or self.scalars.get("mem", 0) >= MIN_MEM

    def share_of(self, total: Resources) -> float:
        """Return the dominant share, 0 to 1 (Ghodsi et al., Dominant Resource Fairness)."""
        return max(
            (self.scalars.get(name, 0) / amount for name, amount in total.scalars.items()),
            default=0.0,
        )

    def value(self, name: str) -> float:
        return self.scalars.get(name, 0) / WHOLE

    def summary(self) -> dict[str, Any]:
        """Return the short form of /state and /slaves: name -> number, ports as text."""
        short: dict[str, Any] = dict.fromkeys(_ORDER, 0.0)
        short.update((name, amount / WHOLE) for name, amount in self.scalars.items())
        short.update((name, ranges_text(ranges)) for name, ranges in self.ranges.items())
        return short

    def as_json(self, allocated_to: str | None = None) -> list[dict[str, Any]]:
        """Return the list of `Resource` messages, all unreserved (role `*`)."""
        extra = {"allocation_info": {"role": allocated_to}} if allocated_to is not None else {}
        scalars: list[dict[str, Any]] = [
            {"name": name, "type": "SCALAR", "scalar": {"value": amount / WHOLE}}
            for name, amount in self.scalars.items()
        ]
        ranges: list[dict[str, Any]] = [
            {
                "name": name,
                "type": "RANGES",
                "ranges": {"range": [{"begin": begin, "end": end} for begin, end in parts]},
            }
            for name, parts in self.ranges.items()
        ]
        return [{**resource, "role": "*", **extra} for resource in scalars + ranges]

    def text(self, role: str) -> str:
        """Return the form of Mesos' messages: `cpus(allocated: *):0.5; mem(allocated: *):32`."""
        parts = [f"{n}(allocated: {role}):{a / WHOLE:g}" for n, a in self.scalars.items()]
        parts += [f"{n}(allocated: {role}):{ranges_text(r)}" for n, r in self.ranges.items()]
        return "; ".join(parts)


def total(parts: Iterable[Resources]) -> Resources:
    result = Resources()
    for part in parts:
        result = result + part
    return result


def parse(listed: Sequence[Mapping[str, Any]], role: str) -> Resources:
    """Return the sum of `Resource` messages as the schema gives them.

    Raises:
        InvalidResource: negative or not a number, an empty or backward range, or a kind that
            this cluster never offers (sets, reserved, revocable, shared, persistent volumes).
    """
    result = Resources()
    for resource in listed:
        name = str(resource["name"])
        for kind in ("reservation", "reservations", "revocable", "shared", "disk"):
            if resource.get(kind):
                raise InvalidResource(f"Resource '{name}' is invalid: {kind} is not supported")
        result = result + _one(name, resource, role)
    return result


def _one(name: str, resource: Mapping[str, Any], role: str) -> Resources:
    if resource["type"] == "SCALAR" and "scalar" in resource:
        amount = resource["scalar"]["value"]
        if not math.isfinite(amount) or amount < 0:
            raise InvalidResource(
                f"Resource '{name}(allocated: {role}):{amount:g}' is invalid: "
                "Invalid scalar resource: value <= 0"
            )
        milli = round(amount * WHOLE)
        if name == "gpus" and milli % WHOLE:
            raise InvalidResource("The 'gpus' resource must be an unsigned integer")
        return Resources({name: milli} if milli else {})
    if resource["type"] == "RANGES" and "ranges" in resource:
        listed = [(part["begin"], part["end"]) for part in resource["ranges"].get("range", ())]
        if not listed or any(not 0 <= begin <= end for begin, end in listed):
            raise InvalidResource(f"Resource '{name}' is invalid: Invalid ranges resource")
        return Resources({}, {name: merged(listed)})
    raise InvalidResource(f"Resource '{name}' is invalid: {resource['type']} is not offered here")


def merged(parts: Iterable[tuple[int, int]]) -> Ranges:
    """Return the same numbers as sorted ranges that neither touch nor overlap."""
    result: list[tuple[int, int]] = []
    for begin, end in sorted(parts):
        if result and begin <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((begin, end))
    return tuple(result)


def without(parts: Ranges, holes: Ranges) -> Ranges:
    """Return `parts` less `holes`."""
    left = list(parts)
    for low, high in holes:
        left = [
            piece
            for begin, end in left
            for piece in ((begin, min(end, low - 1)), (max(begin, high + 1), end))
            if piece[0] <= piece[1]
        ]
    return merged(left)


def ranges_text(parts: Ranges) -> str:
    return "[" + ", ".join(f"{begin}-{end}" for begin, end in parts) + "]"
