"""What people ask about the scheduler."""

from datetime import UTC, datetime, timedelta
from typing import Final

from django.db.models import Case, Q, Value, When
from django.db.models.expressions import OrderBy

from scale.scheduler.models import SchedulerState

#: A leader that has been silent for longer is not at work.
STALE_AFTER: Final = timedelta(seconds=12)


def scheduler_state() -> SchedulerState | None:
    """Return the scheduler's row; None before the migrations made it. One query."""
    return SchedulerState.objects.filter(pk=SchedulerState.ONLY).first()


def first_those(condition: Q) -> OrderBy:
    """Return an order in which rows that fit a condition come before the others.

    Whole numbers: if nothing can fit, PostgreSQL takes the constant for a column's position.
    """
    return Case(When(condition, then=Value(0)), default=Value(1)).asc()


def shown(at: datetime) -> str:
    """Return a time as sentences for people have it."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def is_alive(state: SchedulerState | None, *, now: datetime) -> bool:
    """Return whether a leader has shown a sign of life of late."""
    return (
        state is not None and state.heartbeat is not None and now - state.heartbeat <= STALE_AFTER
    )


def what_is_wrong(*, heartbeat: datetime | None, is_connected: bool, now: datetime) -> str | None:
    """Say why the scheduler does not schedule; None if it does."""
    if heartbeat is None:
        return "has never led"
    silent = now - heartbeat
    if silent > STALE_AFTER:
        return f"silent for {silent.total_seconds():.0f} s"
    if not is_connected:
        return "not connected to Mesos"
    return None
