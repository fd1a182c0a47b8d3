"""The master's view of an agent, and of those that are not here."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from scale.localmesos.framework import Framework
from scale.localmesos.link import Link
from scale.localmesos.messages import (
    Acknowledge,
    Discard,
    Introduce,
    Kill,
    Message,
    RemoveFramework,
    Resend,
    Start,
)
from scale.localmesos.place import Place
from scale.localmesos.tasks import Launch, launch_record
from scale.localmesos.updates import Key

GONE_KEPT: Final = 1000  # --registry_max_agent_count is larger; nobody marks that many by hand


@dataclass(slots=True)
class Remote:
    """An agent that has registered; without `link` it is away and may yet come back."""

    place: Place
    link: Link | None = None
    registered: float = field(default_factory=time.time)
    reregistered: float | None = None
    used: dict[Key, Launch] = field(default_factory=dict)  # of tasks that have processes
    missed: int = 0  # pings without answer
    timer: asyncio.TimerHandle | None = None
    _introduced: set[str] = field(default_factory=set)

    def connect(self, place: Place, link: Link, used: dict[Key, Launch]) -> None:
        """Take up a link on which everything is to be said anew."""
        self.place, self.link, self.used = place, link, used
        self.missed = 0
        self._introduced.clear()

    def disconnect(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None

    def send(self, message: Message) -> None:
        """Send a message; drop it if the agent is away."""
        if self.link is not None:
            self.link.send(message)

    def launch(self, launch: Launch, framework: Framework) -> None:
        """Start a task soon; what goes wrong comes back as an update."""
        self.used[launch.key] = launch
        if launch.framework_id not in self._introduced:
            self._introduced.add(launch.framework_id)
            self.send(Introduce(launch.framework_id, orjson.dumps(framework.info)))
        self.send(Start(orjson.dumps(launch_record(launch))))

    def kill(self, key: Key, policy: Mapping[str, Any] | None) -> None:
        """Kill a task; if the agent is away, the framework has to ask again."""
        self.send(Kill(*key, dict(policy or {})))

    def acknowledge(self, key: Key, uuid: str) -> bool:
        """Pass an acknowledgement on; False if the agent is away and will ask again."""
        self.send(Acknowledge(*key, uuid))
        return self.link is not None

    def discard(self, key: Key) -> None:
        self.send(Discard(*key))

    def resend(self, framework_id: str) -> None:
        """Have a framework's updates repeated now; its info may have changed."""
        self._introduced.discard(framework_id)
        self.send(Resend(framework_id))

    def remove_framework(self, framework_id: str) -> None:
        """Kill everything of a framework; nobody is told."""
        self._introduced.discard(framework_id)
        self.send(RemoveFramework(framework_id))


@dataclass(slots=True)
class Absent:
    """Agents that are not registered, by id; the times are seconds since 1970."""

    recovered: set[str] = field(default_factory=set)  # were here before the master was restarted
    unreachable: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)  # an operator said so
    lost: dict[str, set[Key]] = field(default_factory=dict)  # tasks that nobody wants back

    def forget(self, agent_id: str) -> None:
        self.recovered.discard(agent_id)
        self.unreachable.pop(agent_id, None)
        self.lost.pop(agent_id, None)

    def mark_gone(self, agent_id: str, now: float) -> None:
        self.forget(agent_id)
        self.gone[agent_id] = now
        if len(self.gone) > GONE_KEPT:
            del self.gone[next(iter(self.gone))]
