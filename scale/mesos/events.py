"""The way from the driver's thread to the scheduler's."""

import os
import threading
import weakref

from scale.core.cluster import ClusterEvent


class EventQueue:
    """A queue with a descriptor that is readable while it holds something."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[ClusterEvent] = []
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._close = weakref.finalize(self, _close_both, self._reader, self._writer)

    def fileno(self) -> int:
        return self._reader

    def put(self, event: ClusterEvent) -> None:
        with self._lock:
            self._waiting.append(event)
            if len(self._waiting) == 1:
                os.write(self._writer, b"\0")

    def drain(self) -> list[ClusterEvent]:
        """Return what waits, oldest first; never blocks."""
        with self._lock:
            if not self._waiting:
                return []
            os.read(self._reader, 1)
            waiting, self._waiting = self._waiting, []
            return waiting


def _close_both(reader: int, writer: int) -> None:
    os.close(reader)
    os.close(writer)
