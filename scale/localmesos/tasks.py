"""A task as the master remembers it, and the launch order that an agent gets for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scale.localmesos.resources import InvalidResource, Resources, parse
from scale.localmesos.status import brief
from scale.localmesos.updates import Key

STATUSES_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything an agent must know to run a task, in a form that fits the journal."""

    framework_id: str
    agent_id: str
    info: Mapping[str, Any]  # TaskInfo as the schema gives it
    role: str
    user: str
    checkpoint: bool
    tells_killing: bool  # the framework has TASK_KILLING_STATE
    resources: Resources

    @property
    def task_id(self) -> str:
        return str(self.info["task_id"]["value"])

    @property
    def key(self) -> Key:
        return self.framework_id, self.task_id


@dataclass(slots=True)
class Task:
    """The master's view: the last state that was forwarded, and how it got there."""

    launch: Launch
    state: str = "TASK_STAGING"
    uuid: str | None = None  # of that status, if it is to be acknowledged
    container: Mapping[str, Any] | None = None
    statuses: list[dict[str, Any]] = field(default_factory=list)

    @property
    def task_id(self) -> str:
        return self.launch.task_id

    def see(self, status: Mapping[str, Any]) -> None:
        """Remember a status that goes to the framework; a repeated one changes nothing."""
        if container := status.get("container_status"):
            self.container = container
        shown = brief(status)
        if not self.statuses or self.statuses[-1] != shown:
            self.statuses = [*self.statuses[1 - STATUSES_KEPT :], shown]
        self.state = str(status["state"])
        self.uuid = status.get("uuid")


def launch_record(launch: Launch) -> dict[str, Any]:
    """Return the form for journal and wire; `launch_from` reads it."""
    return {
        "k": "task",
        "framework": launch.framework_id,
        "agent": launch.agent_id,
        "info": launch.info,
        "role": launch.role,
        "user": launch.user,
        "checkpoint": launch.checkpoint,
        "killing": launch.tells_killing,
    }


def launch_from(record: Mapping[str, Any]) -> Launch:
    """Read what `launch_record` made.

    Raises:
        LookupError, TypeError: it is something else.
    """
    try:
        resources = parse(record["info"].get("resources", ()), record["role"])
    except InvalidResource:
        resources = Resources()
    return Launch(
        record["framework"],
        record["agent"],
        record["info"],
        record["role"],
        record["user"],
        record["checkpoint"],
        record["killing"],
        resources,
    )
