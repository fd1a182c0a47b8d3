"""Keeping subscribed: who leads, when to try again, and when silence means that the stream died."""

import logging
import math
import os
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from random import SystemRandom
from time import monotonic
from typing import Protocol

from scale.mesos.connection import Ending, EventStream
from scale.mesos.document import JsonObject

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the driver is, in seconds.

    `missed_heartbeats`: intervals without any event after which the stream counts as dead.
    `settled_s`: a stream that lived this long after SUBSCRIBED was a good one, and the attempts
    after it start over with the shortest pause.
    `jitter` returns the share of a pause that is waited for; several schedulers spread out.
    """

    connect_s: float = 5
    subscribe_s: float = 30
    missed_heartbeats: float = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 5
    settled_s: float = 5
    jitter: Callable[[], float] = field(default=lambda: SystemRandom().uniform(0.5, 1))

    def pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        if failures == 0:
            return 0
        doubled = self.first_pause_s * 2.0 ** min(failures - 1, 16)
        return min(self.longest_pause_s, doubled) * self.jitter()


class Listener(Protocol):
    """Whose subscription it is; called on the thread that runs it."""

    def subscribe_request(self, address: str) -> bytes:
        """Return the HTTP request that subscribes at this master."""

    def on_event(self, event: JsonObject) -> None:
        """Take an event; must not raise."""

    def on_trouble(self, reason: str) -> None:
        """Learn why there is no stream, or no longer; must not raise."""

    def on_close(self) -> None:
        """Forget the session, if there was one; must not raise."""


class Subscription:
    """The loop that replaces `pymesos.process.Process._run`.

    It ends only by `end`. `end`, `follow` and `kick` may be called from any thread; they are
    heeded when the wake-up descriptor of `run` is written to.
    """

    def __init__(self, listener: Listener, timing: Timing) -> None:
        self._listener = listener
        self._timing = timing
        self._stream: EventStream | None = None
        self._seeds: tuple[str, ...] = ()
        self._leader: str | None = None
        self._failures = 0
        self._next_seed = 0
        self._due_s = self._last_event_s = 0.0
        self._subscribed_s: float | None = None
        self._heartbeat_s = 0.0
        self._ended = False
        self._moved = False
        self._kicked: tuple[str, str] | None = None
        self.attempts = 0

    @property
    def last_event_age_s(self) -> float:
        """Return how long ago the last event came; since the machine's start if none has."""
        return monotonic() - self._last_event_s

    @property
    def stream_id(self) -> str:
        return self._stream.stream_id if self._stream is not None else ""

    def end(self) -> None:
        self._ended = True

    def follow(self, seeds: tuple[str, ...]) -> None:
        """Subscribe at one of these masters, or where it redirects to."""
        self._seeds = seeds
        self._moved = True

    def kick(self, stream_id: str, reason: str) -> None:
        """Give up this stream, if it is still the present one, and subscribe again."""
        self._kicked = (stream_id, reason)

    def subscribed(self, heartbeat_s: float) -> None:
        """Note that SUBSCRIBED came on the present stream; called within `on_event`."""
        self._subscribed_s = monotonic()
        self._heartbeat_s = heartbeat_s

    def run(self, wakeup: int) -> None:
        while not self._ended:
            try:
                self._turn(wakeup)
            except Exception:  # a fault of ours must not end the only thread that hears Mesos
                logger.exception("mesos subscription failed")
                self._lose(Ending("an unexpected error"))
        self._close()

    def _turn(self, wakeup: int) -> None:
        if self._stream is None and self._address() and monotonic() >= self._due_s:
            self._connect()
        ready = self._wait(wakeup)
        if wakeup in ready:
            os.read(wakeup, select.PIPE_BUF)
            self._heed()
        elif self._stream is None:
            return
        elif ready:
            self._read(self._stream)
        elif monotonic() >= self._silent_s():
            self._lose(Ending("the master is silent"))

    def _address(self) -> str | None:
        """Return whom to try next: where we were sent, or the seeds in turn."""
        if self._leader or not self._seeds:
            return self._leader
        return self._seeds[self._next_seed % len(self._seeds)]

    def _connect(self) -> None:
        address = self._address() or ""
        if self._leader is None:
            self._next_seed += 1
        self.attempts += 1
        request = self._listener.subscribe_request(address)
        try:
            self._stream = EventStream(address, request, timeout_s=self._timing.connect_s)
        except OSError as error:
            self._lose(Ending(f"{address} cannot be reached: {error}"))

    def _wait(self, wakeup: int) -> list[int]:
        """Return which descriptors are readable; sleeps until one is or the next deadline."""
        poller = select.poll()  # unlike select.select, good for descriptors above 1023
        poller.register(wakeup, select.POLLIN)
        deadline = None
        if self._stream is not None:
            poller.register(self._stream.fileno(), select.POLLIN)
            deadline = self._silent_s()
        elif self._address():
            deadline = self._due_s
        left_s = None if deadline is None else max(0.0, deadline - monotonic())
        return [fd for fd, _ in poller.poll(None if left_s is None else math.ceil(left_s * 1000))]

    def _silent_s(self) -> float:
        """Return when the stream counts as dead if nothing comes."""
        if self._stream is not None and self._subscribed_s is None:
            return self._stream.opened_s + self._timing.subscribe_s
        return self._last_event_s + self._timing.missed_heartbeats * self._heartbeat_s

    def _heed(self) -> None:
        moved, self._moved = self._moved, False
        kicked, self._kicked = self._kicked, None
        if kicked and kicked[0] == self.stream_id:
            self._lose(Ending(kicked[1]))
        if moved:
            if self._seeds and self._stream is not None:
                self._lose(Ending("another master leads"))
            self._failures, self._due_s, self._leader, self._next_seed = 0, 0.0, None, 0

    def _read(self, stream: EventStream) -> None:
        for event in stream.read():
            self._last_event_s = monotonic()
            self._listener.on_event(event)
            if self._ended:
                return
        if stream.ending is not None:
            self._lose(stream.ending)

    def _lose(self, ending: Ending) -> None:
        """Close the stream and set when to try again."""
        now = monotonic()
        good = self._subscribed_s is not None and (
            now - self._subscribed_s >= self._timing.settled_s
        )
        self._failures = 0 if good else self._failures + 1
        self._leader = ending.leader  # for one attempt only: it may be dead, the seeds know
        followed = ending.leader is not None and self._failures <= 1
        pause_s = 0 if followed else self._timing.pause_s(self._failures)
        self._due_s = now + pause_s
        logger.warning(
            "no mesos stream",
            extra={"reason": ending.reason, "leader": ending.leader, "pause_s": round(pause_s, 1)},
        )
        self._close()
        if not followed:
            self._listener.on_trouble(ending.reason)

    def _close(self) -> None:
        stream, self._stream, self._subscribed_s = self._stream, None, None
        if stream is not None:
            stream.close()
            self._listener.on_close()
