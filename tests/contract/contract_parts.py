"""The parts of a local Mesos as processes to kill, freeze and await, and tasks that run on them."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from contract_cluster import Cluster, wait_for
from contract_framework import Event, Framework

# An agent is lost after a second without an answer; it is started again 0.1 s after its end.
TIMES = (
    *("--agent-ping-s", "0.2", "--agent-max-pings", "5", "--agent-restart-s", "0.1"),
    *("--ack-retry-s", "0.3", "--allocation-interval-s", "0.2"),
)


class Parts:
    """The processes of a cluster of one's own, as it announces them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @property
    def announced(self) -> dict[str, Any]:
        assert self.cluster.work_dir is not None
        found: dict[str, Any] = json.loads((self.cluster.work_dir / "announced").read_bytes())
        return found

    def pid(self, address: str) -> int:
        """Return the process that serves an address, 0 (which is ourselves) while none does."""
        told = self.announced
        if address == told["master"]:
            return int(told["pids"]["master"])
        return int(told["pids"]["agents"][told["agents"].index(address)])

    def whole(self) -> bool:
        """Tell whether the master answers and has its agents."""
        try:
            state = self.cluster.get("/state").json
        except OSError:
            return False
        return bool(state["activated_slaves"] == len(self.announced["agents"]))

    def agent_of(self, task: dict[str, Any]) -> str:
        return self.cluster.agents()[task["agent_id"]["value"]]

    def send(self, address: str, number: int) -> None:
        wait_for(lambda: self.pid(address), "the part to run", 40)
        os.kill(self.pid(address), number)

    def end(self, address: str, number: int = signal.SIGKILL) -> None:
        """End a part and wait until it has been started again."""
        before = self.pid(address)
        self.send(address, number)
        # After several early ends in a row the keeper waits up to 30 s.
        wait_for(lambda: self.pid(address) not in (0, before), "the part to be started again", 40)


def running(framework: Framework, command: str = "exec sleep 60", **more: Any) -> dict[str, Any]:
    task = framework.launch(command, **more)
    framework.run_until(task, "TASK_RUNNING")
    return task


def again(framework: Framework) -> Framework:
    """Subscribe anew, with the same id, when the master answers."""
    framework.disconnect()

    def answers() -> bool:
        try:
            return framework.cluster.get("/health").status == 200
        except OSError:
            return False

    wait_for(answers, "the master")
    return framework.subscribe()


def sleeper(framework: Framework, task: dict[str, Any]) -> int:
    """Return the process id that a task wrote to its output."""
    wait_for(lambda: framework.output(task).strip(), "the task's process id")
    return int(framework.output(task))


def is_alive(pid: int) -> bool:
    """Tell whether a process is there, and not only to be waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X")


def is_failure(event: Event) -> bool:
    return bool(event["type"] == "FAILURE")


def ask(framework: Framework, task: dict[str, Any], *, with_agent: bool = True) -> None:
    asked = {"task_id": task["task_id"]}
    if with_agent:
        asked["agent_id"] = task["agent_id"]
    assert framework.call("RECONCILE", reconcile={"tasks": [asked]}).status == 202


def answer(
    framework: Framework, task: dict[str, Any], *, with_agent: bool = True
) -> dict[str, Any]:
    """Ask for a task and return what the master says; updates may be repeated meanwhile."""
    ask(framework, task, with_agent=with_agent)
    while (told := framework.status(task)).get("reason") != "REASON_RECONCILIATION":
        framework.acknowledge(told)
    return told


def end_by_agent(framework: Framework, task: dict[str, Any]) -> dict[str, Any]:
    """Return a task's end in the words of its agent; the master may have told it before."""
    while "uuid" not in (status := framework.run_until(task)):
        assert status["reason"] == "REASON_AGENT_REREGISTERED"
    return status


def brief(status: dict[str, Any]) -> tuple[str, str, str]:
    return status["state"], status["source"], status["reason"]
