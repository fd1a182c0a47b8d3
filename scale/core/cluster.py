"""What the scheduler and a cluster say to each other, as values.

`scale.mesos` makes these from Mesos' JSON and turns them into it; `scale.scheduler` decides with
them and never sees JSON. Sources: `mesos.proto` and `scheduler.proto`, v1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from scale.core.resources import Resources


class TaskState(StrEnum):
    """`mesos.proto`, TaskState."""

    STAGING = "TASK_STAGING"
    STARTING = "TASK_STARTING"
    RUNNING = "TASK_RUNNING"
    KILLING = "TASK_KILLING"
    FINISHED = "TASK_FINISHED"
    FAILED = "TASK_FAILED"
    KILLED = "TASK_KILLED"
    ERROR = "TASK_ERROR"
    LOST = "TASK_LOST"
    DROPPED = "TASK_DROPPED"
    GONE = "TASK_GONE"
    GONE_BY_OPERATOR = "TASK_GONE_BY_OPERATOR"
    UNREACHABLE = "TASK_UNREACHABLE"
    UNKNOWN = "TASK_UNKNOWN"


#: The task has, or may soon have, a process on its agent.
ALIVE: Final = frozenset(
    {TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING}
)


@dataclass(frozen=True, slots=True)
class Agent:
    """A machine of the cluster. `address` is what to connect to; `hostname` is its name."""

    agent_id: str
    hostname: str
    address: str
    port: int
    total: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True)
class Offer:
    """Free resources of one agent, ours until accepted, declined or rescinded."""

    offer_id: str
    agent_id: str
    hostname: str
    address: str
    port: int
    free: Resources


@dataclass(frozen=True, slots=True)
class Uri:
    """A file that the agent fetches into the sandbox before the task starts."""

    value: str
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder of the host that the container sees."""

    container_path: str
    host_path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """Run the command in this Docker image."""

    image: str
    volumes: tuple[Volume, ...] = ()
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task to launch: a command line for `/bin/sh -c`, with what it needs and sees."""

    task_id: str
    agent_id: str
    name: str
    command: str
    needs: Resources
    environment: Mapping[str, str] = field(default_factory=dict)
    uris: tuple[Uri, ...] = ()
    container: Container | None = None


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task to ask about; naming the agent makes the answer more exact (contract, 5.4)."""

    task_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """What the cluster says about a task.

    `uuid` is None for what the master itself says; such an update must not be acknowledged.
    `timestamp_s` is the agent's clock, seconds since the epoch; None if it was not given.
    """

    task_id: str
    state: TaskState
    agent_id: str | None = None
    uuid: str | None = None
    source: str | None = None
    reason: str | None = None
    message: str = ""
    timestamp_s: float | None = None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The framework is registered; every offer and filter from before is void."""

    framework_id: str
    master: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream ended; every offer is void until the next Subscribed."""


@dataclass(frozen=True, slots=True)
class NotSubscribed:
    """Why the last attempt to subscribe, or the last stream, ended; comes once for each reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class OffersReceived:
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class OfferRescinded:
    offer_id: str


@dataclass(frozen=True, slots=True)
class UpdateReceived:
    update: TaskUpdate


@dataclass(frozen=True, slots=True)
class AgentLost:
    agent_id: str


@dataclass(frozen=True, slots=True)
class FrameworkRemoved:
    """The master has ended this framework: its id is spent and its tasks were killed."""

    message: str


@dataclass(frozen=True, slots=True)
class Deposed:
    """Another scheduler subscribed with our framework id."""

    message: str


ClusterEvent = (
    Subscribed
    | Disconnected
    | NotSubscribed
    | OffersReceived
    | OfferRescinded
    | UpdateReceived
    | AgentLost
    | FrameworkRemoved
    | Deposed
)
