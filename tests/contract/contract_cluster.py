"""A Mesos cluster to test: `scale localmesos` as a process, or one that the environment names."""

import base64
import http.client
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")

# What local Mesos does differently on purpose, and why. Tests that rely on one of these run
# against local Mesos only; there is no other list.
DIFFERENCES: Mapping[str, str] = {
    "periods": "time-outs are options of local Mesos, so that the suite does not wait minutes",
    "freed-at-once": "what a task frees is offered at once, Mesos waits for its next batch (1 s)",
    "resend-at-once": "a framework that subscribes anew gets unacknowledged updates at once",
    "limits": "memory and disk are limited without a flag; messages name the task's own request",
    "cleared": "TASK_FINISHED comes when the processes that a task left behind are gone",
    "lost": "tasks that died with the agent are TASK_GONE, reason AGENT_RESTARTED, with a uuid",
    "unsupported": "task groups, executors, health checks, reservations and many paths and calls of"
    " operators are refused in words",
    "closed": "everything but /version and /health asks for credentials",
    "guarded": "what would write outside of the sandbox, or wait for a reader, is refused",
    "docker": "an engine that only notes how it is called is put in the agent's PATH",
    "parts": "parts of another cluster are not ours to kill; here an agent keeps its id though it"
    " left, and notices a new master at once",
}

# Short periods: resends after 0.3, 0.6, ... s stand for 10, 20, ... s.
SHORT = (
    *("--ack-retry-s", "0.3", "--heartbeat-s", "0.5", "--allocation-interval-s", "0.2"),
    *("--cpus", "4", "--mem", "4096", "--disk", "10000", "--shutdown-grace-s", "0.5"),
)

ONLY_GIVEN = os.environ.get("SCALE_TEST_MESOS_MASTER", "")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Cluster:
    """An address with credentials, and the periods by which it keeps time."""

    master: str
    principal: str = ""
    secret: str = ""
    user: str = field(default_factory=lambda: pwd.getpwuid(os.geteuid()).pw_name)
    ack_retry_s: float = 10.0
    heartbeat_s: float = 15.0
    allocation_s: float = 1.0
    process: subprocess.Popen[bytes] | None = None
    work_dir: Path | None = None
    options: tuple[str, ...] = field(default=())
    used_before: float = 0.0

    @property
    def authorization(self) -> dict[str, str]:
        if not self.secret:
            return {}
        token = base64.b64encode(f"{self.principal}:{self.secret}".encode()).decode()
        return {"Authorization": f"Basic {token}"}

    def send(
        self,
        method: str,
        path: str,
        *,
        to: str | None = None,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        known: bool = True,
    ) -> Answer:
        """Send one request on a connection of its own; `headers` without a value are left out."""
        connection = http.client.HTTPConnection(to or self.master, timeout=20)
        try:
            merged = {**(self.authorization if known else {}), **(headers or {})}
            connection.request(method, path, body, merged)
            got = connection.getresponse()
            return Answer(got.status, got.headers, got.read())
        finally:
            connection.close()

    def get(self, path: str, *, to: str | None = None) -> Answer:
        return self.send("GET", path, to=to)

    def post(self, path: str, call: Any, *, to: str | None = None) -> Answer:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return self.send("POST", path, to=to, body=json.dumps(call), headers=headers)

    def agents(self) -> dict[str, str]:
        """Return agent id -> ip:port, from the master."""
        listed = self.get("/slaves").json["slaves"]
        return {each["id"]: each["pid"].partition("@")[2] for each in listed}

    def used(self) -> float:
        """Return the cores that tasks use on all agents."""
        slaves = self.get("/slaves").json["slaves"]
        return float(sum(each["used_resources"]["cpus"] for each in slaves))

    def is_idle(self) -> bool:
        return self.used() <= self.used_before

    def own_address(self) -> str:
        """Return our address as the cluster sees it."""
        host, _, port = self.master.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            return str(probe.getsockname()[0])

    def is_at(self, address: str) -> bool:
        """Tell whether host:port is the master's, by whatever name."""
        host, _, port = address.rpartition(":")
        own_host, _, own_port = self.master.rpartition(":")
        return (socket.gethostbyname(host), port) == (socket.gethostbyname(own_host), own_port)

    def switches_users(self, agent_id: str) -> bool:
        """Tell whether an agent runs tasks as the users that they name."""
        flags = self.get("/state", to=self.agents()[agent_id]).json["flags"]
        return bool(flags.get("switch_user") == "true")

    def read(self, agent_id: str, path: str) -> str:
        """Return a file of a sandbox."""
        answer = self.get(f"/files/download?path={quote(path)}", to=self.agents()[agent_id])
        assert answer.status == 200, (path, answer)
        return answer.text

    def kill(self) -> None:
        """End local Mesos without warning."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0


def start(work_dir: Path, *options: str, **env: str) -> Cluster:
    """Start local Mesos on `work_dir`, with `env` beside ours; return when it is ready."""
    announced, known = work_dir / "announced", work_dir / "credentials"
    announced.unlink(missing_ok=True)
    command = [sys.executable, "-m", "scale.localmesos", "--work-dir", str(work_dir)]
    command += ["--announce-file", str(announced), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **env})
    try:
        wait_for(lambda: announced.exists() or process.poll() is not None, "local Mesos", 40)
    except AssertionError:
        process.kill()
        process.wait()
        raise
    assert process.poll() is None, "local Mesos ended at once"
    principal, secret = known.read_text().split()
    ready = json.loads(announced.read_text())
    chosen = dict(zip(options[::2], options[1::2], strict=True))
    return Cluster(
        ready["master"],
        principal,
        secret,
        ack_retry_s=float(chosen.get("--ack-retry-s", 10)),
        heartbeat_s=float(chosen.get("--heartbeat-s", 15)),
        allocation_s=float(chosen.get("--allocation-interval-s", 1)),
        process=process,
        work_dir=work_dir,
        options=options,
    )


def given() -> Cluster:
    """Return the cluster that the environment names."""
    named = Cluster(
        ONLY_GIVEN,
        os.environ.get("SCALE_TEST_MESOS_PRINCIPAL", ""),
        os.environ.get("SCALE_TEST_MESOS_SECRET", ""),
    )
    named.user = os.environ.get("SCALE_TEST_MESOS_USER", named.user)
    named.used_before = named.used()
    return named


def wait_for(holds: Any, what: str, seconds: float = 20.0) -> None:
    """Return when `holds()` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def measured(measure: Callable[[], T], fits: Callable[[T], bool], tries: int = 4) -> T:
    """Return a measurement that fits, of a few: a busy machine spoils one, a fault spoils all."""
    for _ in range(tries - 1):
        if fits(found := measure()):
            return found
    return measure()
