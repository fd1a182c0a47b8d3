"""What the journals of an earlier life say: that of the master, and that of an agent."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from scale.localmesos import status
from scale.localmesos.agent import Agent
from scale.localmesos.journal import read_lines
from scale.localmesos.master import COMPLETED_FRAMEWORKS_KEPT, Master
from scale.localmesos.remote import Absent
from scale.localmesos.status import Cause
from scale.localmesos.tasks import Launch, launch_from
from scale.localmesos.updates import Key, Update, make_update
from scale.localmesos.validation import capabilities_of

Record = Mapping[str, Any]


@dataclass(slots=True)
class Registry:
    """The master's state at the last record. Tasks are known by the agents."""

    frameworks: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    absent: Absent = field(default_factory=Absent)

    def apply(self, record: Record) -> None:
        """Replay one record; replaying it twice changes nothing."""
        name = record["id"]
        match record["k"]:
            case "framework":
                self.frameworks[name] = record["info"]
            case "removed":
                if name not in self.removed:
                    self.removed.append(name)
                del self.removed[:-COMPLETED_FRAMEWORKS_KEPT]
                self.frameworks.pop(name, None)
            case "agent":
                self.absent.forget(name)
                self.absent.recovered.add(name)
            case "left":
                self.absent.forget(name)
            case "unreachable":
                self.absent.forget(name)
                self.absent.unreachable[name] = record["since"]
            case "gone":
                self.absent.mark_gone(name, record["since"])


def read_registry(path: Path) -> Registry:
    """Return what the master's journal holds."""
    registry = Registry()
    for record in read_lines(path):
        registry.apply(record)
    return registry


def restore_master(registry: Registry, master: Master) -> None:
    """Give the master what it knew; nothing is sent yet."""
    master.recover(registry.frameworks, registry.removed)
    master.absent = registry.absent


@dataclass(slots=True)
class Found:
    """An agent's state at the last record; updates are those not acknowledged, in order."""

    agent_id: str = ""
    frameworks: dict[str, dict[str, Any]] = field(default_factory=dict)
    launches: dict[Key, Launch] = field(default_factory=dict)
    updates: dict[Key, list[Update]] = field(default_factory=dict)
    ended: set[Key] = field(default_factory=set)

    def apply(self, record: Record) -> None:
        """Replay one record; replaying it twice changes nothing."""
        match record["k"]:
            case "agent":
                self.agent_id = record["id"]
            case "framework":
                self.frameworks[record["id"]] = record["info"]
            case "removed":
                self._remove(record["id"])
            case "task":
                launch = launch_from(record)
                self.launches[launch.key] = launch
            case "update":
                self._update(make_update(record["framework"], orjson.dumps(record["status"])))
            case "ack":
                self._acknowledge((record["framework"], record["task"]), record["uuid"])
            case "forget":
                self._forget((record["framework"], record["task"]))

    def _remove(self, framework_id: str) -> None:
        self.frameworks.pop(framework_id, None)
        for key in [key for key in {*self.launches, *self.updates} if key[0] == framework_id]:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        self.launches.pop(key, None)
        self.updates.pop(key, None)
        self.ended.discard(key)

    def _update(self, update: Update) -> None:
        waiting = self.updates.setdefault(update.key, [])
        if update.uuid not in [each.uuid for each in waiting]:
            waiting.append(update)
        if update.is_terminal:
            self.ended.add(update.key)

    def _acknowledge(self, key: Key, uuid: str) -> None:
        waiting = self.updates.get(key, [])
        acknowledged = [update for update in waiting if update.uuid == uuid]
        waiting[:] = [update for update in waiting if update.uuid != uuid]
        if any(update.is_terminal for update in acknowledged):
            self._forget(key)
        elif not waiting:
            self.updates.pop(key, None)

    def bury(self) -> None:
        """Add the end of every task that had none when its process died."""
        cause = Cause("Agent restarted: the task died with it", "REASON_AGENT_RESTARTED")
        for key in self.launches.keys() - self.ended:
            aware = "PARTITION_AWARE" in capabilities_of(self.frameworks.get(key[0], {}))
            state = "TASK_GONE" if aware else "TASK_LOST"
            told = status.from_agent(key[1], self.agent_id, state, "SOURCE_AGENT", cause, {})
            self._update(make_update(key[0], orjson.dumps(told)))


def read_agent(path: Path, number: int) -> Found:
    """Return what the journal of an agent holds, with an id if it had none."""
    found = Found()
    for record in read_lines(path):
        found.apply(record)
    found.agent_id = found.agent_id or f"{uuid.uuid4()}-S{number}"
    return found


def restore_agent(found: Found, agent: Agent) -> None:
    """Give the agent what it knew, and the end of what died since; nothing is sent yet."""
    found.bury()
    updates = [update for waiting in found.updates.values() for update in waiting]
    agent.restore(found.frameworks, found.launches, updates)
