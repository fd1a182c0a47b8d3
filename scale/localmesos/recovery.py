"""What the journal of an earlier life says, and what follows from it."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scale.localmesos.agent import Agent
from scale.localmesos.journal import read_lines
from scale.localmesos.master import COMPLETED_FRAMEWORKS_KEPT, Master
from scale.localmesos.resources import InvalidResource, Resources, parse
from scale.localmesos.tasks import Launch, Task, launch_of, launch_record
from scale.localmesos.updates import Key, Update, make_update

Record = Mapping[str, Any]


@dataclass(slots=True)
class Found:
    """The state at the last record; updates are those not acknowledged, in order."""

    agent_ids: list[str] = field(default_factory=list)
    frameworks: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    launches: dict[Key, Launch] = field(default_factory=dict)
    updates: dict[Key, list[Update]] = field(default_factory=dict)
    ended: set[Key] = field(default_factory=set)

    def apply(self, record: Record) -> None:
        """Replay one record; replaying it twice changes nothing."""
        match record["k"]:
            case "agents":
                self.agent_ids = list(record["ids"])
            case "framework":
                self.frameworks[record["id"]] = record["info"]
            case "removed":
                self._remove(record["id"])
            case "task":
                launch = launch_of(record, _resources(record))
                self.launches[launch.key] = launch
            case "update":
                self._update(make_update(record["framework"], record["status"]))
            case "ack":
                self._acknowledge((record["framework"], record["task"]), record["uuid"])

    def _remove(self, framework_id: str) -> None:
        if framework_id not in self.removed:
            self.removed.append(framework_id)
        del self.removed[:-COMPLETED_FRAMEWORKS_KEPT]
        self.frameworks.pop(framework_id, None)
        for key in [key for key in self.launches if key[0] == framework_id]:
            del self.launches[key]
        for key in [key for key in self.updates if key[0] == framework_id]:
            del self.updates[key]

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
            self.launches.pop(key, None)
            self.ended.discard(key)
        if not waiting:
            self.updates.pop(key, None)


def _resources(record: Record) -> Resources:
    try:
        return parse(record["info"].get("resources", ()), record["role"])
    except InvalidResource:
        return Resources()


def read(path: Path, agents: int) -> Found:
    """Return what the journal holds, with at least `agents` agent ids."""
    found = Found()
    for record in read_lines(path):
        found.apply(record)
    cluster = str(uuid.uuid4())
    while len(found.agent_ids) < agents:
        found.agent_ids.append(f"{cluster}-S{len(found.agent_ids)}")
    return found


def restore(found: Found, master: Master, agents: Sequence[Agent]) -> None:
    """Give the master and the agents what they knew, nothing is sent yet."""
    master.agent_ids = list(found.agent_ids)
    master.recover(found.frameworks, found.removed)
    for key, launch in found.launches.items():
        framework = master.frameworks.get(key[0])
        if framework is not None:
            framework.tasks[key[1]] = Task(launch)
    here = {agent.place.agent_id: agent for agent in agents}
    for agent in agents:
        master.add_agent(agent)
    for key, updates in found.updates.items():
        for update in updates:
            agent = here.get(update.status["agent_id"]["value"], agents[0])
            if key[0] in master.frameworks:
                agent.streams.append(update)


def report_lost(found: Found, master: Master, agents: Sequence[Agent]) -> None:
    """Tell the end of every task that had no end when its process died."""
    here = {agent.place.agent_id: agent for agent in agents}
    for key, launch in found.launches.items():
        framework = master.frameworks.get(key[0])
        if framework is None or key in found.ended:
            continue
        agent = here.get(launch.agent_id, agents[0])
        agent.report_lost(launch, "TASK_GONE" if framework.is_partition_aware else "TASK_LOST")


def snapshot(master: Master) -> Iterator[Record]:
    """Yield records that stand for everything that matters now."""
    yield {"k": "agents", "ids": master.agent_ids}
    yield from master.snapshot()
    for framework in master.frameworks.values():
        for task in framework.tasks.values():
            yield launch_record(task.launch)
    for agent in master.agents.values():
        for update in agent.streams.pending():
            yield {"k": "update", "framework": update.key[0], "status": update.status}
