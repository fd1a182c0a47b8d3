"""A framework as the master knows it, and an offer that it holds."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from scale.localmesos.resources import Resources
from scale.localmesos.stream import EventStream, event
from scale.localmesos.tasks import Task
from scale.localmesos.validation import capabilities_of, roles_of

COMPLETED_TASKS_KEPT: Final = 1000  # --max_completed_tasks_per_framework
UNREACHABLE_TASKS_KEPT: Final = 1000  # --max_unreachable_tasks_per_framework


@dataclass(slots=True)
class Offer:
    """Resources of one agent that a framework may use until it answers or we rescind."""

    offer_id: str
    framework_id: str
    agent_id: str
    role: str
    resources: Resources
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Framework:
    """State of one framework; `stream` is None while it is disconnected."""

    framework_id: str
    info: dict[str, Any]
    stream: EventStream | None = None
    recovered: bool = False  # known from the journal, not seen since
    tasks: dict[str, Task] = field(default_factory=dict)
    completed_tasks: deque[Task] = field(default_factory=lambda: deque(maxlen=COMPLETED_TASKS_KEPT))
    unreachable_tasks: dict[str, Task] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    registered: float = field(default_factory=time.time)
    reregistered: float | None = None
    unregistered: float = 0.0
    heartbeat: asyncio.TimerHandle | None = None
    removal: asyncio.TimerHandle | None = None

    @property
    def capabilities(self) -> frozenset[str]:
        return capabilities_of(self.info)

    @property
    def roles(self) -> tuple[str, ...]:
        return roles_of(self.info)

    @property
    def principal(self) -> str | None:
        return self.info.get("principal")

    @property
    def is_partition_aware(self) -> bool:
        return "PARTITION_AWARE" in self.capabilities

    def send(self, kind: bytes, field_name: bytes = b"", payload: bytes = b"") -> None:
        """Send an event if the framework is connected; drop it if not."""
        if self.stream is not None:
            self.stream.push(event(kind, field_name, payload))

    def send_status(self, encoded: bytes) -> None:
        self.send(b"UPDATE", b"update", b'{"status":%s}' % encoded)

    def tell(self, status: Mapping[str, Any]) -> None:
        """Send a status of the master's own."""
        self.send_status(orjson.dumps(status))

    def adopt(self, info: Mapping[str, Any]) -> None:
        """Take over what may change at a subscription: all but user, checkpoint and principal."""
        kept = ("user", "checkpoint", "principal")
        old = {name: self.info[name] for name in kept if name in self.info}
        self.info = {**info, "id": {"value": self.framework_id}}
        self.info.update(old)

    def complete(self, task_id: str) -> None:
        """Move a task to those that have ended."""
        task = self.tasks.pop(task_id, None)
        if task is not None:
            self.completed_tasks.append(task)

    def lose_sight_of(self, task_id: str) -> None:
        """Move a task to those of which nothing is known until their agent is back."""
        self.unreachable_tasks[task_id] = self.tasks.pop(task_id)
        if len(self.unreachable_tasks) > UNREACHABLE_TASKS_KEPT:
            del self.unreachable_tasks[next(iter(self.unreachable_tasks))]

    def tasks_on(self, agent_id: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.launch.agent_id == agent_id]

    def stop_timers(self) -> None:
        for timer in (self.heartbeat, self.removal):
            if timer is not None:
                timer.cancel()
        self.heartbeat = self.removal = None
