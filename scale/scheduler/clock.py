"""Deadlines are times of the wall clock, so that they survive a restart; this keeps them durations.

The wall clock may be stepped, by hand or by NTP, or jump because the machine slept. Without this,
an hour forward would end every task that has less than an hour left.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from django.db.models import F

from scale.core.lifecycle import Phase, State
from scale.job.models import JobExecution, JobType
from scale.node.models import Node
from scale.scheduler.leader import Leadership

#: Less is a clock that is slewed, or a round that took its time between two readings.
LEAST_STEP_S: Final = 1.0


class Clocks:
    """Compares the wall clock with the monotonic one."""

    def __init__(self, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._ahead_s = self._difference()

    def _difference(self) -> float:
        return self._now().timestamp() - self._monotonic()

    def step(self) -> timedelta:
        """Return by how much the wall clock was stepped since the last call; mostly zero."""
        ahead_s = self._difference()
        step_s, self._ahead_s = ahead_s - self._ahead_s, ahead_s
        return timedelta(seconds=step_s if abs(step_s) >= LEAST_STEP_S else 0)


def shift_deadlines(step: timedelta, leadership: Leadership) -> None:
    """Move all that waits for a time by a step of the clock; one statement for each kind.

    And when live phases started: how long they have run is counted from there, and shown.
    """
    with leadership.fenced():
        for model, field in (
            (JobExecution, "deadline"),
            (JobExecution, "cleanup_deadline"),
            (JobType, "launch_after"),
            (Node, "probe_at"),
        ):
            waiting = model._default_manager.filter(**{f"{field}__isnull": False})
            waiting.update(**{field: F(field) + step})
        for phase in Phase:
            started = f"{phase}_started"
            running = JobExecution.objects.filter(state=State.RUNNING.value, phase=phase.value)
            running.update(**{started: F(started) + step})
