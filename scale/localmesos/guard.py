"""A small process that outlives its agent: when that dies without a farewell, it kills the tasks.

It holds the read end of a pipe; the end of file means that the agent is gone. The process ids of
the tasks stand in a shared memory file, so that it sleeps until then. It also holds a lock until it
has done its work, so that it cannot take the tasks of our successor for ours. Run as a script with
the standard library only.
"""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_SLOT: Final = struct.Struct("=i")
ROUNDS: Final = 50


class Guard:
    """Our side: starts the process and keeps the table of the tasks' process ids."""

    def __init__(
        self, root: Path, folder: Path, docker: str | None, label: str, heirs: Iterable[int]
    ) -> None:
        """Prepare.

        Args:
            root: the agent's part of the work folder, where its sandboxes are.
            folder: where the lock is.
            label: marks our containers for a docker engine that may hold some.
            heirs: the processes that may inherit the orphans of our tasks.
        """
        self._arguments = [str(root), docker or "", label, ",".join(map(str, heirs))]
        self._table = os.memfd_create("localmesos-tasks", os.MFD_CLOEXEC)
        self._alive, self._write_end = os.pipe2(os.O_CLOEXEC)
        self._lock_path = folder / "guard.lock"
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self.pid = 0

    def start(self) -> None:
        """Start the process, anew if it was killed."""
        locked = lock(self._lock_path)
        inherited = (self._alive, self._table, locked)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *map(str, inherited[:2]), *self._arguments],
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            pass_fds=inherited,
            start_new_session=True,
        )
        os.close(locked)  # the process holds the lock alone from here on
        self.pid = process.pid
        process.returncode = 0  # reaped with all other children: see children.py

    def add(self, pid: int) -> None:
        slot = self._free.pop() if self._free else len(self._slots)
        self._slots[pid] = slot
        os.pwrite(self._table, _SLOT.pack(pid), slot * _SLOT.size)

    def remove(self, pid: int) -> None:
        slot = self._slots.pop(pid, None)
        if slot is not None:
            self._free.append(slot)
            os.pwrite(self._table, _SLOT.pack(0), slot * _SLOT.size)

    def close(self) -> None:
        """Let the process go in peace; the caller has killed everything itself."""
        os.write(self._write_end, b"x")
        os.close(self._write_end)


def end_left_behind(root: Path, keeper: int) -> None:
    """Kill what an earlier agent's tasks left, should its guard have been killed as well.

    Args:
        keeper: the process that inherited the orphans of that agent.
    """
    _kill_processes(str(root), set(), {keeper})


def lock(path: Path) -> int:
    """Return a descriptor that holds the lock `path`, as do all that inherit it.

    Raises:
        BlockingIOError: another process holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    return fd


def _table_pids(table: int) -> set[int]:
    data = os.pread(table, os.fstat(table).st_size, 0)
    return {pid for (pid,) in _SLOT.iter_unpack(data) if pid}


def _lives_in(entry: Path, root: str) -> bool:
    """Tell whether a process works or writes in a sandbox."""
    for link in ("cwd", "fd/1", "fd/2"):
        try:
            if str((entry / link).readlink()).startswith(f"{root}/"):
                return True
        except OSError:
            continue
    return False


def _left_behind(root: str, tasks: set[int], heirs: set[int]) -> set[int]:
    """Return what carries our mark, is in a task's session, or descends from such.

    Also what lives in a sandbox and has lost its parent, so that one of `heirs` has it now: a
    person's shell may be there too and is not ours.
    """
    mark = f"MESOS_DIRECTORY={root}/".encode()
    me, parent, found = os.getpid(), {}, set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == me:
            continue
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        if fields[0] == b"Z":
            continue
        pid, parent[int(entry.name)] = int(entry.name), int(fields[1])
        orphan = parent[pid] in heirs and _lives_in(entry, root)
        if mark in environ or int(fields[3]) in tasks or orphan:
            found.add(pid)
    while more := {pid for pid, above in parent.items() if above in found} - found:
        found |= more
    return found


def _kill_processes(root: str, tasks: set[int], heirs: set[int]) -> None:
    for group in tasks:  # most are gone at once: what ends now by itself ends untold
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(ROUNDS):
        left = _left_behind(root, tasks, heirs)
        if not left:
            return
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _kill_containers(docker: str, label: str) -> None:
    listed = subprocess.run(
        [docker, "ps", "-q", "--filter", f"label={label}"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    if names := listed.stdout.split():
        subprocess.run([docker, "kill", *names], capture_output=True, timeout=20)


def main(arguments: list[str]) -> None:
    """Wait for the end of our parent; see `Guard.start` for the arguments."""
    alive, table, root, docker, label, heirs = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(int(alive), 1):
        return  # a farewell: nothing is left to do
    _kill_processes(root, _table_pids(int(table)), set(map(int, heirs.split(","))))
    if docker and Path(docker).exists():
        _kill_containers(docker, label)


if __name__ == "__main__":
    main(sys.argv[1:])
