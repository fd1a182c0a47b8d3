"""A cluster that is only played: the scheduler's gateway for tests.

Calls are recorded and must be taken by the test; `assert_all_taken` fails on any that was not.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scale.core.cluster import Agent, ClusterEvent, TaskRef, TaskSpec, TaskUpdate


@dataclass(frozen=True)
class Launched:
    offer_ids: tuple[str, ...]
    tasks: tuple[TaskSpec, ...]
    refuse_s: float


@dataclass(frozen=True)
class Declined:
    offer_ids: tuple[str, ...]
    refuse_s: float


@dataclass(frozen=True)
class Killed:
    task: TaskRef
    grace_s: float


@dataclass(frozen=True)
class Acknowledged:
    updates: tuple[TaskUpdate, ...]


@dataclass(frozen=True)
class Reconciled:
    tasks: tuple[TaskRef, ...]


@dataclass(frozen=True)
class Revived:
    pass


@dataclass(frozen=True)
class Listed:
    """The agents were asked for; taken like any other call."""


Call = Launched | Declined | Killed | Acknowledged | Reconciled | Revived | Listed


class FakeGateway:
    """Plays `scale.scheduler.gateway.Gateway`.

    `before` maps a kind of call to what happens first, with the call; it may raise, as a cluster
    that cannot be told does, and the call then counts as made all the same.
    """

    def __init__(self) -> None:
        self.machines: list[Agent] = []
        self.before: dict[type, Callable[[Any], None]] = {}
        self.started: list[str | None] = []
        self.running = False
        self._calls: list[Call] = []
        self._events: list[ClusterEvent] = []
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # What a test does.

    def say(self, *events: ClusterEvent) -> None:
        """Let these events arrive."""
        self._events += events
        os.write(self._write, b"\0")

    def take(self, kind: type[Any]) -> list[Any]:
        """Return the calls of one kind since the last time, oldest first."""
        taken = [call for call in self._calls if isinstance(call, kind)]
        self._calls = [call for call in self._calls if not isinstance(call, kind)]
        return taken

    def assert_all_taken(self) -> None:
        left, self._calls = self._calls, []
        assert left == [], f"the scheduler made calls that the test did not expect: {left}"

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)

    # What the scheduler does.

    def start(self, framework_id: str | None) -> None:
        self.started.append(framework_id)
        self.running = True

    def stop(self) -> None:
        self.running = False

    def fileno(self) -> int:
        return self._read

    def drain(self) -> list[ClusterEvent]:
        if self._events:
            os.read(self._read, 65536)
        events, self._events = self._events, []
        return events

    def launch(
        self, offer_ids: Sequence[str], tasks: Sequence[TaskSpec], *, refuse_s: float
    ) -> None:
        self._note(Launched(tuple(offer_ids), tuple(tasks), refuse_s))

    def decline(self, offer_ids: Sequence[str], *, refuse_s: float) -> None:
        self._note(Declined(tuple(offer_ids), refuse_s))

    def revive(self) -> None:
        self._note(Revived())

    def kill(self, task: TaskRef, *, grace_s: float) -> None:
        self._note(Killed(task, grace_s))

    def acknowledge(self, updates: Sequence[TaskUpdate]) -> None:
        self._note(Acknowledged(tuple(updates)))

    def reconcile(self, tasks: Sequence[TaskRef]) -> None:
        self._note(Reconciled(tuple(tasks)))

    def agents(self) -> list[Agent]:
        self._note(Listed())
        return list(self.machines)

    def _note(self, call: Call) -> None:
        self._calls.append(call)
        if happens := self.before.get(type(call)):
            happens(call)
