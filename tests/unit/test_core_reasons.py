"""Why things wait, in words: those reasons that the planner does not give."""

import pytest

from scale.core.reasons import (
    Room,
    WaitCode,
    backs_off,
    max_scheduled_reached,
    no_scheduler,
    waits_for_its_node,
    waits_for_its_node_to_return,
    waits_for_offer,
)
from scale.core.resources import Resources


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (Resources(9000), "asks 9 cpus; its node, n7, has 8 in all"),
        (Resources(3500), "asks 3.5 cpus; its node, n7, has 2 free of 8"),
        (Resources(1000, 65), "asks 65 MiB of memory; its node, n7, has 64 free of 100"),
        (
            Resources(2000, 64, 5),
            "its node, n7, should have room; it goes on when Mesos offers that",
        ),
    ],
)
def test_a_reason_for_a_next_phase_names_its_node(needs: Resources, message: str) -> None:
    room = Room("n7", Resources(8000, 100, 9), Resources(2000, 64, 5))
    found = waits_for_its_node(needs, room)
    assert (found.code, found.message) == (WaitCode.WAITING_FOR_ITS_NODE, message)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (waits_for_its_node_to_return("n7"), ("WAITING_FOR_ITS_NODE", "n7", "is not there now")),
        (waits_for_offer("n7"), ("WAITING_FOR_OFFERS", "node n7 should have room")),
        (max_scheduled_reached(3), ("MAX_SCHEDULED_REACHED", "at most 3 of this job type")),
        (backs_off(4, "12:00"), ("RETRY_BACK_OFF", "4 times in a row", "the next is at 12:00")),
        (backs_off(4, None), ("RETRY_BACK_OFF", "one at a time starts until one works")),
        (no_scheduler("12:00"), ("NO_SCHEDULER", "since 12:00; nothing is launched")),
        (no_scheduler(None), ("NO_SCHEDULER", "no scheduler has been at work yet")),
    ],
)
def test_a_reason_has_a_code_and_its_numbers(reason: object, words: tuple[str, ...]) -> None:
    assert all(each in str(reason) for each in words)
