"""Disk limits by adding up a sandbox, as `disk/du` with `enforce_container_disk_quota` does.

What a task writes elsewhere is not seen, nor what it deleted and still holds open: as in Mesos.
"""

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from scale.localmesos.run import Run

FIRST_S: Final = 0.5  # most short tasks end before their first look
SHORTEST_S: Final = 0.2
SLICE: Final = 256  # files that are looked at while nothing else is done; about a millisecond
BLOCK: Final = 512  # stat(2): st_blocks

Over = Callable[[Run, int], None]


def watch(run: Run, longest_s: float, over: Over) -> None:
    """Look at the sandbox until the task ends; call `over` with its bytes above the limit.

    A sandbox that grows is looked at before it can be full, one that does not less and less often,
    but every `longest_s` (Mesos: `container_disk_watch_interval`, 15 s).
    """
    _Watch(run, longest_s, over).later(min(FIRST_S, longest_s))


class _Watch:
    def __init__(self, run: Run, longest_s: float, over: Over) -> None:
        self._run = run
        self._longest_s = longest_s
        self._over = over
        self._used = 0
        self._waited_s = SHORTEST_S
        self._looked = time.monotonic()

    def later(self, seconds: float) -> None:
        self._waited_s = seconds
        loop = asyncio.get_running_loop()
        self._run.disk_timer = loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._add_up(sizes(self._run.directory), 0)

    def _add_up(self, files: Iterator[int], used: int) -> None:
        """Go on adding, a slice at a time: a sandbox may hold a million files."""
        some = list(islice(files, SLICE))
        used += sum(some)
        if len(some) < SLICE:
            self._judge(used)
        else:
            loop = asyncio.get_running_loop()
            self._run.disk_timer = loop.call_soon(self._add_up, files, used)

    def _judge(self, used: int) -> None:
        now, limit = time.monotonic(), self._run.disk_asked
        if used > limit:
            self._run.disk_timer = None
            self._over(self._run, used)
            return
        rate = (used - self._used) / max(now - self._looked, SHORTEST_S)
        self._used, self._looked = used, now
        self.later(next_look(limit - used, rate, self._waited_s, self._longest_s))


def next_look(room: int, rate: float, waited_s: float, longest_s: float) -> float:
    """Return seconds until the next look, for `room` bytes that go by `rate` a second."""
    wait_s = room / rate if rate > 0 else 2 * waited_s
    return min(max(wait_s, SHORTEST_S), longest_s)


def sizes(folder: str) -> Iterator[int]:
    """Yield the bytes on disk of each file and folder below; links are not followed (du -s)."""
    waiting, seen = [folder], set[tuple[int, int]]()
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):  # it may be gone
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        waiting.append(entry.path)
                    elif info.st_nlink > 1:
                        if (info.st_dev, info.st_ino) in seen:
                            continue
                        seen.add((info.st_dev, info.st_ino))
                    yield info.st_blocks * BLOCK
