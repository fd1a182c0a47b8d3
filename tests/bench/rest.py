"""The REST interface over large tables: `make bench-rest`, or with ROWS="10000 1000000 10000000".

For each size this starts a PostgreSQL of its own, builds the data set (`dataset`), starts one web
process and asks it over HTTP. One table is printed; no time is a test. Read it with the load.
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from log_world import Life

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "bench"), str(TESTS / "integration")]

from keep_alive import Line  # noqa: E402 - a neighbour, which is on the path only now
from serving import Served, running  # noqa: E402 - the same

FIRST_PAGE: Final = (8.0, 30.0)
_ASKED: Final = 200
_CLIENTS: Final = 4
_STREAMS: Final = 500
_LINES: Final = 20
_LINE_EVERY_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: times in ms, or a rate per second.

    `cpu` is what one request costs the web process and PostgreSQL, in ms: it hardly depends on
    what else the machine does.
    """

    what: str
    size: int
    p50: str
    p99: str
    target: str
    is_met: bool | None
    cpu: str = ""

    def short(self) -> str:
        figure = f"{self.p50}, {self.p99}" if self.p99 else self.p50
        return f"**{figure}**" if self.is_met is False else figure

    def __str__(self) -> str:
        met = {True: "yes", False: "NO", None: ""}[self.is_met]
        return (
            f"| {self.what:<58} | {self.size:>10,} | {self.p50:>9} | {self.p99:>9} |"
            f" {self.cpu:>11} | {self.target:>8} | {met:<3} |"
        )


HEAD: Final = (
    f"| {'milliseconds, or a rate':<58} | {'executions':>10} | {'p50':>9} | {'p99':>9} |"
    f" {'CPU web, pg':>11} | {'wanted':>8} | met |\n|---|---|---|---|---|---|---|"
)


@dataclass(slots=True)
class Bench:
    """A web process over a database of so many executions, and what was measured of it."""

    size: int
    served: Served
    rows: list[Row] = field(default_factory=list)

    def line(self) -> Line:
        return Line(self.served.port, self.served.token)

    def keep(self, row: Row) -> None:
        self.rows.append(row)
        print(row, flush=True)

    def times(
        self,
        what: str,
        paths: Sequence[str],
        target: tuple[float, float | None],
        *,
        count: int = _ASKED,
        within_s: float = 15.0,
    ) -> None:
        """Ask for these in turn, one at a time, and keep how long they take."""
        line, taken = self.line(), []
        line.get(paths[0])
        before, ends = self._cpu_s(), time.monotonic() + within_s
        for path in islice(cycle(paths), count):
            began = time.perf_counter()
            status, body = line.get(path)
            taken.append((time.perf_counter() - began) * 1000)
            if status != 200:
                what = f"{what}: {status} {body[:60]!r}"
                break
            if time.monotonic() > ends:
                break
        cost = self._cost(before, len(taken))
        line.close()
        self.keep(self.row(what, taken, target, cost))

    def _cpu_s(self) -> tuple[float, float]:
        """Return the seconds of CPU that the web process and PostgreSQL's sessions have used."""
        master = self.served.postmaster
        children = Path(f"/proc/{master}/task/{master}/children").read_text()
        return cpu_of(self.served.web), sum(cpu_of(int(pid)) for pid in children.split())

    def _cost(self, before: tuple[float, float], count: int) -> str:
        after = self._cpu_s()
        return ", ".join(
            f"{(b - a) * 1000 / count:.2f}" for a, b in zip(before, after, strict=True)
        )

    def row(
        self, what: str, taken: list[float], target: tuple[float, float | None], cost: str = ""
    ) -> Row:
        taken.sort()
        p50, p99 = statistics.median(taken), taken[max(0, round(0.99 * len(taken)) - 1)]
        first, second = target
        is_met = p50 <= first and (second is None or p99 <= second)
        wanted = f"{first:g}" + (f", {second:g}" if second else "")
        return Row(what, self.size, f"{p50:.1f}", f"{p99:.1f}", wanted, is_met, cost)

    def rate(
        self,
        what: str,
        ask: Callable[[Line], int],
        wanted: float | None,
        *,
        clients: int = _CLIENTS,
        seconds: float = 5.0,
    ) -> None:
        """Let clients ask for some seconds; `ask` returns how many things one request did."""
        done, ends = [0] * clients, time.monotonic() + seconds
        lines = [self.line() for _ in range(clients)]

        def work(number: int) -> None:
            while time.monotonic() < ends:
                done[number] += ask(lines[number])

        before, began = self._cpu_s(), time.monotonic()
        together([partial(work, number) for number in range(clients)])
        took_s = time.monotonic() - began
        cost = self._cost(before, sum(done))
        for line in lines:
            line.close()
        rate = sum(done) / took_s
        target = "" if wanted is None else f"{wanted:,.0f} /s"
        is_met = None if wanted is None else rate >= wanted
        what = f"{what}, {clients} client{'s' if clients > 1 else ''}"
        self.keep(Row(what, self.size, f"{rate:,.0f} /s", "", target, is_met, cost))


def together(works: Sequence[Callable[[], None]]) -> None:
    """Run these at the same time; fails if one does."""
    with ThreadPoolExecutor(len(works)) as pool:
        for each in [pool.submit(work) for work in works]:
            each.result()


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has used; 0 if it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lists(bench: Bench) -> None:
    """First pages without and with each filter, deep pages, walks."""
    line = bench.line()
    types = line.json("/job-types/?page_size=1000")["results"]
    nodes = line.json("/nodes/?page_size=1000")["results"]
    errors = line.json("/errors/?page_size=1000")["results"]
    last = line.json("/job-executions/?page_size=1&order=-id")["results"][0]["id"]
    line.close()
    names = sorted({each["name"] for each in types})[::5]
    common = {
        "job_type_id": [each["id"] for each in types[::5]],
        "job_type_name": names,
        "job_type_category": sorted({each["category"] for each in types}),
        "started": ["P1D", "P7D", "P30D", "P80D"],
        "ended": ["P1D", "P7D", "P30D", "P80D"],
    }
    executions = {
        "status": ["QUEUED", "RUNNING", "FAILED", "COMPLETED", "CANCELED"],
        "node_id": [each["id"] for each in nodes[::20]],
        "waiting_reason": ["INSUFFICIENT_CPUS", "INSUFFICIENT_MEM", "NO_NODES"],
        **common,
    }
    jobs = {
        "status": ["QUEUED", "RUNNING", "FAILED", "COMPLETED", "CANCELED"],
        "job_id": [number * last // 100 + 1 for number in range(50)],
        "error_category": ["SYSTEM", "ALGORITHM", "DATA"],
        "error_id": [each["id"] for each in errors],
        **common,
    }
    for path, filters in (("/job-executions/", executions), ("/jobs/", jobs)):
        bench.times(f"GET {path}", [path], FIRST_PAGE)
        for name, values in filters.items():
            paths = [f"{path}?{name}={quote(str(value))}" for value in values]
            bench.times(f"GET {path}?{name}=", paths, FIRST_PAGE)
        both = [f"{path}?started=P{days + 1}D&ended=P{days}D" for days in (1, 5, 20, 60)]
        bench.times(f"GET {path}?started=&ended=, a day", both, FIRST_PAGE)
        deep = min(50_000, bench.size // 200)
        what = f"GET {path}?page=50000, or the middle"
        bench.times(what, [f"{path}?page={deep}"], (600.0, None), count=30)
        walk(bench, path)


def walk(bench: Bench, path: str) -> None:
    """Follow the cursors of a list from its beginning, and from its end backwards."""
    for start in (f"{path}?cursor=", f"{path}?cursor=&order=-last_modified"):
        line = bench.line()
        taken: list[float] = []
        following: str | None = start
        while following and len(taken) < _ASKED:
            began = time.perf_counter()
            status, body = line.get(following)
            taken.append((time.perf_counter() - began) * 1000)
            if status != 200:
                bench.keep(Row(f"GET {start}: {status}", bench.size, "", "", "", False))
                break
            found = json.loads(body)["next"]
            following = found and found.partition(f":{bench.served.port}")[2]
        line.close()
        bench.keep(bench.row(f"GET {start}", taken, FIRST_PAGE))


def things(bench: Bench) -> None:
    """One job, one execution, and the whole at a glance."""
    line = bench.line()
    last = line.json("/job-executions/?page_size=1&order=-id")["results"][0]["id"]
    queue = line.json("/queue/status/")["queue_status"]
    line.close()
    chance = random.Random(1)
    keys = [chance.randint(1, last * 9 // 10) for _ in range(_ASKED)]
    bench.times("GET /jobs/{id}/", [f"/jobs/{key}/" for key in keys], (10.0, None))
    executions = [f"/job-executions/{key}/" for key in keys]
    bench.times("GET /job-executions/{id}/", executions, (10.0, None))
    print(f"{sum(each['count'] for each in queue):,} wait", flush=True)
    glance = ("/queue/status/", "/status/", "/nodes/status/", "/job-types/status/")
    for path in (*glance, "/scheduler/queued-resources/", "/load/"):
        target = (20.0, None) if path in glance[:2] else (30.0, None)
        bench.times(f"GET {path}", [path], target)


def submissions(bench: Bench) -> None:
    """Single and many jobs."""
    line = bench.line()
    job_type = line.json("/job-types/?page_size=1")["results"][0]["id"]
    line.close()
    one = json.dumps({"job_type_id": job_type, "inputs": {"x": 5}, "name": "one"}).encode()
    jobs = [{"job_type_id": job_type, "inputs": {"x": n}, "name": f"n{n}"} for n in range(1000)]
    many = json.dumps({"jobs": jobs}).encode()

    def submit(line: Line, path: str, body: bytes, count: int) -> int:
        status, answer = line.post(path, body)
        assert status == 201, (status, answer[:300])
        return count

    bench.rate("POST /jobs/", lambda line: submit(line, "/jobs/", one, 1), 400)
    bench.rate("POST /jobs/", lambda line: submit(line, "/jobs/", one, 1), None, clients=1)
    for clients in (1, _CLIENTS):
        bench.rate(
            "POST /jobs/bulk/ of 1,000, jobs",
            lambda line: submit(line, "/jobs/bulk/", many, 1000),
            10_000,
            clients=clients,
        )


def logs(bench: Bench) -> None:
    """Polls of a log that does not change, and many streams of one that grows."""
    from log_world import Life, make_node, running_agent

    with tempfile.TemporaryDirectory() as folder, running_agent(Path(folder)) as agent:
        life = Life(make_node(agent), agent).start(stdout=b"hello\n")
        path = f"/job-executions/{life.pk}/logs/stdout/"
        tag = bench.line().header(path, "etag")

        def poll(line: Line, headers: str, expected: int) -> int:
            status, _ = line.get(path, headers)
            assert status == expected, status
            return 1

        for what, headers, expected in (
            ("ETag, 304", f"If-None-Match: {tag}\r\n", 304),
            ("Range, 416", "Range: bytes=6-\r\n", 416),
        ):
            bench.rate(
                f"polls of an unchanged log, {what}",
                partial(poll, headers=headers, expected=expected),
                2000,
            )
        reads, took_s = follow(bench, life, agent.reads.total)
        # Two streams of bytes, stdout and stderr, each read once in an interval.
        most = 2 * (took_s / _LINE_EVERY_S + 2)
        what = f"{_STREAMS} streams, {_LINES} lines in 5 s: reads of the agent"
        bench.keep(Row(what, bench.size, str(reads), "", f"{most:.0f}", reads <= most))


def follow(bench: Bench, life: "Life", reads: Callable[[], int]) -> tuple[int, float]:
    """Open many streams of a log, let it grow, and see that all get all; return reads, seconds."""
    with ExitStack() as stack:
        lines = [bench.line() for _ in range(_STREAMS)]
        for line in lines:
            stack.callback(line.close)
            line.send(f"/job-executions/{life.pk}/logs/stream/")
        got = [line.receive() for line in lines]
        before, began = reads(), time.monotonic()
        for number in range(_LINES):
            life.write("stdout", f"line {number}\n".encode())
            time.sleep(_LINE_EVERY_S)
        last = f"line {_LINES - 1}\\n".encode()
        for number, line in enumerate(lines):
            while last not in got[number]:
                got[number] += line.receive()
        return reads() - before, time.monotonic() - began


def summary(table: list[Row], sizes: list[int]) -> str:
    """Return the table of docs/benchmarks.md: p50 and p99 in ms, or a rate, for each size."""
    head = " | ".join(["executions", *(f"{size:,}" for size in sizes), "wanted"])
    lines = [f"| {head} |", "|---" * (len(sizes) + 2) + "|"]
    cells = {(row.what, row.size): row for row in table}
    for what, wanted in {row.what: row.target for row in table}.items():
        found = [cells.get((what, size)) for size in sizes]
        shown = " | ".join(each.short() if each else "" for each in found)
        lines.append(f"| {what} | {shown} | {wanted} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-rest", description=__doc__)
    parser.add_argument("rows", type=int, nargs="*", default=[10_000], help="executions")
    sizes = parser.parse_args().rows
    os.environ.setdefault("SCALE_SECRET_KEY", "only for a benchmark")
    os.environ.setdefault("SCALE_LOG_LEVEL", "ERROR")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, most), most))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    table: list[Row] = []
    for size in sizes:
        print(f"{size:,} executions; load {os.getloadavg()[0]:.1f}\n{HEAD}", flush=True)
        with running(size) as served:
            bench = Bench(size, served)
            for part in (lists, things, submissions, logs):
                part(bench)
        table += bench.rows
        print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    print(summary(table, sizes))


if __name__ == "__main__":
    main()
