"""The one table of what may happen to an execution, and what follows from it.

`job.services.move_executions`, the API, the admin, the model's constraints and
`docs/lifecycle.md` are all made from `MOVES`.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from scale.core.errors import IllegalTransition


class State(StrEnum):
    """Where an execution stands; stored."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    HOLDING = "holding"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class Event(StrEnum):
    """What happens to an execution; stored in its history."""

    LAUNCH = "launch"  # the task of a phase is sent to Mesos
    START = "start"  # Mesos says that it runs
    HOLD = "hold"  # a phase ended well, another follows
    FINISH = "finish"  # the last phase ended well
    FAIL = "fail"
    CANCEL = "cancel"
    BOUNCE = "bounce"  # the launch of the first phase never reached an agent
    BOUNCE_TO_HOLD = "bounce_to_hold"  # the launch of a later phase never reached its agent


class Phase(StrEnum):
    """The parts of an execution, in their order."""

    PRE = "pre"
    JOB = "job"
    POST = "post"


class Status(StrEnum):
    """What the REST API calls the state of an execution (seed 002)."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    FAILED = "FAILED"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


class JobStatus(StrEnum):
    """The status of a job; it follows from its executions (architecture, section 4)."""

    PENDING = "PENDING"
    BLOCKED = "BLOCKED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    FAILED = "FAILED"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


MOVES: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.QUEUED, Event.LAUNCH): State.STARTING,
        (State.QUEUED, Event.CANCEL): State.CANCELED,
        (State.STARTING, Event.START): State.RUNNING,
        (State.STARTING, Event.HOLD): State.HOLDING,
        (State.STARTING, Event.FINISH): State.COMPLETED,
        (State.STARTING, Event.FAIL): State.FAILED,
        (State.STARTING, Event.CANCEL): State.CANCELED,
        (State.STARTING, Event.BOUNCE): State.QUEUED,
        (State.STARTING, Event.BOUNCE_TO_HOLD): State.HOLDING,
        (State.RUNNING, Event.HOLD): State.HOLDING,
        (State.RUNNING, Event.FINISH): State.COMPLETED,
        (State.RUNNING, Event.FAIL): State.FAILED,
        (State.RUNNING, Event.CANCEL): State.CANCELED,
        (State.HOLDING, Event.LAUNCH): State.STARTING,
        (State.HOLDING, Event.FAIL): State.FAILED,
        (State.HOLDING, Event.CANCEL): State.CANCELED,
    }
)
TERMINAL: Final = frozenset(State) - {state for state, _ in MOVES}
#: A task of the execution was sent to Mesos and has not ended as far as we know.
HAS_TASK: Final = frozenset({State.STARTING, State.RUNNING})
#: The execution belongs to a node: it has a task there, or its work folder.
ON_NODE: Final = HAS_TASK | {State.HOLDING}

STATUS: Final[Mapping[State, Status]] = MappingProxyType(
    {
        State.QUEUED: Status.QUEUED,
        State.STARTING: Status.RUNNING,
        State.RUNNING: Status.RUNNING,
        State.HOLDING: Status.RUNNING,
        State.COMPLETED: Status.COMPLETED,
        State.FAILED: Status.FAILED,
        State.CANCELED: Status.CANCELED,
    }
)


def next_state(state: State, event: Event) -> State:
    """Return where `event` leads from `state`; raise IllegalTransition if nowhere."""
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} is not allowed in state {state}") from None


def events_from(state: State) -> frozenset[Event]:
    """Return what may happen next; the API and the admin show it."""
    return frozenset(event for source, event in MOVES if source is state)
