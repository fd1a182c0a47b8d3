"""Jobs that print too much, or what is no text: all of it can be read, and no memory grows."""

import hashlib
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, until

MIB = 1024 * 1024
#: `make faults` prints 1 GiB, for which reading it three times takes a minute.
FLOOD_MIB = int(os.environ.get("SCALE_TEST_FLOOD_MIB", "256"))
FLOOD_LIMIT_S = 50 + FLOOD_MIB / 8
#: Web has a cache of 32 MiB, whose blocks come as JSON; what is parsed and freed is kept by malloc.
GROWTH_MIB = {"web": 110, "worker": 64, "scheduler": 16}
PARTS = ("web", "worker", "scheduler")


def processes(home: Path) -> dict[int, str]:
    """Return the processes of a stack, with their names; a worker has children of its name."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            mine = f"SCALE_HOME={home}\0".encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
        if mine and b"scale.cli.main" in words:
            name = words[words.index(b"scale.cli.main") + 1].decode()
            if name in PARTS:
                found[int(folder.name)] = name
    return found


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def watched_memory(home: Path) -> Iterator[dict[str, float]]:
    """Measure while the block runs; afterwards the most that one process of a part grew, in MiB."""
    parts = processes(home)
    before = {pid: resident_mib(pid) for pid in parts}
    grown = dict.fromkeys(PARTS, 0.0)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for pid, name in parts.items():
                grown[name] = max(grown[name], resident_mib(pid) - before[pid])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield grown
    finally:
        done.set()
        thread.join()


def download(stack: Stack, path: str) -> tuple[int, str]:
    """Return size and SHA-256 of what is at a path; go on where the server had to break off."""
    size, wanted, total = 0, 1, hashlib.sha256()
    while size < wanted:
        given = {"Authorization": f"Token {stack.token}", "Range": f"bytes={size}-"}
        request = urllib.request.Request(f"{stack.url}{path}", headers=given)
        with urllib.request.urlopen(request, timeout=50) as answer:
            wanted = size + int(answer.headers.get("Content-Length", 0))
            while block := answer.read(MIB):
                size += len(block)
                total.update(block)
    return size, total.hexdigest()


@dataclass(frozen=True)
class Flood:
    """What came of a job that printed much: sizes and sums as they were read, and memory."""

    expected: tuple[int, str]
    end: dict[str, Any]
    live: tuple[int, str]
    archived: tuple[int, str]
    beside: str
    grown: dict[str, float]


@pytest.fixture(scope="module")
def flood(stack: Stack) -> Flood:
    """Print FLOOD_MIB as fast as can be, with a follower; read them from the agent and archived."""
    stack.ended(stack.submit(stack.job_type("true")))  # what is loaded once is loaded by now
    block = b"".join(b"%07d\n" % number for number in range(MIB // 8))
    total = hashlib.sha256()
    for _ in range(FLOOD_MIB):
        total.update(block)
    program = (
        f"import sys; block = b''.join(b'%07d\\n' % n for n in range({MIB // 8})); "
        f"[sys.stdout.buffer.write(block) for _ in range({FLOOD_MIB})]"
    )
    # What it prints is in its sandbox, and counts as its disk.
    noisy = stack.job_type("python3", f'-c "{program}"', disk_out_const_required=FLOOD_MIB + 16)
    with watched_memory(stack.home) as grown:
        job_id = stack.submit(noisy)
        beside = stack.submit(stack.job_type("echo", "calm"))
        path = f"/job-executions/{stack.last_execution(job_id)['id']}/logs"
        follower = threading.Thread(target=download, args=(stack, f"{path}/stream/?stream=stdout"))
        follower.start()
        details = stack.ended(job_id, limit_s=FLOOD_LIMIT_S)
        end = stack.get(f"{path}/")
        live = download(stack, f"{path}/stdout/")
        until(lambda: archived(stack, details), FLOOD_LIMIT_S)
        later = download(stack, f"{path}/stdout/")
        follower.join(FLOOD_LIMIT_S)
        assert not follower.is_alive()
    return Flood(
        expected=(FLOOD_MIB * MIB, total.hexdigest()),
        end={**end, "status": details["status"]},
        live=live,
        archived=later,
        beside=stack.ended(beside)["status"],
        grown=grown,
    )


@pytest.mark.timeout(4 * FLOOD_LIMIT_S)
def test_a_flood_of_output_is_kept_whole_and_disturbs_nobody(flood: Flood) -> None:
    assert flood.live == flood.expected
    assert flood.archived == flood.expected
    assert flood.end["status"] == flood.beside == "COMPLETED"
    assert (flood.end["stdout_truncated"], flood.end["stdout_size"]) == (True, FLOOD_MIB * MIB)


@pytest.mark.timeout(4 * FLOOD_LIMIT_S)
@pytest.mark.parametrize("part", PARTS)
def test_memory_does_not_grow_with_what_a_job_prints(flood: Flood, part: str) -> None:
    print(f"{part} grew by {flood.grown[part]:.0f} MiB while {FLOOD_MIB} MiB were printed")
    assert flood.grown[part] < GROWTH_MIB[part]


def archived(stack: Stack, details: dict[str, Any]) -> bool:
    return bool(list(stack.home.glob(f"files/logs/*/*/{details['uuid']}.job.stdout.gz")))


@pytest.mark.parametrize(
    ("what", "program", "expected"),
    [
        ("binary", "sys.stdout.buffer.write(bytes(range(256)) * 4096)", bytes(range(256)) * 4096),
        ("a line of 10 MB", "sys.stdout.write('x' * 10_000_000)", b"x" * 10_000_000),
        ("escapes", "print('\\\\033[2J\\\\033]0;owned\\\\007')", b"\x1b[2J\x1b]0;owned\x07\n"),
    ],
)
def test_what_is_no_text_is_served_as_it_is(
    stack: Stack, what: str, program: str, expected: bytes
) -> None:
    job_type = stack.job_type("python3", f'-c "import sys; {program}"', disk_out_const_required=16)
    job_id = stack.submit(job_type)
    path = f"/job-executions/{stack.last_execution(job_id)['id']}"
    stream = stack.call("GET", f"{path}/logs/stream/?stream=stdout")
    assert "event: end" in stream.text, what
    assert stack.ended(job_id)["status"] == "COMPLETED"
    answer = stack.call("GET", f"{path}/logs/stdout/")
    assert answer.body == expected
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    shown = stack.get(f"{path}/logs/")
    assert shown["stdout_size"] == len(expected)
    assert len(shown["stdout"]) <= MIB
