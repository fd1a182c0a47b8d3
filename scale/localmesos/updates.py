"""The stream of status updates of every task: in order, one in flight, repeated until acknowledged.

After src/slave/task_status_update_manager.cpp: the head is sent again after 10 s, then 20, 40, ...
600 s; the next one is sent when the head is acknowledged by its uuid.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from scale.localmesos.status import TERMINAL

Key = tuple[str, str]  # framework id, task id
LONGEST_RETRY_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Update:
    """One status on its way to the framework; `encoded` is its JSON."""

    key: Key
    status: dict[str, Any]
    encoded: bytes

    @property
    def uuid(self) -> str:
        return str(self.status["uuid"])

    @property
    def is_terminal(self) -> bool:
        return self.status["state"] in TERMINAL


def make_update(framework_id: str, encoded: bytes) -> Update:
    """Read an encoded TaskStatus.

    Raises:
        ValueError, LookupError, TypeError: it lacks what every status of an agent has.
    """
    status = orjson.loads(encoded)
    for name, kind in (("state", str), ("uuid", str), ("timestamp", float)):
        if type(status[name]) is not kind:
            raise TypeError(f"{name} of a status")
    return Update((framework_id, str(status["task_id"]["value"])), status, encoded)


@dataclass(slots=True)
class _Stream:
    pending: deque[Update] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None
    wait_s: float = 0.0

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class UpdateStreams:
    """All streams of one agent; `forward` gives an update to the master."""

    def __init__(self, forward: Callable[[Update], None], first_retry_s: float) -> None:
        self._forward = forward
        self._first_retry_s = first_retry_s
        self._streams: dict[Key, _Stream] = {}

    def append(self, update: Update) -> None:
        """Add an update that is safe on disk; it is sent now if nothing is before it."""
        stream = self._streams.setdefault(update.key, _Stream())
        stream.pending.append(update)
        if len(stream.pending) == 1:
            self._send(stream)

    def acknowledge(self, key: Key, uuid: str) -> Update | None:
        """Take the head off if `uuid` names it, send the next; return what was acknowledged."""
        stream = self._streams.get(key)
        if stream is None or stream.pending[0].uuid != uuid:
            return None
        update = stream.pending.popleft()
        stream.stop()
        if stream.pending:
            self._send(stream)
        else:
            del self._streams[key]
        return update

    def resend(self, framework_id: str | None = None) -> None:
        """Send every head again at once: of a framework that has subscribed anew, or of all."""
        for key, stream in list(self._streams.items()):
            if framework_id in (None, key[0]):
                stream.stop()
                self._send(stream)

    def forget(self, key: Key) -> None:
        if stream := self._streams.pop(key, None):
            stream.stop()

    def waiting(self) -> list[Key]:
        return list(self._streams)

    def pending(self) -> list[Update]:
        """Return every update that is not acknowledged, in order per task."""
        return [update for stream in self._streams.values() for update in stream.pending]

    def head(self, key: Key) -> Update | None:
        stream = self._streams.get(key)
        return stream.pending[0] if stream else None

    def _send(self, stream: _Stream) -> None:
        stream.wait_s = self._first_retry_s
        self._arm(stream)
        self._forward(stream.pending[0])

    def _arm(self, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()
        stream.timer = loop.call_later(stream.wait_s, self._again, stream)

    def _again(self, stream: _Stream) -> None:
        stream.wait_s = min(stream.wait_s * 2, LONGEST_RETRY_S)
        self._arm(stream)
        self._forward(stream.pending[0])
