"""Places at which a test has the process killed, to see that nothing is lost there."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from django.conf import settings

POINTS: Final = (
    "before-accept",  # launches are stored, the cluster has not heard of them
    "after-accept",  # it has; nothing else was done
    "before-update-commit",  # updates arrived and are not stored
    "before-acknowledge",  # they are stored, the cluster does not know
    "in-recovery",  # subscribed, and the cluster was asked about all tasks
)


@dataclass(frozen=True)
class FailPoint:
    """Where to end: the `nth` time that the point `name` is reached."""

    name: str
    nth: int = 1
    _times: Iterator[int] = field(default_factory=lambda: count(1), compare=False, repr=False)

    def reached(self, name: str) -> None:
        """End this process as a power failure would, if this is the place."""
        if name == self.name and next(self._times) == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)


def fail_point(name: str) -> None:
    """Do nothing, unless a test set SCALE_FAIL_POINT to this point."""
    point: FailPoint | None = settings.SCALE_FAIL_POINT
    if point is not None:
        point.reached(name)


def read_fail_point(text: str) -> FailPoint:
    """Read `name` or `name:nth`; raise ValueError for a point that does not exist."""
    name, _, nth = text.partition(":")
    if name not in POINTS:
        raise ValueError("must be one of " + ", ".join(POINTS) + ", then perhaps :nth")
    if nth and not (nth.isdecimal() and int(nth)):
        raise ValueError("must count from 1 after the colon")
    return FailPoint(name, int(nth or 1))
