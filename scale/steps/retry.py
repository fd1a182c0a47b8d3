"""Try again what may end better the next time."""

from __future__ import annotations

import random
import time
from typing import Callable, TypeVar

from .net import NetError
from .say import say

T = TypeVar("T")

#: No pause is longer, before it is spread.
LONGEST_PAUSE_S = 15.0


def patiently(operation: Callable[[], T], what: str, *, tries: int, backoff_s: float) -> T:
    """Return what `operation` does; repeat it after a transient NetError, at most `tries` times.

    The pause doubles each time, up to LONGEST_PAUSE_S, and is spread, so that agents do not come
    back all at once.
    """
    for attempt in range(1, tries):
        try:
            return operation()
        except NetError as error:
            if not error.transient:
                raise
            pause_s = backoff_s * random.uniform(0.7, 1.3)  # noqa: S311 - no secret
            say(f"{what}: {error}; try {attempt + 1} of {tries} in {pause_s:.1f} s")
            time.sleep(pause_s)
            backoff_s = min(2 * backoff_s, LONGEST_PAUSE_S)
    return operation()
