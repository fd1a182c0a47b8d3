"""Processes as /proc shows them: who descends from whom, who carries a mark, how much they hold."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_HAS_CHILDREN: Final = Path(f"/proc/self/task/{os.getpid()}/children").exists()


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process; empty if it is gone."""
    if not _HAS_CHILDREN:
        return [child for child, parent in parents().items() if parent == pid]
    found: list[int] = []
    with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        for thread in threads:
            found.extend(map(int, _read(f"{thread.path}/children").split()))
    return found


def parents() -> dict[int, int]:
    """Return pid -> parent's pid of every process; one read per process."""
    found: dict[int, int] = {}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and (fields := stat_fields(int(entry.name))):
                found[int(entry.name)] = int(fields[1])
    return found


def with_descendants(roots: Iterable[int]) -> list[int]:
    """Return the processes and everything below them, parents first."""
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children_of(pid))
    return found


def stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/<pid>/stat from the third (state, ppid, pgrp, session, ...)."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return []
    return text[text.rindex(b")") + 2 :].split()


def session_of(pid: int) -> int:
    """Return the session id, 0 if the process is gone."""
    fields = stat_fields(pid)
    return int(fields[3]) if fields else 0


def carries(pid: int, mark: bytes) -> bool:
    """Tell whether the environment that the process was started with holds `mark` (NAME=value)."""
    try:
        return mark in _read(f"/proc/{pid}/environ").split(b"\0")
    except OSError:
        return False


def is_ending(pid: int) -> bool:
    """Tell whether a process has given up its memory, or is a zombie."""
    try:
        return _read(f"/proc/{pid}/statm").startswith(b"0 ")
    except OSError:
        return False


def lives_in(pid: int, directory: str) -> bool:
    """Tell whether a process works in a folder, or writes its output there."""
    for link in ("cwd", "fd/1", "fd/2"):
        try:
            target = os.readlink(f"/proc/{pid}/{link}")  # noqa: PTH115 - hot, and a plain string
        except OSError:
            continue
        if target == directory or target.startswith(f"{directory}/"):
            return True
    return False


def resident(pids: Iterable[int]) -> int:
    """Return the bytes that the processes hold, shared pages counted once per process."""
    pages = 0
    for pid in pids:
        try:
            pages += int(_read(f"/proc/{pid}/statm").split()[1])
        except (OSError, IndexError):
            continue
    return pages * PAGE


def proportional(pids: Iterable[int]) -> int:
    """Return the bytes that the processes hold, shared pages divided among their holders."""
    held = 0
    for pid in pids:
        try:
            lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
        except OSError:
            continue
        held += sum(int(line.split()[1]) for line in lines if line.startswith(b"Pss:"))
    return held * 1024


def cpu_seconds(pids: Iterable[int]) -> tuple[float, float]:
    """Return user and system time, ended children that were waited for included."""
    ticks = os.sysconf("SC_CLK_TCK")
    user = system = 0
    for pid in pids:
        if fields := stat_fields(pid):
            user += int(fields[11]) + int(fields[13])
            system += int(fields[12]) + int(fields[14])
    return user / ticks, system / ticks


def signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 65536)
        while len(data) >= 65536 and (more := os.read(fd, 65536)):
            data += more
        return data
    finally:
        os.close(fd)
