"""The faults of the cluster: its master, its agents, and the way to them."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from fault_injector import Injector
from fault_mesos import Agent, Loss
from fault_world import UNREACHABLE_GRACE_S

#: What `bad_wire.py` can do.
MOODS: Final = {
    "refuse": "refuses connections",
    "503": "answers 503",
    "hang": "hangs",
    "half": "sends half an answer",
    "deaf": "hears and is not heard",
}


class MesosFaults(Injector):
    """Injects; whatever may lose attempts notes where and when."""

    # All of it.

    def mesos_killed(self) -> None:
        self.world.mesos.kill()
        self.pause(0, 1)
        self.world.mesos.start()

    def mesos_killed_while_it_recovers(self) -> None:
        mesos = self.world.mesos
        mesos.kill()
        for _ in range(self.dice.randint(1, 3)):
            mesos.keeper.start()
            # Before that it is Python which starts, and nothing of ours.
            self.pause(0.5 * mesos.start_s, 1.2 * mesos.start_s)
            mesos.kill()
        self.world.mesos.start()

    def mesos_frozen(self) -> None:
        mesos = self.world.mesos
        with mesos.stopped(mesos.master_pid(), *mesos.agent_pids()):
            self.pause(1, 3)

    # The master.

    def master_killed(self) -> None:
        """End the master alone: no task may be lost by it, or run twice."""
        pid = self.world.mesos.master_pid()
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: self.world.mesos.master_pid() != pid, "another master")
        self.until(self._all_agents_are_back, "all agents")

    def framework_removed(self) -> None:
        """Have the master kill every task and forget them all, while the scheduler does not look.

        What ended meanwhile can be told to nobody, so its attempt is lost however it ended.
        """
        leader, old, began = self.leader(), self._framework(), time.time()
        leader.send(signal.SIGSTOP)
        try:
            self.pause(0, 1.5)
            self.world.mesos.tear_down(old)
        finally:
            leader.send(signal.SIGCONT)
        self.until(lambda: self._framework() not in ("", old), "another framework")
        self.world.mesos.losses.append(Loss(began, time.time()))

    def bad_wire(self, mood: str) -> None:
        """Have the master, or the way to it, behave badly until somebody has met with it."""
        met = self.world.said("wire", mood)
        self.world.mood.write_text(mood)
        try:
            self.pause(0.5, 3)
            self.until(lambda: self.world.said("wire", mood) > met, f"a call that meets {mood}")
        finally:
            self.world.mood.write_text("pass")

    # One agent.

    def agent_killed(self) -> None:
        """End an agent, and its tasks with it; it is started again at once."""
        agent, began = self._busy_agent(), time.time()
        os.kill(agent.pid, signal.SIGKILL)
        self.until(lambda: self._is_back(agent, restarted=True), "the agent's return")
        self._may_lose(agent, began)

    def agent_away_for_long(self) -> None:
        """End an agent that is started again only when nobody waits for its tasks any more."""
        agent, began = self._busy_agent(), time.time()
        with self.world.mesos.stopped(self.world.mesos.keeper.pid):
            os.kill(agent.pid, signal.SIGKILL)
            # What it reports later would be no loss of the time in between.
            self.until(lambda: not self._live_on(agent), "the end of patience with an agent")
        self.until(lambda: self._is_back(agent, restarted=True), "the agent's return")
        self._may_lose(agent, began)

    def agent_unreachable_for_a_while(self) -> None:
        """Stop an agent until its tasks are out of reach; then all of them go on."""
        began = time.time()
        with self._out_of_touch() as agent:
            left_s = UNREACHABLE_GRACE_S - self._out_of_reach_s(agent)
        if left_s < 1:
            self._may_lose(agent, began)  # we were late: on a busy machine a look takes seconds
        self.until(lambda: not self._out_of_reach(agent), "the return of the tasks")
        self.until(lambda: self._is_back(agent), "the agent's return")

    def agent_unreachable_for_long(self) -> None:
        """Stop an agent until its attempts have failed; its tasks run on and are then killed."""
        began, cut_off = time.time(), self.world.mesos.cut_off
        try:
            with self._out_of_touch() as agent:
                cut_off.add(agent.agent_id)
                self.until(lambda: not self._live_on(agent), "the end of patience with an agent")
            self._may_lose(agent, began)
            self.until(lambda: self._is_back(agent), "the agent's return")
            self.until(lambda: not self._strays_on(agent), "the end of tasks that nobody wants")
        finally:
            cut_off.clear()

    @contextmanager
    def _out_of_touch(self) -> Iterator[Agent]:
        """Stop an agent until tasks on it are out of reach; it goes on after the block."""
        while True:
            agent = self._busy_agent()
            with self.world.mesos.stopped(agent.pid):
                self.until(partial(self._is_settled, agent), "tasks out of reach")
                if self._out_of_reach(agent):
                    yield agent
                    return
            self.until(partial(self._is_back, agent), "the agent's return")

    # Looking.

    def _busy_agent(self) -> Agent:
        """Return an agent on which something runs."""
        found: list[Agent] = []

        def is_there() -> bool:
            with suppress(OSError):
                found[:] = [one for one in self.world.mesos.agents() if self._running_on(one)]
            return bool(found)

        self.until(is_there, "an agent on which something runs")
        return self.dice.choice(sorted(found, key=lambda one: one.number))

    def _is_back(self, agent: Agent, *, restarted: bool = False) -> bool:
        """Return whether the master has the agent, and the scheduler its node."""
        with suppress(OSError):
            for one in self.world.mesos.agents():
                if one.agent_id == agent.agent_id and (one.pid != agent.pid or not restarted):
                    return bool(self._count("node", "slave_id = %s AND is_online", agent.agent_id))
        return False

    def _all_agents_are_back(self) -> bool:
        with suppress(OSError):
            return len(self.world.mesos.agents()) == len(self.world.mesos.agent_pids())
        return False

    def _running_on(self, agent: Agent) -> int:
        return self._count("job_execution", "agent_id = %s AND state = 'running'", agent.agent_id)

    def _live_on(self, agent: Agent) -> int:
        where = "agent_id = %s AND state IN ('starting', 'running')"
        return self._count("job_execution", where, agent.agent_id)

    def _is_settled(self, agent: Agent) -> bool:
        """Return whether tasks are out of reach, or none is there: they ended just before."""
        return bool(self._out_of_reach(agent)) or not self._live_on(agent)

    def _out_of_reach(self, agent: Agent) -> int:
        where = "agent_id = %s AND ended IS NULL AND unreachable_since IS NOT NULL"
        return self._count("job_execution", where, agent.agent_id)

    def _out_of_reach_s(self, agent: Agent) -> float:
        """Return for how long the first of them has been out of reach; inf if all were given up."""
        query = (
            "SELECT coalesce(extract(epoch FROM now() - min(unreachable_since)), 'Infinity')"
            " FROM job_execution WHERE agent_id = %s AND ended IS NULL"
        )
        return float(self.world.database.one(query, agent.agent_id))

    def _strays_on(self, agent: Agent) -> set[str]:
        mark = f"/slaves/{agent.agent_id}/"
        there = {
            task["MESOS_EXECUTOR_ID"]
            for task in self.world.tasks()
            if mark in task["MESOS_SANDBOX"]
        }
        return there - self.world.wanted_tasks()

    def _count(self, table: str, where: str, *values: Any) -> int:
        return int(self.world.database.one(f"SELECT count(*) FROM {table} WHERE {where}", *values))

    def _framework(self) -> str:
        return str(self.world.database.one("SELECT framework_id FROM scheduler_state"))

    def _may_lose(self, agent: Agent, began: float) -> None:
        self.world.mesos.losses.append(Loss(began, time.time(), agent.agent_id))


def mesos_faults() -> dict[str, Callable[[MesosFaults], None]]:
    """Return the faults of the cluster by name."""
    plain = (
        MesosFaults.mesos_killed,
        MesosFaults.mesos_killed_while_it_recovers,
        MesosFaults.mesos_frozen,
        MesosFaults.master_killed,
        MesosFaults.framework_removed,
        MesosFaults.agent_killed,
        MesosFaults.agent_away_for_long,
        MesosFaults.agent_unreachable_for_a_while,
        MesosFaults.agent_unreachable_for_long,
    )
    found: dict[str, Callable[[MesosFaults], None]] = {
        each.__name__.replace("_", " "): each for each in plain
    }
    for mood, means in MOODS.items():
        found[f"master {means}"] = partial(MesosFaults.bad_wire, mood=mood)
    return found
