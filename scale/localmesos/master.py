"""The master: frameworks and their tasks, and what passes between them and the agents.

Which agents there are is the business of members.py.
"""

import asyncio
import itertools
import logging
import socket
import struct
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from scale.localmesos.allocator import Client
from scale.localmesos.framework import Framework
from scale.localmesos.journal import Callback, Journal
from scale.localmesos.offers import OfferBook
from scale.localmesos.remote import Absent, Remote
from scale.localmesos.status import TERMINAL
from scale.localmesos.stream import EventStream, event
from scale.localmesos.updates import Key, Update
from scale.localmesos.validation import framework_problem

logger = logging.getLogger(__name__)

VERSION: Final = "1.11.0"  # pymesos wants digits and dots
COMPLETED_FRAMEWORKS_KEPT: Final = 50
CAPABILITIES: Final = ("AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2")


@dataclass(frozen=True, slots=True)
class Periods:
    """Times that tests shorten, in seconds."""

    heartbeat_s: float = 15.0
    allocation_s: float = 1.0  # --allocation_interval: the shortest life of a decline filter
    offer_timeout_s: float = 0.0  # --offer_timeout; 0: an offer stays for ever
    ping_s: float = 15.0  # --agent_ping_timeout
    max_missed_pings: int = 5  # --max_agent_ping_timeouts
    reregister_s: float = 600.0  # --agent_reregister_timeout


@dataclass(frozen=True, slots=True)
class Address:
    """Where the master listens."""

    hostname: str
    ip: str
    port: int

    @property
    def pid(self) -> str:
        return f"master@{self.ip}:{self.port}"


class Master:
    """All state of the master; every method runs on the event loop."""

    def __init__(self, address: Address, journal: Journal, periods: Periods) -> None:
        self.master_id = str(uuid.uuid4())  # a new one per start, like Mesos: ids stay unique
        self.address = address
        self.started = time.time()
        self.frameworks: dict[str, Framework] = {}
        self.completed: dict[str, Framework] = {}
        self.periods = periods
        self.agents: dict[str, Remote] = {}
        self.absent = Absent()
        self.offers = OfferBook(
            self.master_id,
            self.frameworks,
            self.agents,
            shortest_refusal_s=periods.allocation_s,
            timeout_s=periods.offer_timeout_s,
        )
        self.allocator = self.offers.allocator
        self._journal = journal
        self._framework_numbers = itertools.count()

    # --- agents --------------------------------------------------------------------------------

    def forward(self, update: Update) -> None:
        """Pass an agent's update to its framework, if that is connected."""
        framework = self.frameworks.get(update.key[0])
        if framework is None or framework.stream is None:
            return
        task = framework.tasks.get(update.key[1])
        if task is not None:
            task.see(update.status)
        framework.send_status(update.encoded)

    def release(self, remote: Remote, key: Key) -> None:
        """Take back what an ended task had; it is offered again at once."""
        launch = remote.used.pop(key, None)
        if launch is not None:
            self.allocator.give_back(key[0], remote.place.agent_id, launch.resources)
            self.offers.request_allocation()

    # --- subscriptions -------------------------------------------------------------------------

    def subscribe(
        self, info: dict[str, Any], suppressed: Iterable[str], stream: EventStream
    ) -> Framework | None:
        """Connect a framework to `stream`; None if it was refused there."""
        framework_id = info.get("id", {}).get("value", "")
        problem = framework_problem(info, suppressed)
        if problem is None and framework_id in self.completed:
            problem = "Framework has been removed"
        known = self.frameworks.get(framework_id)
        if problem is None and known is not None and known.principal != info.get("principal"):
            problem = "Changing framework's principal is not allowed"
        if problem is not None:
            stream.push(event(b"ERROR", b"error", orjson.dumps({"message": problem})))
            stream.open()
            stream.end()
            return None
        framework = known or self._new_framework(framework_id, info)
        if known is not None:
            self._reconnect(framework, info)
        self._connect(framework, suppressed, stream)
        return framework

    def _new_framework(self, framework_id: str, info: dict[str, Any]) -> Framework:
        framework_id = framework_id or f"{self.master_id}-{next(self._framework_numbers):04d}"
        framework = Framework(framework_id, {**info, "id": {"value": framework_id}})
        self._keep(framework)
        return framework

    def _reconnect(self, framework: Framework, info: dict[str, Any]) -> None:
        if framework.stream is not None:
            framework.send(b"ERROR", b"error", b'{"message":"Framework failed over"}')
            framework.stream.end()
        self.offers.withdraw(framework)
        framework.stop_timers()
        framework.adopt(info)
        framework.recovered = False
        framework.reregistered = time.time()

    def _keep(self, framework: Framework) -> None:
        self.frameworks[framework.framework_id] = framework
        self.allocator.clients[framework.framework_id] = Client(framework.roles)

    def _connect(
        self, framework: Framework, suppressed: Iterable[str], stream: EventStream
    ) -> None:
        framework.stream = stream
        client = self.allocator.clients[framework.framework_id]
        client.roles, client.active = framework.roles, True
        client.suppressed, client.filters = set(suppressed), {}
        client.gpus = "GPU_RESOURCES" in framework.capabilities
        # The answer starts when the id is on disk; until then its events wait in the stream.
        self.record(
            {"k": "framework", "id": framework.framework_id, "info": framework.info}, stream.open
        )
        framework.send(b"SUBSCRIBED", b"subscribed", orjson.dumps(self._subscribed(framework)))
        self._beat(framework)
        for agent in self.agents.values():
            agent.resend(framework.framework_id)
        self.offers.request_allocation()

    def _subscribed(self, framework: Framework) -> dict[str, Any]:
        return {
            "framework_id": {"value": framework.framework_id},
            "heartbeat_interval_seconds": float(self.periods.heartbeat_s),
            "master_info": self.info(),
        }

    def info(self) -> dict[str, Any]:
        """Return MasterInfo."""
        address = self.address
        return {
            "id": self.master_id,
            "ip": struct.unpack("=I", socket.inet_aton(address.ip))[0],
            "port": address.port,
            "pid": address.pid,
            "hostname": address.hostname,
            "version": VERSION,
            "address": {"hostname": address.hostname, "ip": address.ip, "port": address.port},
            "capabilities": [{"type": name} for name in CAPABILITIES],
        }

    def _beat(self, framework: Framework) -> None:
        framework.send(b"HEARTBEAT")
        loop = asyncio.get_running_loop()
        framework.heartbeat = loop.call_later(self.periods.heartbeat_s, self._beat, framework)

    def disconnected(self, framework: Framework, stream: EventStream) -> None:
        """Note that a stream has ended; the framework has its failover_timeout to come back."""
        if framework.stream is not stream:
            return
        framework.stream = None
        framework.unregistered = time.time()
        framework.stop_timers()
        self.allocator.clients[framework.framework_id].active = False
        self.offers.withdraw(framework)
        self._await_return(framework)
        self.offers.request_allocation()

    def _await_return(self, framework: Framework) -> None:
        timeout_s = framework.info.get("failover_timeout", 0.0)
        # asyncio's timers end below 2**31 s; nobody waits for 60 years.
        framework.removal = asyncio.get_running_loop().call_later(
            min(timeout_s, 2e9), self.remove, framework
        )

    def remove(self, framework: Framework) -> None:
        """End a framework for good: its tasks are killed, its id is never taken again."""
        framework_id = framework.framework_id
        if self.frameworks.pop(framework_id, None) is None:
            return
        framework.stop_timers()
        framework.unregistered = time.time()
        self.offers.withdraw(framework)
        if framework.stream is not None:
            framework.stream.end()
            framework.stream = None
        for task in (*framework.tasks.values(), *framework.unreachable_tasks.values()):
            if task.state not in TERMINAL:
                task.state = "TASK_KILLED"
            framework.completed_tasks.append(task)
        framework.tasks, framework.unreachable_tasks = {}, {}
        del self.allocator.clients[framework_id]
        self.completed[framework_id] = framework
        if len(self.completed) > COMPLETED_FRAMEWORKS_KEPT:
            del self.completed[next(iter(self.completed))]
        self.record({"k": "removed", "id": framework_id})
        for agent in self.agents.values():
            agent.remove_framework(framework_id)
        self.offers.request_allocation()

    # --- tasks ---------------------------------------------------------------------------------

    def acknowledge(self, framework: Framework, agent_id: str, task_id: str, uuid: str) -> None:
        """Confirm an update; a terminal one ends the task's place among the living."""
        agent = self.agents.get(agent_id)
        if agent is None or not agent.acknowledge((framework.framework_id, task_id), uuid):
            return
        task = framework.tasks.get(task_id)
        if task is not None and task.uuid == uuid and task.state in TERMINAL:
            framework.complete(task_id)

    # --- the journal ---------------------------------------------------------------------------

    def recover(self, infos: Mapping[str, dict[str, Any]], removed: Iterable[str]) -> None:
        """Take up the frameworks of an earlier life; each has its failover_timeout to return."""
        for framework_id, info in infos.items():
            framework = Framework(framework_id, info, recovered=True)
            framework.unregistered = time.time()
            self._keep(framework)
            self._await_return(framework)
        for framework_id in removed:
            self.completed[framework_id] = Framework(
                framework_id, {"user": "", "name": "", "id": {"value": framework_id}}
            )

    def record(self, record: Mapping[str, Any], then: Callback | None = None) -> None:
        """Write what must be known after a restart; call `then` when it is on the disk."""
        self._journal.append(orjson.dumps(record), then)

    def snapshot(self) -> Iterator[dict[str, Any]]:
        """Yield the records that stand for what is known now; recovery.py reads them."""
        for framework_id in self.completed:
            yield {"k": "removed", "id": framework_id}
        for framework_id, framework in self.frameworks.items():
            yield {"k": "framework", "id": framework_id, "info": framework.info}
        for agent_id in (*self.agents, *self.absent.recovered):
            yield {"k": "agent", "id": agent_id}
        for agent_id, since in self.absent.unreachable.items():
            yield {"k": "unreachable", "id": agent_id, "since": since}
        for agent_id, since in self.absent.gone.items():
            yield {"k": "gone", "id": agent_id, "since": since}
