import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scale.core.cluster import Offer
from scale.core.placement import (
    MAX_RESERVATIONS,
    Capacity,
    Holding,
    Launch,
    Plan,
    Shape,
    Snapshot,
    Waiting,
    plan,
)
from scale.core.reasons import TYPE_PAUSED, WaitCode
from scale.core.resources import Resources


def offer(agent: str, cpus: int = 0, mem: int = 0, disk: int = 0, offer_id: str = "") -> Offer:
    free = Resources(cpus * 1000, mem, disk)
    return Offer(offer_id or f"o-{agent}", agent, f"host-{agent}", "127.0.0.1", 5051, free)


def waiting(*needs: Resources, first: int = 1, job_type: int = 1) -> tuple[Waiting, ...]:
    return tuple(
        Waiting(number, job_type, 100, each) for number, each in enumerate(needs, start=first)
    )


def cpus(number: float) -> Resources:
    return Resources(int(number * 1000))


def placed(decided: Plan) -> dict[int, str]:
    return {launch.execution_id: launch.agent_id for launch in decided.launches}


def code(decided: Plan, needs: Resources, job_type: int = 1) -> WaitCode:
    return decided.reasons[Shape(job_type, needs)].code


# --- properties ----------------------------------------------------------------------------------

AMOUNTS = st.builds(
    Resources, st.integers(0, 8).map(lambda n: n * 500), st.integers(0, 6), st.integers(0, 3)
)
AGENTS = [f"a{number}" for number in range(5)]
OFFERS = st.lists(st.tuples(st.sampled_from(AGENTS), AMOUNTS), max_size=8).map(
    lambda pairs: tuple(
        Offer(f"o{number}", agent, f"host-{agent}", "127.0.0.1", 5051, free)
        for number, (agent, free) in enumerate(pairs)
    )
)
QUEUE = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), AMOUNTS), max_size=25).map(
    lambda rows: tuple(
        Waiting(number, *row)
        for number, row in enumerate(sorted(rows, key=lambda row: row[1]), start=100)
    )
)
HELD = st.lists(st.tuples(st.sampled_from(AGENTS), AMOUNTS), max_size=6).map(
    lambda rows: tuple(Holding(number, *row) for number, row in enumerate(rows))
)
SNAPSHOTS = st.builds(
    Snapshot,
    offers=OFFERS,
    waiting=QUEUE,
    holding=HELD,
    nodes_total=st.dictionaries(st.sampled_from(AGENTS), AMOUNTS),
    paused_nodes=st.frozensets(st.sampled_from(AGENTS), max_size=2),
    headroom=st.dictionaries(st.integers(1, 3), st.integers(0, 4)),
    scheduler_paused=st.sampled_from([False, False, False, True]),
    reserved=st.dictionaries(AMOUNTS, st.sampled_from(AGENTS), max_size=3),
)
EACH_SNAPSHOT = settings(max_examples=60, deadline=None)


def pooled(snapshot: Snapshot) -> dict[str, Resources]:
    free: dict[str, Resources] = {}
    for each in snapshot.offers:
        free[each.agent_id] = free.get(each.agent_id, Resources()) + each.free
    return free


def left_over(snapshot: Snapshot, launches: Sequence[Launch]) -> dict[str, Resources]:
    """Return what is free after the launches; raises if an agent was over-committed."""
    free = pooled(snapshot)
    for launch in launches:
        free[launch.agent_id] -= launch.needs
    return free


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_no_agent_is_given_more_than_it_offers(snapshot: Snapshot) -> None:
    left_over(snapshot, plan(snapshot).launches)


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_everything_launched_is_asked_for_once_with_its_needs(snapshot: Snapshot) -> None:
    asked = {each.execution_id: each.needs for each in (*snapshot.holding, *snapshot.waiting)}
    launches = plan(snapshot).launches
    assert len({launch.execution_id for launch in launches}) == len(launches)
    assert all(asked[launch.execution_id] == launch.needs for launch in launches)


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_no_job_type_starts_more_than_its_headroom(snapshot: Snapshot) -> None:
    job_type = {each.execution_id: each.job_type_id for each in snapshot.waiting}
    started = Counter(
        job_type[launch.execution_id]
        for launch in plan(snapshot).launches
        if launch.execution_id in job_type
    )
    assert all(started[each] <= limit for each, limit in snapshot.headroom.items())


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_next_phases_are_placed_as_if_there_were_no_new_work_and_nothing_were_paused(
    snapshot: Snapshot,
) -> None:
    decided = plan(snapshot)
    held = {each.execution_id: each for each in snapshot.holding}
    alone = plan(
        replace(snapshot, waiting=(), paused_nodes=frozenset(), scheduler_paused=False)
    ).launches
    assert decided.launches[: len(alone)] == alone
    assert not any(launch.execution_id in held for launch in decided.launches[len(alone) :])
    assert all(held[each.execution_id].agent_id == each.agent_id for each in alone)
    free = left_over(snapshot, alone)
    for each in held.keys() - {launch.execution_id for launch in alone}:
        assert not held[each].needs.fits_in(free.get(held[each].agent_id, Resources())) or (
            held[each].agent_id not in free
        )
        assert each in decided.held


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_what_is_paused_takes_no_new_work(snapshot: Snapshot) -> None:
    new = {each.execution_id for each in snapshot.waiting}
    for launch in plan(snapshot).launches:
        if launch.execution_id in new:
            assert launch.agent_id not in snapshot.paused_nodes
            assert not snapshot.scheduler_paused


@EACH_SNAPSHOT
@given(SNAPSHOTS, st.randoms(use_true_random=False))
def test_the_order_of_offers_and_mappings_does_not_matter(
    snapshot: Snapshot, random: Random
) -> None:
    decided = plan(snapshot)
    shuffled = list(snapshot.offers)
    random.shuffle(shuffled)
    other = replace(
        snapshot,
        offers=tuple(shuffled),
        nodes_total=dict(reversed(snapshot.nodes_total.items())),
        headroom=dict(reversed(snapshot.headroom.items())),
        reserved=dict(reversed(snapshot.reserved.items())),
    )
    assert plan(snapshot) == decided
    assert plan(other) == decided


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_nothing_overtakes_what_is_more_urgent_and_needs_no_more(snapshot: Snapshot) -> None:
    launched = placed(plan(snapshot))
    unplaced: list[Waiting] = []
    for each in snapshot.waiting:
        if each.execution_id not in launched:
            unplaced.append(each)
            continue
        for urgent in unplaced:
            easier = urgent.needs.fits_in(each.needs)
            assert not (easier and urgent.job_type_id == each.job_type_id), (urgent, each)


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_the_first_in_the_queue_starts_if_it_fits_anywhere(snapshot: Snapshot) -> None:
    decided = plan(snapshot)
    held = {each.execution_id for each in snapshot.holding}
    next_phases = [each for each in decided.launches if each.execution_id in held]
    free = left_over(snapshot, next_phases)
    blocked = snapshot.paused_nodes | {
        each.agent_id for each in snapshot.holding if each.execution_id in decided.held
    }
    for first in snapshot.waiting[:1]:
        fits = any(first.needs.fits_in(free[each]) for each in free.keys() - blocked)
        allowed = snapshot.headroom.get(first.job_type_id, 1) > 0 and not snapshot.scheduler_paused
        if fits and allowed:
            assert first.execution_id in placed(decided)


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_every_offer_is_used_or_declined_and_all_of_an_agent_together(snapshot: Snapshot) -> None:
    decided = plan(snapshot)
    agent_of = {each.offer_id: each.agent_id for each in snapshot.offers}
    used = [offer_id for ids in decided.offers_used.values() for offer_id in ids]
    assert sorted([*used, *decided.offers_unused]) == sorted(agent_of)
    assert decided.offers_used.keys() == {launch.agent_id for launch in decided.launches}
    assert not decided.offers_used.keys() & {agent_of[each] for each in decided.offers_unused}


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_everything_that_waits_has_a_reason_and_nothing_else(snapshot: Snapshot) -> None:
    decided = plan(snapshot)
    launched = placed(decided)
    left = [each for each in snapshot.waiting if each.execution_id not in launched]
    assert decided.reasons.keys() == {Shape(each.job_type_id, each.needs) for each in left}
    held = {each.execution_id for each in snapshot.holding} - launched.keys()
    assert decided.held == held
    assert all(each.message for each in decided.reasons.values())


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_reservations_are_few_and_of_nodes_that_are_large_enough(snapshot: Snapshot) -> None:
    reserved = plan(snapshot).reserved
    totals = pooled(snapshot) | dict(snapshot.nodes_total)
    usable = totals.keys() - snapshot.paused_nodes
    assert len(set(reserved.values())) == len(reserved)
    assert len(reserved) <= max(1, min(MAX_RESERVATIONS, len(usable) // 2))
    for needs, agent_id in reserved.items():
        assert agent_id in usable
        assert needs.fits_in(totals[agent_id])


@EACH_SNAPSHOT
@given(SNAPSHOTS)
def test_capacity_is_never_less_than_what_is_launched(snapshot: Snapshot) -> None:
    launched = Counter(launch.needs for launch in plan(snapshot).launches)
    for needs, count in launched.items():
        assert count <= Capacity(snapshot.offers).of(needs)


# --- rules, one by one ---------------------------------------------------------------------------


def test_offers_of_one_agent_are_used_as_one() -> None:
    halves = (offer("a", 2, offer_id="o2"), offer("a", 2, offer_id="o1"))
    decided = plan(Snapshot(halves, waiting(cpus(3))))
    assert placed(decided) == {1: "a"}
    assert decided.offers_used == {"a": ("o1", "o2")}


def test_work_goes_to_the_fullest_node_that_has_room() -> None:
    offers = (offer("a", 4), offer("b", 2), offer("c", 1))
    assert placed(plan(Snapshot(offers, waiting(cpus(2))))) == {1: "b"}


def test_a_node_with_much_of_something_else_is_left_for_those_who_need_that() -> None:
    offers = (offer("a", 4, mem=64), offer("b", 5, mem=8))
    assert placed(plan(Snapshot(offers, waiting(Resources(1000, 1))))) == {1: "b"}


def test_of_equal_nodes_the_first_by_name_is_taken() -> None:
    assert placed(plan(Snapshot((offer("b", 2), offer("a", 2)), waiting(cpus(1))))) == {1: "a"}


def test_the_queue_is_served_in_its_order() -> None:
    decided = plan(Snapshot((offer("a", 2),), waiting(cpus(1), cpus(1), cpus(1))))
    assert [launch.execution_id for launch in decided.launches] == [1, 2]


def test_a_next_phase_goes_before_new_work_and_only_to_its_own_node() -> None:
    offers = (offer("a", 1), offer("b", 8))
    decided = plan(Snapshot(offers, waiting(cpus(1)), (Holding(9, "a", cpus(1)),)))
    assert placed(decided) == {9: "a", 1: "b"}


def test_a_node_whose_next_phase_does_not_fit_yet_takes_no_new_work() -> None:
    held = (Holding(9, "a", cpus(4)),)
    totals = {"a": cpus(8), "b": cpus(2)}
    snapshot = Snapshot((offer("a", 2),), waiting(cpus(1)), held, totals, reserved={cpus(1): "b"})
    decided = plan(snapshot)
    assert decided.launches == ()
    assert decided.held == {9}
    assert decided.reserved == {cpus(1): "b"}


def test_a_next_phase_that_can_never_fit_does_not_keep_its_node_from_working() -> None:
    held = (Holding(9, "a", cpus(9)),)
    decided = plan(Snapshot((offer("a", 2),), waiting(cpus(1)), held, {"a": cpus(8)}))
    assert placed(decided) == {1: "a"}
    assert decided.held == {9}


@pytest.mark.parametrize("pause", [{"paused_nodes": frozenset("a")}, {"scheduler_paused": True}])
def test_a_pause_lets_next_phases_go_on(pause: dict[str, object]) -> None:
    held = (Holding(9, "a", cpus(1)),)
    decided = plan(replace(Snapshot((offer("a", 4),), waiting(cpus(1)), held), **pause))  # type: ignore[arg-type]
    assert placed(decided) == {9: "a"}


def test_a_job_type_at_its_limit_lets_others_go_on() -> None:
    queue = waiting(cpus(1), cpus(1), cpus(1)) + waiting(cpus(1), first=4, job_type=2)
    decided = plan(Snapshot((offer("a", 8),), queue, headroom={1: 2}))
    assert placed(decided).keys() == {1, 2, 4}
    assert code(decided, cpus(1)) is WaitCode.MAX_SCHEDULED_REACHED


def test_a_job_type_without_a_limit_is_not_limited() -> None:
    decided = plan(Snapshot((offer("a", 8),), waiting(*[cpus(1)] * 8), headroom={2: 0}))
    assert len(decided.launches) == 8


# --- reservations --------------------------------------------------------------------------------

FOUR = {"a": cpus(4), "b": cpus(4), "c": cpus(4), "d": cpus(4)}


def test_a_big_job_keeps_the_node_that_lacks_least_from_less_urgent_work() -> None:
    offers = (offer("a", 1), offer("b", 3), offer("c", 1))
    decided = plan(Snapshot(offers, waiting(cpus(4), *[cpus(1)] * 5), nodes_total=FOUR))
    assert placed(decided) == {2: "a", 3: "c"}
    assert decided.reserved[cpus(4)] == "b"


def test_a_reservation_does_not_hold_up_what_is_more_urgent() -> None:
    snapshot = Snapshot(
        (offer("a", 3),), waiting(cpus(1), cpus(4)), nodes_total=FOUR, reserved={cpus(4): "a"}
    )
    assert placed(plan(snapshot)) == {1: "a"}


def test_a_reservation_outlasts_rounds_in_which_its_node_offers_nothing() -> None:
    queue = waiting(cpus(4), cpus(1))
    decided = plan(Snapshot((offer("b", 1),), queue, nodes_total=FOUR, reserved={cpus(4): "a"}))
    assert decided.reserved == {cpus(4): "a"}
    assert placed(decided) == {2: "b"}


def test_a_reservation_moves_only_to_a_node_that_lacks_less() -> None:
    queue = waiting(cpus(4))
    for free, chosen in ((2, "b"), (3, "a")):
        offers = (offer("a", free), offer("b", 2))
        decided = plan(Snapshot(offers, queue, nodes_total=FOUR, reserved={cpus(4): "b"}))
        assert decided.reserved == {cpus(4): chosen}


@pytest.mark.parametrize(
    "change", [{"nodes_total": {"b": cpus(4), "c": cpus(4)}}, {"paused_nodes": frozenset("a")}]
)
def test_a_reservation_ends_with_its_node(change: dict[str, object]) -> None:
    snapshot = Snapshot(
        (offer("b", 1),), waiting(cpus(4)), nodes_total=FOUR, reserved={cpus(4): "a"}
    )
    assert plan(replace(snapshot, **change)).reserved == {cpus(4): "b"}  # type: ignore[arg-type]


def test_a_reservation_ends_when_the_big_job_starts_elsewhere() -> None:
    snapshot = Snapshot(
        (offer("b", 4),), waiting(cpus(4)), nodes_total=FOUR, reserved={cpus(4): "a"}
    )
    decided = plan(snapshot)
    assert placed(decided) == {1: "b"}
    assert decided.reserved == {}


def test_at_most_half_of_the_nodes_are_reserved() -> None:
    offers = tuple(offer(agent, 1) for agent in FOUR)
    big = [cpus(2), cpus(2.5), cpus(3), cpus(4)]
    decided = plan(Snapshot(offers, waiting(*big, *[cpus(1)] * 4), nodes_total=FOUR))
    assert decided.reserved.keys() == set(big[:2])
    assert len(decided.launches) == 2


def test_equal_needs_of_two_job_types_share_a_reservation() -> None:
    offers = tuple(offer(agent, 1) for agent in FOUR)
    queue = waiting(cpus(4)) + waiting(cpus(4), first=2, job_type=2)
    assert plan(Snapshot(offers, queue, nodes_total=FOUR)).reserved == {cpus(4): "a"}


def test_what_a_node_lacks_is_counted_in_every_kind() -> None:
    full, needs = Resources(9000, 9, 9), Resources(4000, 4, 4)
    whole = Offer("1", "b", "b", "", 0, Resources(3000, 4, 4))
    for short in (Resources(1000, 4, 4), Resources(4000, 1, 4), Resources(4000, 4, 1)):
        offers = (whole, Offer("2", "a", "a", "", 0, short))
        decided = plan(Snapshot(offers, waiting(needs), nodes_total={"a": full, "b": full}))
        assert decided.reserved == {needs: "b"}


def test_what_is_larger_than_every_node_reserves_none() -> None:
    decided = plan(Snapshot((offer("a", 3),), waiting(cpus(5), cpus(1)), nodes_total=FOUR))
    assert decided.reserved == {}
    assert placed(decided) == {2: "a"}


def test_a_job_type_at_its_limit_reserves_nothing() -> None:
    snapshot = Snapshot((offer("a", 3),), waiting(cpus(4)), nodes_total=FOUR, headroom={1: 0})
    assert plan(snapshot).reserved == {}


class Cluster:
    """Runs what plans say, for as many rounds as each execution takes."""

    def __init__(self, sizes: dict[str, int], random: Random, *, partial: bool) -> None:
        self.sizes = {agent: cpus(size) for agent, size in sizes.items()}
        self.free = dict(self.sizes)
        self.running: list[tuple[int, Launch]] = []
        self.changed = set(self.sizes)
        self.reserved: dict[Resources, str] = {}
        self.random, self.partial = random, partial

    def round(self, now: int, queue: list[Waiting]) -> set[int]:
        """Return what was launched; with `partial`, a node offers only when it became freer."""
        for end, launch in list(self.running):
            if end <= now:
                self.running.remove((end, launch))
                self.free[launch.agent_id] += launch.needs
                self.changed.add(launch.agent_id)
        shown = self.changed if self.partial else set(self.sizes)
        offers = tuple(
            Offer(f"{agent}-{now}", agent, agent, "", 0, self.free[agent])
            for agent in sorted(shown)
            if self.free[agent] != Resources()
        )
        self.changed = set()
        decided = plan(
            Snapshot(offers, tuple(queue), nodes_total=self.sizes, reserved=self.reserved)
        )
        self.reserved = dict(decided.reserved)
        for launch in decided.launches:
            self.free[launch.agent_id] -= launch.needs
            self.running.append((now + self.random.randint(1, 6), launch))
        return {launch.execution_id for launch in decided.launches}


def rounds_until_the_big_one_starts(
    sizes: dict[str, int], seed: int, *, partial: bool
) -> int | None:
    random = Random(seed)
    cluster = Cluster(sizes, random, partial=partial)
    big = Waiting(0, 2, 100, cpus(max(sizes.values())))
    queue: list[Waiting] = list(waiting(*[cpus(1)] * 20, first=1000))
    cluster.round(0, queue)
    queue = [big]
    for now in range(1, 120):
        queue += waiting(*[cpus(1)] * 3 * len(sizes), first=now * 10_000)
        started = cluster.round(now, queue)
        if 0 in started:
            return now
        queue = [big, *(each for each in queue[1:] if each.execution_id not in started)][:60]
    return None


@pytest.mark.parametrize("partial", [False, True], ids=["all offers", "only freed offers"])
@pytest.mark.parametrize("sizes", [{"a": 4}, {"a": 4, "b": 4}, {"a": 4, "b": 8, "c": 4, "d": 8}])
@pytest.mark.parametrize("seed", range(5))
def test_a_big_job_starts_although_small_ones_never_end(
    sizes: dict[str, int], seed: int, partial: bool
) -> None:
    rounds = rounds_until_the_big_one_starts(sizes, seed, partial=partial)
    assert rounds is not None
    assert rounds <= 20


def test_small_work_goes_on_beside_a_big_job_that_never_gets_its_node() -> None:
    sizes = dict.fromkeys(FOUR, 4)
    cluster = Cluster(sizes, Random(1), partial=False)
    cluster.free["a"] -= cpus(1)  # used by another framework, for good
    big = Waiting(0, 2, 100, cpus(4))
    for agent in "bcd":
        cluster.sizes[agent] = cpus(3)
        cluster.free[agent] = cpus(3)
    started = [
        len(cluster.round(now, [big, *waiting(*[cpus(1)] * 30, first=now * 100)]))
        for now in range(1, 30)
    ]
    assert sum(started[10:]) > 20


# --- cost ----------------------------------------------------------------------------------------


def comparisons(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Plan]:
    count, original = [0], Resources.fits_in

    def counting(self: Resources, other: Resources) -> bool:
        count[0] += 1
        return original(self, other)

    with monkeypatch.context() as patched:
        patched.setattr(Resources, "fits_in", counting)
        decided = plan(snapshot)
    return count[0], decided


def test_a_head_that_fits_nowhere_costs_as_much_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = tuple(offer(f"a{number:03}", 4) for number in range(100))
    last = waiting(cpus(1), first=10**6, job_type=2)
    one, _ = comparisons(Snapshot(offers, waiting(cpus(8)) + last), monkeypatch)
    queue = waiting(*[cpus(8)] * 100_000) + last
    many, decided = comparisons(Snapshot(offers, queue), monkeypatch)
    assert placed(decided) == {10**6: "a000"}
    assert many == one < 300


def test_a_head_of_different_sizes_that_fit_nowhere_costs_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offers = tuple(offer(f"a{number:03}", 4, 100, 100) for number in range(100))
    head = waiting(*[Resources(1000, 10, 1000 - number) for number in range(500)])
    last = waiting(Resources(1000, 10, 10), first=10**6)
    work, decided = comparisons(Snapshot(offers, head + last), monkeypatch)
    assert placed(decided).keys() == {10**6}
    # Their disk falls, so that none is covered by the failure before it; each looks for itself.
    assert work < 500 * 110
    work, _ = comparisons(Snapshot(offers, head[::-1] + last), monkeypatch)
    assert work < 2500


def test_filling_a_node_does_not_look_at_the_emptier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = tuple(offer(f"a{number:03}", 8) for number in range(100))
    work, decided = comparisons(Snapshot(offers, waiting(*[cpus(1)] * 800)), monkeypatch)
    assert len(decided.launches) == 800
    assert work < 800 * 3


# --- capacity and reasons ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "count"),
    [
        (Resources(1000), 6),
        (Resources(3000), 1),
        (Resources(1000, 20), 5),
        (Resources(1000, 20, 60), 1),
        (Resources(5000), 0),
        (Resources(), sys.maxsize),
    ],
)
def test_capacity_is_counted_for_each_agent_with_all_its_offers(
    needs: Resources, count: int
) -> None:
    offers = (
        offer("a", 2, 50, 50, offer_id="1"),
        offer("a", 2, 50, 50, offer_id="2"),
        offer("b", 2, 20, 10),
    )
    found = Capacity(offers)
    assert found.of(needs) == count
    assert found.of(needs, 3) == min(count, 3)


LARGE = {agent: Resources(8000, 32_768) for agent in ("n7", "n8", "n9")}


@pytest.mark.parametrize(
    ("snapshot", "needs", "message"),
    [
        (Snapshot(()), cpus(1), (WaitCode.NO_NODES, "the cluster has no nodes")),
        (
            Snapshot((), nodes_total={"a": Resources(32_000, 64), "b": Resources(500, 128)}),
            Resources(64_500, 64),
            (WaitCode.NO_NODE_LARGE_ENOUGH, "asks 64.5 cpus; the largest node has 32"),
        ),
        (
            Snapshot((), nodes_total={"a": Resources(32_000, 64), "b": Resources(500, 128)}),
            Resources(1000, 100),
            (
                WaitCode.NO_NODE_LARGE_ENOUGH,
                "asks 1 cpus and 100 MiB of memory and 0 MiB of disk; no node has all of it",
            ),
        ),
        (
            Snapshot((offer("a", 4),), paused_nodes=frozenset("a")),
            cpus(1),
            (WaitCode.NODE_PAUSED, "every node that is large enough is paused"),
        ),
        (
            Snapshot((offer("a", 4),), scheduler_paused=True),
            cpus(1),
            (WaitCode.SCHEDULER_PAUSED, "the scheduler is paused"),
        ),
        (
            Snapshot((offer("a", 4),), headroom={1: 0}),
            cpus(1),
            (
                WaitCode.MAX_SCHEDULED_REACHED,
                "as many of this job type run as its max_scheduled allows",
            ),
        ),
        (
            Snapshot((offer("a", 4),), headroom={1: 0}, limits={1: TYPE_PAUSED}),
            cpus(1),
            (WaitCode.JOB_TYPE_PAUSED, "its job type is paused"),
        ),
        (
            Snapshot((), nodes_total={"a": cpus(4)}),
            cpus(1),
            (WaitCode.INSUFFICIENT_CPUS, "asks 1 cpus; no node has any free for it now"),
        ),
        (
            Snapshot((offer("n7", 8, 31_431), offer("n8", 8, 100)), nodes_total=LARGE),
            Resources(1000, 32_000),
            (
                WaitCode.INSUFFICIENT_MEM,
                (
                    "asks 32000 MiB of memory; node host-n7 is kept for it"
                    " and has 31431 free of 32768"
                ),
            ),
        ),
        (
            Snapshot(
                (offer("n7", 8, 31_431), offer("n8", 8, 100)),
                nodes_total=LARGE,
                holding=(Holding(9, "n8", Resources(0, 200)),),
                reserved={Resources(1, 32_001): "n9", Resources(1, 32_002): "n9"},
            ),
            Resources(1000, 32_000),
            (
                WaitCode.INSUFFICIENT_MEM,
                (
                    "asks 32000 MiB of memory; the roomiest node, host-n7, has 31431 free of 32768;"
                    " nodes kept for what comes first: 1"
                ),
            ),
        ),
        (
            Snapshot((offer("a", 1),), paused_nodes=frozenset("a")),
            cpus(2),
            (WaitCode.NO_NODE_LARGE_ENOUGH, "asks 2 cpus; the largest node has 1"),
        ),
        (
            Snapshot(
                (offer("n7", 8, 100), offer("n8", 2, 2000)),
                nodes_total=LARGE | {"n8": Resources(2000, 30_000)},
                reserved={Resources(8000, 2000): "n9"},
            ),
            Resources(4000, 1500),
            (
                WaitCode.INSUFFICIENT_MEM,
                (
                    "asks 1500 MiB of memory; the roomiest node, host-n8, has 2000 free of 30000,"
                    " but too little else"
                ),
            ),
        ),
        (
            Snapshot(
                (offer("n7", 0, 100), offer("n8", 0, 50)),
                nodes_total=LARGE,
                reserved={Resources(8000, 32_768): "n9"},
            ),
            Resources(1000, 1000),
            (
                WaitCode.INSUFFICIENT_CPUS,
                "asks 1 cpus; no node has any free for it now",
            ),
        ),
        (
            Snapshot((offer("a", 4, 8, 8),), nodes_total={"a": Resources(9000, 9, 9)}),
            Resources(1000, 1, 9),
            (
                WaitCode.INSUFFICIENT_DISK,
                "asks 9 MiB of disk; node host-a is kept for it and has 8 free of 9",
            ),
        ),
    ],
)
def test_a_reason_names_what_is_asked_and_what_there_is(
    snapshot: Snapshot, needs: Resources, message: tuple[WaitCode, str]
) -> None:
    others = waiting(*snapshot.reserved, first=50)
    decided = plan(replace(snapshot, waiting=(*others, *waiting(needs))))
    reason = decided.reasons[Shape(1, needs)]
    assert (reason.code, reason.message) == message


# --- what is only explained -----------------------------------------------------------------------


def test_what_agents_without_an_offer_have_is_counted_but_reserved_only_if_it_was() -> None:
    totals = {"a": cpus(8), "b": cpus(8), "c": cpus(8)}
    elsewhere = (offer("a", 5), offer("b", 3))
    snapshot = Snapshot((), waiting(cpus(6), cpus(4)), (), totals, elsewhere=elsewhere)
    decided = plan(snapshot)
    assert placed(decided) == {2: "a"}
    assert decided.reserved == {}
    assert decided.reasons[Shape(1, cpus(6))].message == (
        "asks 6 cpus; the roomiest node, host-b, has 3 free of 8"
    )
    decided = plan(replace(snapshot, reserved={cpus(6): "b"}))
    assert decided.reserved == {cpus(6): "b"}
    assert decided.reasons[Shape(1, cpus(6))].message == (
        "asks 6 cpus; node host-b is kept for it and has 3 free of 8"
    )
    assert decided.offers_used == {"a": ()}
