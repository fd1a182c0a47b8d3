"""What the leader counts and measures, by clocks that are passed in."""

import json
from datetime import UTC, datetime

from scale.core.resources import Resources
from scale.scheduler.figures import (
    ROUND_BOUNDS,
    WAIT_BOUNDS,
    WINDOW_S,
    Distribution,
    Figures,
    Histogram,
    Measured,
)

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def measured(figures: Figures, now_s: float) -> Measured:
    """Read what is stored, as whoever asks does."""
    document = json.loads(
        json.dumps(
            figures.document(offered=Resources(1500, 2, 3), used=Resources(4, 5, 6), now_s=now_s)
        )
    )
    found = Measured.of(document)
    assert found is not None
    return found


def test_a_histogram_counts_what_is_up_to_each_bound() -> None:
    histogram = Histogram([1, 2.5])
    assert histogram.document() == {"buckets": [[1, 0], [2.5, 0], [None, 0]], "sum": 0}
    for value in (0.5, 1, 1.000001, 2.5, 99, -3):
        histogram.add(value)
    seen = Distribution.of(histogram.document())
    assert seen.buckets == [(1, 3), (2.5, 5), (None, 6)]
    assert seen.sum == 104.000001, "less than nothing is nothing"


def test_bounds_rise() -> None:
    for bounds in (WAIT_BOUNDS, ROUND_BOUNDS):
        assert list(bounds) == sorted(set(bounds))


def test_rates_are_those_of_the_last_minute() -> None:
    figures = Figures(began=NOON, now_s=1000)
    figures.count("launches", 120, now_s=1001)
    figures.count("launches", 60, now_s=1059)
    assert measured(figures, 1060).rates["launches"] == 3
    assert measured(figures, 1062).rates["launches"] == 1, "what is older is forgotten"
    assert measured(figures, 1200).rates["launches"] == 0
    assert measured(figures, 1200).counts["launches"] == 180, "but counted"


def test_rates_of_a_new_leader_are_over_its_own_time() -> None:
    figures = Figures(began=NOON, now_s=1000)
    figures.count("offers", 30, now_s=1000)
    assert measured(figures, 1000).rates["offers"] == 30
    assert measured(figures, 1010).rates["offers"] == 3
    assert measured(figures, 1010).since == NOON


def test_times_of_rounds_are_those_of_the_last_minute() -> None:
    figures = Figures(began=NOON, now_s=0)
    assert (measured(figures, 0).round_p50_s, measured(figures, 0).round_max_s) == (None, None)
    figures.round_took(9, now_s=0)
    for seconds in (0.2, 0.1, 0.3):
        figures.round_took(seconds, now_s=30)
    found = measured(figures, WINDOW_S + 1)
    assert (found.round_p50_s, found.round_max_s) == (0.2, 0.3)
    assert found.rounds.buckets[-1] == (None, 4), "the histogram keeps all"


def test_waits_are_kept_by_length() -> None:
    figures = Figures(began=NOON, now_s=0)
    figures.waited([0.01, 0.2, 100_000])
    seen = dict(measured(figures, 1).waits.buckets)
    assert (seen[0.05], seen[0.25], seen[86400], seen[None]) == (1, 2, 2, 3)


def test_what_is_stored_stays_small_whatever_happens() -> None:
    figures = Figures(began=NOON, now_s=0)
    for now_s in range(20_000):
        figures.count("updates", 10**9, now_s=now_s / 100)
        figures.round_took(1 / 3, now_s=now_s / 100)
    assert (
        len(json.dumps(figures.document(offered=Resources(), used=Resources(), now_s=200))) < 2500
    )
    assert len(figures._lately) <= WINDOW_S + 1
    assert len(figures._rounds) <= 4096


def test_nothing_is_read_where_no_leader_has_written() -> None:
    assert Measured.of({}) is None
