"""Which agents the master has: they register, are pinged, get lost, come back, leave or are gone.

After src/master/master.cpp (`_reregisterSlave`, `exited`, `markUnreachable`, `unregisterSlave`,
`markGone`); what frameworks are told was seen on a real cluster, mesos-contract.md section 13.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from scale.localmesos import status
from scale.localmesos.framework import Framework
from scale.localmesos.link import Link
from scale.localmesos.master import Master
from scale.localmesos.messages import (
    BadFrame,
    Farewell,
    Leave,
    Message,
    Missing,
    Ping,
    Pong,
    Register,
    Released,
    Told,
    Welcome,
)
from scale.localmesos.place import Place
from scale.localmesos.remote import Remote
from scale.localmesos.report import Report, TaskReport, decode_report
from scale.localmesos.tasks import Task
from scale.localmesos.updates import make_update

logger = logging.getLogger(__name__)

REMOVED: Final = "REASON_AGENT_REMOVED"


class Members:
    """Moves agents in and out of `master.agents` and `master.absent`."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._periods = master.periods

    def attach(self, link: Link) -> "Peer":
        """Listen to a new link."""
        return Peer(self, self._master, link)

    def await_recovered(self) -> None:
        """Give agents that were here before this start their time to come back."""
        if self._master.absent.recovered:
            loop = asyncio.get_running_loop()
            loop.call_later(self._periods.reregister_s, self._give_up_recovered)

    def _give_up_recovered(self) -> None:
        for agent_id in list(self._master.absent.recovered):
            self._mark_unreachable(agent_id)
            self._tell_failure(agent_id)

    # --- registration --------------------------------------------------------------------------

    def register(self, message: Register, link: Link) -> Remote | None:
        """Take an agent in, or back; None if it is refused.

        Raises:
            BadFrame: its report cannot be read; nothing has changed.
        """
        report = decode_report(message.encoded)
        place = Place(
            message.agent_id, message.hostname, message.ip, message.port, report.resources
        )
        master = self._master
        if place.agent_id in master.absent.gone:
            link.send(Farewell(gone=True))
            link.close()
            return None
        remote = master.agents.get(place.agent_id)
        if remote is None:
            remote = Remote(place)
        else:
            self.disconnected(remote)
            remote.reregistered = time.time()
        remote.connect(place, link, {launch.key: launch for launch in report.holders})
        self._admit(remote)
        self._take_up(remote, report)
        master.absent.forget(place.agent_id)
        link.send(Welcome(master.address.hostname))
        self._watch(remote)
        return remote

    def _admit(self, remote: Remote) -> None:
        """Make the agent's resources known to the allocator, and the agent to the next start."""
        master, agent_id = self._master, remote.place.agent_id
        known = agent_id in master.agents or agent_id in master.absent.recovered
        master.agents[agent_id] = remote
        master.allocator.add_agent(agent_id, remote.place.resources)
        for launch in remote.used.values():
            master.allocator.take(launch.framework_id, agent_id, launch.resources)
        if not known:
            self._record("agent", agent_id)
        master.offers.request_allocation()

    def _take_up(self, remote: Remote, report: Report) -> None:
        """Compare what the agent has with what the master knows."""
        master, agent_id = self._master, remote.place.agent_id
        removed = [each for each in report.frameworks if each in master.completed]
        for framework_id in removed:
            remote.remove_framework(framework_id)
        unknown = set(report.frameworks) - set(master.frameworks) - set(removed)
        master.recover({each: dict(report.frameworks[each]) for each in unknown}, ())
        for task in report.tasks:
            framework = master.frameworks.get(task.launch.framework_id)
            if framework is not None:
                self._take_up_task(remote, framework, task)
        reported = {task.launch.key for task in report.tasks}
        for framework in master.frameworks.values():
            self._ask_for_missing(remote, framework, reported)
            for task_id, lost in list(framework.unreachable_tasks.items()):
                if lost.launch.agent_id == agent_id:
                    del framework.unreachable_tasks[task_id]

    def _take_up_task(self, remote: Remote, framework: Framework, reported: TaskReport) -> None:
        key = reported.launch.key
        if key in self._master.absent.lost.get(remote.place.agent_id, ()):
            remote.discard(key)
            return
        if key[1] in framework.tasks:
            return
        back = framework.unreachable_tasks.pop(key[1], None)
        task = back or Task(reported.launch)
        task.see(reported.status)
        framework.tasks[key[1]] = task
        if back is not None:
            more = {"container_status": task.container} if task.container else {}
            self._tell(framework, task, task.state, "REASON_AGENT_REREGISTERED",
                       "Unreachable agent re-reregistered", **more)  # fmt: skip

    def _ask_for_missing(
        self, remote: Remote, framework: Framework, reported: Iterable[tuple[str, str]]
    ) -> None:
        state = "TASK_DROPPED" if framework.is_partition_aware else "TASK_LOST"
        for task in framework.tasks_on(remote.place.agent_id):
            if task.launch.key not in reported:
                remote.send(Missing(*task.launch.key, state))

    # --- signs of life -------------------------------------------------------------------------

    def _watch(self, remote: Remote) -> None:
        if remote.timer is not None:
            remote.timer.cancel()
        if remote.missed >= self._periods.max_missed_pings:
            logger.warning("agent %s does not answer", remote.place.agent_id)
            self._lose(remote)
            return
        remote.missed += 1
        remote.send(Ping())
        loop = asyncio.get_running_loop()
        remote.timer = loop.call_later(self._periods.ping_s, self._watch, remote)

    def disconnected(self, remote: Remote) -> None:
        """Note that an agent's link is gone; it has until the pings run out to come back."""
        master, agent_id = self._master, remote.place.agent_id
        remote.disconnect()
        if agent_id not in master.allocator.pools:
            return
        self._take_from_allocator(remote)
        for framework in master.frameworks.values():
            if framework.info.get("checkpoint"):
                continue
            for task in framework.tasks_on(agent_id):
                self._end(framework, task, "TASK_LOST", "REASON_AGENT_DISCONNECTED",
                          f"Agent {remote.place.hostname} disconnected")  # fmt: skip
                master.absent.lost.setdefault(agent_id, set()).add(task.launch.key)

    def _take_from_allocator(self, remote: Remote) -> None:
        master, agent_id = self._master, remote.place.agent_id
        master.offers.rescind_agent(agent_id)
        for launch in remote.used.values():
            master.allocator.give_back(launch.framework_id, agent_id, launch.resources)
        master.allocator.remove_agent(agent_id)

    # --- ways to go ----------------------------------------------------------------------------

    def _lose(self, remote: Remote) -> None:
        """Tell that an agent is unreachable; its tasks may be heard of again."""
        agent_id = remote.place.agent_id
        self.disconnected(remote)
        since = self._mark_unreachable(agent_id)
        for framework in self._master.frameworks.values():
            state = "TASK_UNREACHABLE" if framework.is_partition_aware else "TASK_LOST"
            for task in framework.tasks_on(agent_id):
                task.see({"state": state, "timestamp": since})
                framework.lose_sight_of(task.task_id)
                self._tell(framework, task, state, REMOVED, "health check timed out",
                           unreachable_time=status.unreachable_since(since))  # fmt: skip
        self._forget(remote)

    def _mark_unreachable(self, agent_id: str) -> float:
        since = time.time()
        self._master.absent.recovered.discard(agent_id)
        self._master.absent.unreachable[agent_id] = since
        self._record("unreachable", agent_id, since=since)
        return since

    def left(self, remote: Remote) -> None:
        """Take leave of an agent that ends on purpose: its tasks are lost, whoever asks."""
        agent_id = remote.place.agent_id
        message = f"Agent {remote.place.hostname} removed: the agent unregistered"
        for framework in self._master.frameworks.values():
            for task in framework.tasks_on(agent_id):
                self._end(framework, task, "TASK_LOST", REMOVED, message)
                self._master.absent.lost.setdefault(agent_id, set()).add(task.launch.key)
        self._take_from_allocator(remote)
        self._record("left", agent_id)
        remote.send(Farewell(gone=False))
        self._forget(remote)

    def mark_gone(self, agent_id: str) -> bool:
        """End an agent for good at an operator's word; False if it is not known."""
        absent, now = self._master.absent, time.time()
        remote = self._master.agents.get(agent_id)
        if remote is None and agent_id not in absent.recovered | set(absent.unreachable):
            return False
        for framework in self._master.frameworks.values():
            for task in list(framework.unreachable_tasks.values()):
                if task.launch.agent_id == agent_id:
                    framework.tasks[task.task_id] = framework.unreachable_tasks.pop(task.task_id)
            self._end_gone(framework, agent_id)
        absent.mark_gone(agent_id, now)
        self._record("gone", agent_id, since=now)
        if remote is not None:
            remote.send(Farewell(gone=True))
            if agent_id in self._master.allocator.pools:
                self._take_from_allocator(remote)
            self._forget(remote)
        return True

    def _end_gone(self, framework: Framework, agent_id: str) -> None:
        aware = framework.is_partition_aware
        state = "TASK_GONE_BY_OPERATOR" if aware else "TASK_LOST"
        reason = "REASON_AGENT_REMOVED_BY_OPERATOR" if aware else REMOVED
        for task in framework.tasks_on(agent_id):
            self._end(framework, task, state, reason, "Agent has been marked gone")

    def _forget(self, remote: Remote) -> None:
        """Remove an agent of whose tasks everything has been told."""
        agent_id = remote.place.agent_id
        if remote.timer is not None:
            remote.timer.cancel()
        remote.disconnect()
        self._master.agents.pop(agent_id, None)
        self._tell_failure(agent_id)
        self._master.offers.request_allocation()

    # --- words ---------------------------------------------------------------------------------

    def _tell_failure(self, agent_id: str) -> None:
        failure = orjson.dumps({"agent_id": {"value": agent_id}})
        for framework in self._master.frameworks.values():
            framework.send(b"FAILURE", b"failure", failure)

    def _end(self, framework: Framework, task: Task, state: str, reason: str, message: str) -> None:
        """Tell the end of a task, in the master's own words."""
        self._tell(framework, task, state, reason, message)
        task.see({"state": state, "timestamp": time.time()})
        framework.complete(task.task_id)

    def _tell(
        self,
        framework: Framework,
        task: Task,
        state: str,
        reason: str,
        message: str,
        **more: Mapping[str, Any],
    ) -> None:
        told = status.from_master(task.task_id, task.launch.agent_id, state, reason, message)
        framework.tell({**told, **more})

    def _record(self, kind: str, agent_id: str, **more: float) -> None:
        self._master.record({"k": kind, "id": agent_id, **more})


class Peer:
    """The agent at the other end of one link."""

    def __init__(self, members: Members, master: Master, link: Link) -> None:
        self._members = members
        self._master = master
        self._link = link
        self._remote: Remote | None = None

    def received(self, message: Message) -> None:
        """Take a message; the first one must say who sends it."""
        remote = self._remote
        if remote is None:
            if not isinstance(message, Register):
                raise BadFrame("an agent that has not registered")
            self._remote = self._members.register(message, self._link)
            return
        match message:
            case Told():
                self._forward(message)
            case Released():
                self._master.release(remote, (message.framework_id, message.task_id))
            case Pong():
                remote.missed = 0
            case Leave():
                self._members.left(remote)
            case _:
                raise BadFrame(f"{type(message).__name__} from an agent")

    def _forward(self, message: Told) -> None:
        try:
            update = make_update(message.framework_id, message.encoded)
        except (ValueError, LookupError, TypeError) as error:
            raise BadFrame(f"a status that cannot be read: {error!r}") from None
        self._master.forward(update)

    def lost(self) -> None:
        """Note that the link is closed, unless the agent has a newer one."""
        if self._remote is not None and self._remote.link is self._link:
            self._members.disconnected(self._remote)
