"""The figures of docs/benchmarks.md, measured on a stack that this starts: `make bench`.

Everything goes through HTTP, as users do it. Figures are printed with the load of the machine, and
none of them is a test.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keep_alive import Line

READY_LINE = "| ready: "
START_LIMIT_S = 120
CLIENTS = 4
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stack:
    """A running `scale up`."""

    url: str
    token: str
    pid: int

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    def count(self, query: str) -> int:
        return int(self.call("GET", f"/job-executions/?page_size=1&{query}")["count"])


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """Start `scale up` on a folder of its own; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="scale-bench-") as home:
        process = subprocess.Popen(
            [sys.executable, "-m", "scale.cli.main", "up", "--port", "0"],
            env={**os.environ, "SCALE_HOME": home, "SCALE_LOG_LEVEL": "WARNING"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if READY_LINE in line:
                    url = line.partition(READY_LINE)[2].split()[0]
                    break
            else:
                sys.exit("scale up did not start:\n" + "".join(lines))
            # Its log must be read, or it would wait for us.
            drain = ThreadPoolExecutor(1)
            drain.submit(process.stdout.read)
            yield Stack(url, (Path(home) / "token").read_text().strip(), process.pid)
        finally:
            process.terminate()
            process.wait(30)


def report(what: str, figure: str, more: str = "") -> None:
    print(f"{what:<26} {figure:>22}  {more}", flush=True)


def until(true: Callable[[], bool], limit_s: float = 300, pause_s: float = 0.2) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            sys.exit("the benchmark waited too long")
        time.sleep(pause_s)


def make_type(scale: Stack, name: str, command: str, arguments: str = "") -> int:
    made = scale.call(
        "POST",
        "/job-types/",
        {
            "name": name,
            "version": "1",
            "cpus_required": 0.02,
            "mem_required": 16,
            "disk_out_const_required": 0,
            "interface": {"command": command, "command_arguments": arguments},
        },
    )
    return int(made["id"])


def throughput(scale: Stack, count: int) -> None:
    """Time `count` executions of /bin/true from the queue to their ends."""
    job_type = make_type(scale, "true", "/bin/true")
    scale.call("PATCH", "/scheduler/", {"is_paused": True})
    started = time.monotonic()
    body = json.dumps({"job_type_id": job_type}).encode()

    def submit(jobs: int) -> None:
        line = Line(scale.port, scale.token)
        for _ in range(jobs):
            status, answer = line.post("/jobs/", body)
            assert status == 201, answer
        line.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(submit, [count // CLIENTS + (n < count % CLIENTS) for n in range(CLIENTS)]))
    submitted_s = time.monotonic() - started
    started = time.monotonic()
    scale.call("PATCH", "/scheduler/", {"is_paused": False})
    ended = f"job_type_id={job_type}&status=COMPLETED"
    until(lambda: scale.count(ended) == count)
    took_s = time.monotonic() - started
    report("submit, 4 clients", f"{count / submitted_s:.0f} jobs/s", f"{submitted_s:.1f} s")
    report("queue to end, one phase", f"{count / took_s:.0f} executions/s", f"{took_s:.1f} s")


def latency(scale: Stack, count: int) -> None:
    """Time from POST /jobs/ to the process's own first act, on a cluster that does nothing else."""
    job_type = make_type(scale, "clock", "date", "+%s%N")
    delays_ms = []
    for _ in range(count):
        posted_ns = time.time_ns()
        job = scale.call("POST", "/jobs/", {"job_type_id": job_type})["id"]
        until(
            lambda job=job: scale.call("GET", f"/jobs/{job}/")["status"] == "COMPLETED", pause_s=0.1
        )
        execution = scale.call("GET", f"/jobs/{job}/")["job_exes"][0]["id"]
        ran_ns = int(scale.call("GET", f"/job-executions/{execution}/logs/")["stdout"])
        delays_ms.append((ran_ns - posted_ns) / 1e6)
    delays_ms.sort()
    p99 = delays_ms[max(0, round(0.99 * count) - 1)]
    report("POST to first act", f"{statistics.median(delays_ms):.1f} ms p50", f"{p99:.1f} ms p99")


def idle(scale: Stack, seconds: float) -> None:
    """Print the share of one core that each part uses when there is nothing to do."""
    time.sleep(10)  # what the start has set off has ended
    before = cpu_ticks(scale.pid)
    time.sleep(seconds)
    after = cpu_ticks(scale.pid)
    shares = {
        name: 100 * (after[name] - before.get(name, 0)) / TICKS_PER_S / seconds for name in after
    }
    for name, share in sorted(shares.items()):
        report(f"idle: {name}", f"{share:.2f} % of one core")
    three = sum(shares.get(name, 0) for name in ("scheduler", "localmesos", "web"))
    report("idle: three together", f"{three:.2f} %", "scheduler, localmesos, web")


def cpu_ticks(supervisor: int) -> dict[str, int]:
    """Return user and system time by part, in clock ticks, of the supervisor's descendants."""
    ticks: dict[str, int] = {}
    for pid in descendants(supervisor):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        known = ("scheduler", "localmesos", "worker", "web", "postgres", "valkey-server")
        name = next((part for part in known if any(part in word for word in words)), "other")
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks[name] = ticks.get(name, 0) + int(fields[11]) + int(fields[12])
    return ticks


def descendants(pid: int) -> list[int]:
    """Return the processes below one, whatever started them there."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [each for child in children for each in (child, *descendants(child))]


def spawning(count: int) -> None:
    """Time bare process starts, to compare the machine with others."""
    started = time.monotonic()
    for _ in range(count):
        subprocess.Popen(["/bin/true"]).wait()
    report("bare spawn and wait", f"{count / (time.monotonic() - started):.0f} processes/s")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--executions", type=int, default=2000)
    parser.add_argument("--submissions", type=int, default=100)
    parser.add_argument("--idle-seconds", type=float, default=30)
    wanted = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load before: {os.getloadavg()[0]:.2f}")
    spawning(500)
    with stack() as scale:
        idle(scale, wanted.idle_seconds)
        latency(scale, wanted.submissions)
        throughput(scale, wanted.executions)
    print(f"load after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
