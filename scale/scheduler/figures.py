"""What the leader counts and measures of its own work, in memory; a new leader begins anew."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, Final, Self

from scale.core.resources import Resources

#: Rates, and times of rounds, are those of so many seconds.
WINDOW_S: Final = 60
#: Of no more rounds than this are the times kept.
_MOST_ROUNDS: Final = 4096
#: What is counted.
COUNTED: Final = ("launches", "updates", "offers", "kills", "finished", "failed")
#: Upper bounds in seconds; what is longer is in a last bucket without one.
WAIT_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)
ROUND_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Histogram:
    """Counts of values up to each bound, cumulated as Prometheus wants them when it is shown."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        value = max(0.0, value)  # a clock was set back
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def document(self) -> dict[str, Any]:
        """Return {buckets: [[bound, count of values up to it], ...], sum}; None is no bound."""
        counts = accumulate(self._counts)
        buckets = [list(pair) for pair in zip([*self._bounds, None], counts, strict=True)]
        return {"buckets": buckets, "sum": round(self._sum, 6)}


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram as it was stored: (bound, count of values up to it), None is no bound."""

    buckets: list[tuple[float | None, int]]
    sum: float

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls([(bound, count) for bound, count in document["buckets"]], document["sum"])


@dataclass(frozen=True, slots=True)
class Measured:
    """What a leader stored of its figures; times in seconds, rates per second."""

    since: datetime
    counts: dict[str, int]
    rates: dict[str, float]
    round_p50_s: float | None
    round_max_s: float | None
    rounds: Distribution
    waits: Distribution
    offered: Resources
    used: Resources

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self | None:
        """Read what `Figures.document` wrote; None if no leader has written yet."""
        if not document:
            return None
        return cls(
            since=datetime.fromisoformat(document["since"]),
            counts=document["counts"],
            rates=document["rates"],
            round_p50_s=document["round_p50_s"],
            round_max_s=document["round_max_s"],
            rounds=Distribution.of(document["rounds"]),
            waits=Distribution.of(document["waits"]),
            offered=Resources(*document["offered"]),
            used=Resources(*document["used"]),
        )


class Figures:
    """Counts since this leader began, and what the last minute was like.

    `now_s` is the monotonic clock, which goes forwards only.
    """

    def __init__(self, *, began: datetime, now_s: float) -> None:
        self._began = began
        self._began_s = now_s
        self._counts = Counter(dict.fromkeys(COUNTED, 0))
        # Whole second -> what was counted in it.
        self._lately: deque[tuple[int, Counter[str]]] = deque()
        self._rounds: deque[tuple[float, float]] = deque(maxlen=_MOST_ROUNDS)
        self._round_times = Histogram(ROUND_BOUNDS)
        self._wait_times = Histogram(WAIT_BOUNDS)

    def count(self, what: str, how_many: int, *, now_s: float) -> None:
        """Count more of what `COUNTED` names."""
        if not how_many:
            return
        self._counts[what] += how_many
        if not self._lately or self._lately[-1][0] != int(now_s):
            self._lately.append((int(now_s), Counter()))
            self._forget(now_s)
        self._lately[-1][1][what] += how_many

    def waited(self, seconds: Iterable[float]) -> None:
        """Note how long executions were in the queue that have just left it."""
        for each in seconds:
            self._wait_times.add(each)

    def round_took(self, seconds: float, *, now_s: float) -> None:
        self._round_times.add(seconds)
        self._rounds.append((now_s, seconds))

    def document(self, *, offered: Resources, used: Resources, now_s: float) -> dict[str, Any]:
        """Return all of it for a JSON column; about 2 KB, whatever happened."""
        self._forget(now_s)
        times = sorted(seconds for at, seconds in self._rounds if now_s - at <= WINDOW_S)
        lately: Counter[str] = sum((counts for _, counts in self._lately), Counter())
        over_s = min(WINDOW_S, max(1.0, now_s - self._began_s))
        return {
            "since": self._began.isoformat(),
            "counts": dict(self._counts),
            "rates": {what: round(lately[what] / over_s, 3) for what in COUNTED},
            "round_p50_s": round(times[len(times) // 2], 6) if times else None,
            "round_max_s": round(times[-1], 6) if times else None,
            "rounds": self._round_times.document(),
            "waits": self._wait_times.document(),
            "offered": [offered.millicpus, offered.mem_mib, offered.disk_mib],
            "used": [used.millicpus, used.mem_mib, used.disk_mib],
        }

    def _forget(self, now_s: float) -> None:
        while self._lately and self._lately[0][0] <= int(now_s) - WINDOW_S:
            self._lately.popleft()
