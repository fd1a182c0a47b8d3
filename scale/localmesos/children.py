"""Starting and reaping processes: one SIGCHLD handler, no thread and no descriptor per process.

We are a child subreaper (prctl(2)): whatever a task leaves behind, even after setsid and a double
fork, becomes our child, is found in one read of /proc, and can be killed with its task.
"""

import asyncio
import ctypes
import logging
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scale.localmesos import tree
from scale.localmesos.guard import Guard

logger = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER: Final = 36  # <linux/prctl.h>
OnExit = Callable[[int, resource.struct_rusage], None]


@dataclass(frozen=True, slots=True)
class Owner:
    """Another user's identity for a process; see switch_user in the Mesos agent."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """What to start, where its output goes (descriptors) and as whom."""

    argv: Sequence[str]
    executable: str | None
    cwd: str
    env: Mapping[str, str]
    stdout: int
    stderr: int
    owner: Owner | None = None


class Children:
    """All child processes of this process; used on the event loop's thread only."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._on_exit: dict[int, OnExit] = {}
        self._orphans_ended: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin to reap, and start the guard."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            logger.warning("cannot become a subreaper; tasks that daemonize may escape")
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        self._guard.start()

    def spawn(self, program: Program, on_exit: OnExit) -> int:
        """Start a process in a session of its own; return its pid.

        `on_exit` is called with the raw wait status and what the process used.

        Raises:
            OSError, ValueError: it could not be started.
        """
        owner = program.owner
        process = subprocess.Popen(
            program.argv,
            executable=program.executable,
            cwd=program.cwd,
            env=program.env,
            stdin=subprocess.DEVNULL,
            stdout=program.stdout,
            stderr=program.stderr,
            start_new_session=True,
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=owner.groups if owner else None,
        )
        process.returncode = 0  # reaped below: nobody waits for the Popen object
        self._on_exit[process.pid] = on_exit
        self._guard.add(process.pid)
        return process.pid

    def members(self, root: int, directory: str) -> list[int]:
        """Return the living processes of a task: its root, what descends from it, its strays.

        Strays are known by their session, by MESOS_DIRECTORY, or by working or writing there. One
        that is ending shows nothing of that, and its own children are about to become ours: while
        there is nothing else it counts, so that whoever waits for the end of a task looks again.
        """
        mark = os.fsencode(f"MESOS_DIRECTORY={directory}")
        found = tree.with_descendants([root]) if root in self._on_exit else []
        orphans = self._orphans()
        strays = [
            pid
            for pid in orphans
            if tree.session_of(pid) == root
            or tree.carries(pid, mark)
            or tree.lives_in(pid, directory)
        ]
        found += tree.with_descendants(strays)
        return found or [pid for pid in orphans if tree.is_ending(pid)]

    def strangers(self) -> list[int]:
        """Return what descends from us and belongs to no task that still has its root."""
        return tree.with_descendants(self._orphans())

    def when_orphans_end(self, callback: Callable[[], None]) -> None:
        """Call back once, after the next process that is no task's root has been reaped."""
        self._orphans_ended.append(callback)

    def _orphans(self) -> list[int]:
        known = self._on_exit
        return [
            pid
            for pid in tree.children_of(os.getpid())
            if pid not in known and pid != self._guard.pid
        ]

    def _reap(self) -> None:
        orphans = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            on_exit = self._on_exit.pop(pid, None)
            if on_exit is not None:
                self._guard.remove(pid)
                on_exit(status, usage)
            elif pid == self._guard.pid:
                logger.warning("the guard process ended and is started again")
                self._guard.start()
            else:
                orphans = True
        if orphans and self._orphans_ended:
            callbacks, self._orphans_ended = self._orphans_ended, []
            for callback in callbacks:
                callback()
