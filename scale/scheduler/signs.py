"""What the end of a task says about its job type and about its node, decided without touching."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from scale.core.lifecycle import Event, Phase

#: Errors of tasks that never got to run.
LAUNCH_ERRORS: Final = frozenset({"task-launch", "docker-task-launch", "launch-timeout"})
# Errors of the system that are neither the node's nor a reason to wait with a job type's launches:
# the node is gone, or something that all nodes share failed.
_SHARED: Final = frozenset(
    {
        "node-lost",
        "scheduler-lost",
        "mesos-lost",
        "resource-starvation",
        "database",
        "database-operation",
    }
)
# An input of one job was at fault. Others of its type must not wait for it.
_INPUTS: Final = frozenset({"pull", "missing-file", "deleted-file"})
# What was to be fetched, or where from, was at fault; another node would fail as well.
_ELSEWHERE: Final = _SHARED | _INPUTS | {"missing-setting", "api-unreachable"}
#: A launch that never reached an agent is free; one execution's fifth in a row is not.
_FREE_BOUNCES: Final = 5


class Sign(Enum):
    WORKS = auto()
    BROKEN = auto()


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that happened to a task; `phase` and `node_id` are those that it had."""

    job_id: int
    job_type_id: int
    node_id: int | None
    event: Event
    phase: Phase
    uses_docker: bool
    launches: int
    exit_code: int | None = None
    error: str | None = None


def sign_of_type(ending: Ending, system_errors: Collection[str]) -> Sign | None:
    """Say whether tasks of the job type can be started; None if this does not tell."""
    match ending.event:
        case Event.BOUNCE | Event.BOUNCE_TO_HOLD:
            return Sign.BROKEN if ending.launches >= _FREE_BOUNCES else None
        case Event.START if ending.phase is Phase.JOB and not ending.uses_docker:
            return Sign.WORKS
        case Event.HOLD | Event.FINISH if ending.phase is Phase.JOB:
            return Sign.WORKS
        case Event.FAIL if ending.error in LAUNCH_ERRORS:
            return Sign.BROKEN
        case Event.FAIL if ending.phase is Phase.PRE:
            broken = ending.error in system_errors and ending.error not in _SHARED | _INPUTS
            return Sign.BROKEN if broken else None
        case Event.FAIL if ending.phase is Phase.JOB and ending.exit_code is not None:
            return Sign.WORKS
        case _:
            return None


def sign_of_node(ending: Ending, system_errors: Collection[str]) -> Sign | None:
    """Say whether the node does its work; None if this does not tell."""
    match ending.event:
        case Event.HOLD | Event.FINISH:
            return Sign.WORKS
        case Event.FAIL if ending.error not in system_errors:
            return Sign.WORKS
        case Event.FAIL if ending.phase is Phase.JOB and ending.exit_code is not None:
            return None  # the command ran; what its exit codes mean is its own affair
        case Event.FAIL if ending.error not in _ELSEWHERE:
            return Sign.BROKEN
        case _:
            return None
