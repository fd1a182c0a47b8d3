"""Local Mesos: a keeper, the master and the agents that it starts again, and what they tell."""

import json
import os
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fault_program import AGENTS, PYTHON, Program, wait_for

OPTIONS: Final = (
    *("--agents", str(AGENTS), "--cpus", "4", "--mem", "4096", "--disk", "10000"),
    *("--ack-retry-s", "0.5", "--heartbeat-s", "2", "--allocation-interval-s", "0.2"),
    *("--shutdown-grace-s", "0.5"),
    *("--agent-ping-s", "0.5", "--agent-max-pings", "3", "--agent-restart-s", "0.2"),
)


@dataclass(frozen=True)
class Agent:
    """One agent as the master tells of it, and its process."""

    agent_id: str
    number: int
    pid: int


@dataclass(frozen=True)
class Loss:
    """Attempts that ran between these wall times may be lost, on one agent or on all (None)."""

    since: float
    until: float
    agent_id: str | None = None

    def explains(self, started: float, ended: float, agent_id: str) -> bool:
        return started <= self.until and ended >= self.since and self.agent_id in (None, agent_id)


class LocalMesos:
    """Killed and frozen as a whole or in parts; keeps its ports and its folder."""

    def __init__(
        self, home: Path, environment: Mapping[str, str], master_port: int, agent_port: int
    ) -> None:
        self._folder = home / "mesos"
        self._announced = self._folder / "announced"
        self._credentials = self._folder / "credentials"
        command = (
            *(*PYTHON, "scale.localmesos", "--work-dir", str(self._folder), *OPTIONS),
            *("--credentials-file", str(self._credentials)),
            *("--announce-file", str(self._announced)),
            *("--port", str(master_port), "--agent-port", str(agent_port)),
        )
        self.keeper = Program(home / "log/mesos", command, environment)
        #: How long the last start took.
        self.start_s = 0.0
        #: When attempts could be lost, and where.
        self.losses: list[Loss] = []
        #: Agents that do not hear what is decided of their tasks, which run on.
        self.cut_off: set[str] = set()

    # Starting and stopping.

    def start(self) -> None:
        """Start it on the ports and the folder of the last time; wait until it serves."""
        began = time.monotonic()
        self._announced.unlink(missing_ok=True)
        self.keeper.start()
        wait_for(lambda: self._announced.exists() or self.keeper.ended, "local Mesos", 30)
        assert not self.keeper.ended, self.keeper.log.read_text()[-2000:]
        self.start_s = time.monotonic() - began

    def kill(self) -> None:
        """End all of it, and with it every task."""
        began = time.time()
        self.keeper.end()
        self.losses.append(Loss(began, time.time()))

    def stop(self) -> None:
        self.keeper.send(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self.keeper.end(signal.SIGTERM)
        self.keeper.end()

    def master_pid(self) -> int:
        return int(self._told()["pids"]["master"])

    def agent_pids(self) -> list[int]:
        return [int(pid) for pid in self._told()["pids"]["agents"]]

    @contextmanager
    def stopped(self, *pids: int) -> Iterator[None]:
        """Stop processes while the block runs."""
        assert min(pids) > 1, pids  # 0 would be ourselves
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # Asking.

    def credentials(self) -> tuple[str, str]:
        principal, secret = self._credentials.read_text().split()
        return principal, secret

    def agents(self) -> list[Agent]:
        """Return the agents that the master has now and that live."""
        by_address = {
            address: (number, pid)
            for number, (address, pid) in enumerate(
                zip(self._told()["agents"], self.agent_pids(), strict=True)
            )
        }
        found = []
        for told in self.slaves():
            number, pid = by_address[told["pid"].partition("@")[2]]
            if told["active"] and pid and Path(f"/proc/{pid}").exists():
                found.append(Agent(told["id"], number, pid))
        return found

    def slaves(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._get(self._told()["master"], "/slaves")["slaves"]
        return answer

    def live_tasks(self) -> dict[str, list[str]]:
        """Return the tasks that master and agents believe to live, by who says so."""
        told = self._told()
        state = self._get(told["master"], "/state")
        found = {"the master": [t["id"] for f in state["frameworks"] for t in _living(f["tasks"])]}
        for address in told["agents"]:
            state = self._get(address, "/state")
            found[f"the agent {address}"] = [
                executor["id"] for f in state["frameworks"] for executor in f["executors"]
            ]
        return found

    def sandboxes(self) -> dict[str, Path]:
        """Return where each task that ever ran has its sandbox, by its id."""
        executors = self._folder.glob("slaves/*/frameworks/*/executors/*")
        return {folder.name: folder / "runs/latest" for folder in executors}

    def tear_down(self, framework_id: str) -> None:
        """Have the master remove a framework, as an operator would; it kills every task."""
        body = urllib.parse.urlencode({"frameworkId": framework_id}).encode()
        self._call(self._told()["master"], "/teardown", body).close()

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._announced.read_text())
        return told

    def _get(self, address: str, path: str) -> dict[str, Any]:
        with self._call(address, path) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def _call(self, address: str, path: str, body: bytes | None = None) -> Any:
        known = b64encode(":".join(self.credentials()).encode()).decode()
        request = urllib.request.Request(
            f"http://{address}{path}", body, {"Authorization": f"Basic {known}"}
        )
        return urllib.request.urlopen(request, timeout=10)


def _living(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    ended = ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_GONE")
    return (task for task in tasks if task["state"] not in ended)
