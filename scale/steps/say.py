"""Lines of the phase's log: written at once, so that they are seen while the step runs."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from typing import TextIO

MIB = 1024 * 1024


def say(line: str, stream: TextIO | None = None) -> None:
    """Write a line to stdout, or to `stream`.

    A log that cannot be written to ends no step: the disk may be full of what a clean-up removes.
    """
    with contextlib.suppress(OSError):
        print(line, file=stream, flush=True)


class Progress:
    """Says how far one file is, at most once per `every_s` seconds."""

    def __init__(self, name: str, every_s: float) -> None:
        self._name = name
        self._every_s = every_s
        self._began = self._said = time.monotonic()
        self._done = 0

    def add(self, count: int, total: int | None) -> None:
        """Count bytes that arrived; `total` is None as long as nobody knows it."""
        self._done += count
        now = time.monotonic()
        if now - self._said < self._every_s:
            return
        self._said = now
        if total:
            percent = 100 * self._done // total
            say(f"{self._name}: {percent} %, {self._done / MIB:.1f} of {total / MIB:.1f} MiB")
        else:
            say(f"{self._name}: {self._done / MIB:.1f} MiB")

    def finish(self) -> None:
        seconds = max(time.monotonic() - self._began, 0.001)
        size = self._done / MIB
        say(f"{self._name}: 100 %, {size:.1f} MiB in {seconds:.1f} s ({size / seconds:.1f} MiB/s)")


def prepare_streams() -> None:
    """Never fail on a character that the agent's locale does not have, nor on a full disk.

    Without a buffer: Python writes what is left in one when it exits, and exits with 120 if it
    cannot.
    """
    for name in ("stdout", "stderr"):
        given = getattr(sys, name)
        if given is None:  # closed by whoever started us
            continue
        raw = io.FileIO(given.fileno(), "w", closefd=False)
        stream = io.TextIOWrapper(
            raw, encoding="utf-8", errors="backslashreplace", write_through=True
        )
        setattr(sys, name, stream)
