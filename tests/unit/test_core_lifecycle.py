import itertools

import pytest

from scale.core.errors import IllegalTransition
from scale.core.lifecycle import (
    HAS_TASK,
    MOVES,
    ON_NODE,
    STATUS,
    TERMINAL,
    Event,
    State,
    Status,
    events_from,
    next_state,
)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_is_either_in_the_table_or_refused(state: State, event: Event) -> None:
    if (state, event) in MOVES:
        assert next_state(state, event) in State
        assert event in events_from(state)
    else:
        with pytest.raises(IllegalTransition, match=f"{event} is not allowed in state {state}"):
            next_state(state, event)
        assert event not in events_from(state)


def test_what_has_ended_never_moves_again() -> None:
    assert {State.COMPLETED, State.FAILED, State.CANCELED} == TERMINAL
    assert not any(events_from(state) for state in TERMINAL)


def test_every_state_can_be_reached_and_every_event_is_used() -> None:
    assert set(MOVES.values()) == set(State)
    assert {event for _, event in MOVES} == set(Event)


def test_everything_that_has_not_ended_can_be_canceled() -> None:
    for state in set(State) - TERMINAL:
        assert next_state(state, Event.CANCEL) is State.CANCELED


@pytest.mark.parametrize("state", sorted(set(State) - TERMINAL))
def test_from_everywhere_there_is_a_way_to_each_end(state: State) -> None:
    reached, found = set(), {state}
    while found - reached:
        current = (found - reached).pop()
        reached.add(current)
        found |= {next_state(current, event) for event in events_from(current)}
    assert reached >= TERMINAL


def test_only_a_launch_gives_an_execution_a_task() -> None:
    for (state, event), after in MOVES.items():
        if state not in HAS_TASK and after in HAS_TASK:
            assert event is Event.LAUNCH


def test_only_a_bounce_of_the_first_phase_takes_an_execution_off_its_node() -> None:
    for (state, event), after in MOVES.items():
        if state in ON_NODE and after not in ON_NODE | TERMINAL:
            assert (event, after) == (Event.BOUNCE, State.QUEUED)


def test_the_public_status_of_every_state_is_one_of_the_five() -> None:
    assert STATUS.keys() == set(State)
    assert set(STATUS.values()) == set(Status)
    assert {state for state in State if STATUS[state] is Status.RUNNING} == ON_NODE


def test_the_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        MOVES[State.FAILED, Event.LAUNCH] = State.STARTING  # type: ignore[index]
