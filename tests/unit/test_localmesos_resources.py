"""Resources and the allocator: exact sums, filters by containment, who is offered what."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale.localmesos.allocator import Allocator, Client, refuse_seconds
from scale.localmesos.resources import (
    InvalidResource,
    Resources,
    merged,
    parse,
    total,
    without,
)

Range = tuple[int, int]
ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair))),
    max_size=6,
)


def numbers(parts: Any) -> set[int]:
    return {number for begin, end in parts for number in range(begin, end + 1)}


def scalars(**milli: int) -> Resources:
    return Resources(milli)


@given(ranges)
def test_merged_ranges_hold_the_same_numbers_and_lie_apart(parts: list[Range]) -> None:
    result = merged(parts)
    assert numbers(result) == numbers(parts)
    assert all(left[1] + 1 < right[0] for left, right in itertools.pairwise(result))


@given(ranges, ranges)
def test_without_is_the_difference_of_sets(parts: list[Range], holes: list[Range]) -> None:
    assert numbers(without(merged(parts), merged(holes))) == numbers(parts) - numbers(holes)


@given(ranges, ranges, st.integers(0, 9), st.integers(0, 9))
def test_what_is_contained_can_be_taken_and_put_back(
    parts: list[Range], more: list[Range], cpus: int, extra: int
) -> None:
    small = Resources({"cpus": cpus} if cpus else {}, {"ports": merged(parts)} if parts else {})
    only_more = without(merged(more), merged(parts))
    rest = Resources({"cpus": extra} if extra else {}, {"ports": only_more} if only_more else {})
    whole = small + rest
    assert whole.contains(small)
    assert (whole - small) + small == whole


def test_scalars_keep_three_decimals_and_add_up_exactly() -> None:
    tenth = parse([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}], "*")
    whole = parse([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0004}}], "*")
    assert total([tenth] * 10) == whole == scalars(cpus=1000)


@pytest.mark.parametrize(
    "resource",
    [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": -1.0}},
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": math.nan}},
        {"name": "cpus", "type": "SCALAR"},
        {"name": "gpus", "type": "SCALAR", "scalar": {"value": 0.5}},
        {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 2, "end": 1}]}},
        {"name": "x", "type": "SET", "set": {"item": ["a"]}},
        {"name": "disk", "type": "SCALAR", "scalar": {"value": 1.0}, "disk": {"volume": {}}},
    ],
)
def test_a_resource_that_cannot_be_is_refused(resource: dict[str, Any]) -> None:
    with pytest.raises(InvalidResource):
        parse([resource], "*")


@pytest.mark.parametrize(
    ("asked", "held"),
    [(None, 5), (-1, 5), (math.nan, 5), (0, 1), (0.5, 1), (30, 30), (1e12, 365 * 86400)],
)
def test_a_decline_holds_for_its_time_within_bounds(asked: float | None, held: float) -> None:
    assert refuse_seconds(asked, 1.0) == held


WHOLE = Resources({"cpus": 4000, "mem": 8192000})


@pytest.fixture
def allocator() -> Allocator:
    """One agent, and one framework that wants everything."""
    made = Allocator()
    made.add_agent("a", WHOLE)
    made.clients["f"] = Client(("*",), active=True)
    return made


def decline(allocator: Allocator, refused: Resources, until: float) -> None:
    allocator.decline("f", "*", "a", refused, until)
    allocator.give_back("f", "a", refused)


def test_everything_free_goes_into_one_offer_and_is_then_taken(allocator: Allocator) -> None:
    (grant,) = allocator.allocate(0)
    assert (grant.framework_id, grant.agent_id, grant.resources) == ("f", "a", WHOLE)
    assert allocator.allocate(0) == []


def test_a_refused_offer_is_hidden_until_its_filter_ends(allocator: Allocator) -> None:
    allocator.allocate(0)
    decline(allocator, WHOLE, until=5)
    assert allocator.next_expiry(0) == 5
    assert allocator.allocate(4.9) == []
    assert allocator.allocate(5)
    assert allocator.next_expiry(5) is None


def test_a_filter_hides_less_but_not_more_than_was_refused(allocator: Allocator) -> None:
    (grant,) = allocator.allocate(0)
    used = scalars(cpus=1000)
    decline(allocator, grant.resources - used, until=100)
    assert allocator.allocate(1) == []
    allocator.give_back("f", "a", used)
    (again,) = allocator.allocate(1)
    assert again.resources == WHOLE


def test_revive_clears_filters_and_suppression_of_its_roles_only(allocator: Allocator) -> None:
    allocator.clients["f"] = Client(("x", "y"), active=True)
    allocator.suppress("f", ["x", "not-mine"])
    (grant,) = allocator.allocate(0)
    assert grant.role == "y"
    allocator.decline("f", "y", "a", WHOLE, 100)
    allocator.give_back("f", "a", WHOLE)
    assert allocator.allocate(1) == []
    allocator.revive("f", ["x"])
    (grant,) = allocator.allocate(1)
    assert grant.role == "x"


def test_too_little_is_not_offered(allocator: Allocator) -> None:
    allocator.take("f", "a", WHOLE - scalars(cpus=9, mem=31999))
    assert allocator.allocate(0) == []
    allocator.give_back("f", "a", scalars(cpus=1))
    assert allocator.allocate(0)


def test_the_framework_with_the_smaller_share_comes_first(allocator: Allocator) -> None:
    allocator.add_agent("b", WHOLE)
    allocator.clients["g"] = Client(("*",), active=True)
    allocator.take("f", "a", WHOLE)
    (grant,) = allocator.allocate(0)
    assert (grant.framework_id, grant.agent_id) == ("g", "b")


def test_inactive_frameworks_and_gpu_agents_are_passed_over(allocator: Allocator) -> None:
    allocator.clients["f"].active = False
    assert allocator.allocate(0) == []
    gpus = Allocator()
    gpus.add_agent("a", WHOLE + scalars(gpus=1000))
    gpus.clients["f"] = Client(("*",), active=True)
    assert gpus.allocate(0) == []
    gpus.clients["f"].gpus = True
    assert gpus.allocate(0)


@given(st.lists(st.tuples(st.sampled_from("fg"), st.integers(0, 1)), max_size=30))
def test_nothing_is_lost_or_made_whatever_is_offered_and_declined(
    steps: list[tuple[str, int]],
) -> None:
    allocator = Allocator()
    allocator.add_agent("a", WHOLE)
    allocator.add_agent("b", WHOLE)
    allocator.clients = {name: Client(("*",), active=True) for name in "fg"}
    out = []
    for now, (name, filtered) in enumerate(steps):
        out += allocator.allocate(now)
        mine = [grant for grant in out if grant.framework_id == name]
        for grant in mine:
            out.remove(grant)
            if filtered:
                allocator.decline(name, "*", grant.agent_id, grant.resources, now + 2.5)
            allocator.give_back(name, grant.agent_id, grant.resources)
        free = total(pool.free for pool in allocator.pools.values())
        assert free + total(grant.resources for grant in out) == WHOLE + WHOLE
