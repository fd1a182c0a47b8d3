"""What ran out of time, and the kills that are repeated until their tasks are gone."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, cast

from django.conf import settings
from django.db import connection
from django.db.models import Q

from scale.core.cluster import TaskRef
from scale.core.lifecycle import HAS_TASK, Event, Phase, State
from scale.core.updates import TIMEOUTS
from scale.error.models import Error
from scale.job.models import JobExecution, values
from scale.job.services import Move, lock_executions, move_executions, stop_executions
from scale.node.models import Node
from scale.scheduler.cleanup import give_up_late_cleanups
from scale.scheduler.leader import Leadership
from scale.scheduler.probes import give_up_late_probes, live_probes

#: A kill that had no effect is sent again after this time.
KILL_AGAIN_S: Final = 10.0
_ROUND_LIMIT: Final = 1000


# A probe that is due and was not started waits for an offer, and a type that may start again for
# work: nothing to wake for.
_NEXT: Final = """
SELECT LEAST(
    (SELECT min(deadline) FROM job_execution WHERE deadline IS NOT NULL),
    (SELECT min(cleanup_deadline) FROM job_execution WHERE cleanup_owed),
    (SELECT min(probe_at) FROM node WHERE probe_task_id <> ''
         OR (is_paused_errors AND is_online AND is_active AND probe_at > %(now)s)),
    (SELECT min(launch_after) FROM job_type WHERE launch_after > %(now)s))
"""


def next_deadline(*, now: datetime) -> datetime | None:
    """Return the earliest time at which something is to be done; one query, by indexes."""
    with connection.cursor() as cursor:
        cursor.execute(_NEXT, {"now": now})
        (deadline,) = cursor.fetchone()
    return cast("datetime | None", deadline)


@dataclass(frozen=True, slots=True)
class Expired:
    """How many ran out of time, and how many of those have failed: the others are to be killed."""

    late: int
    failed: int


def expire(leadership: Leadership, *, now: datetime) -> Expired:
    """End what ran out of time: tasks are to be killed, what has none fails."""
    with leadership.fenced():
        due = list(
            JobExecution.objects.filter(deadline__lte=now)
            .order_by("deadline")
            .values_list("pk", flat=True)[:_ROUND_LIMIT]
        )
        rows = lock_executions(ids=due) if due else {}
        late = [row for row in rows.values() if row.deadline and row.deadline <= now]
        lost = [row for row in late if row.unreachable_since]
        held = [row for row in late if not row.unreachable_since and row.state == State.HOLDING]
        moves = [_lost(row) for row in lost] + [
            Move(
                row.pk,
                Event.FAIL,
                error="resource-starvation",
                message="the next phase got no resources on its node in time",
            )
            for row in held
        ]
        move_executions(moves, at=now, locked=rows)
        settled = {move.execution_id for move in moves}
        _stop_late((row for row in late if row.pk not in settled), now)
    failed = sum(move.event is Event.FAIL for move in moves)
    return Expired(len(late), failed)


def expire_errands(leadership: Leadership, *, now: datetime) -> list[TaskRef]:
    """Give up clean-ups and probes that took too long; return their tasks, to be killed."""
    with leadership.fenced():
        return give_up_late_cleanups(now=now) + give_up_late_probes(now=now)


def _lost(row: JobExecution) -> Move:
    """Return how an execution ends whose node stayed out of reach."""
    message = "the node stayed out of reach"
    if not row.stopping_since:
        return Move(row.pk, Event.FAIL, error="node-lost", message=message)
    if row.stopping_error is None:
        return Move(row.pk, Event.CANCEL, message=message)
    return Move(row.pk, Event.FAIL, error=row.stopping_error.name, message=message)


def _stop_late(rows: Iterable[JobExecution], now: datetime) -> None:
    by_error: dict[str, list[JobExecution]] = {}
    for row in rows:
        name = "launch-timeout" if row.state == State.STARTING else TIMEOUTS[Phase(row.phase)]
        by_error.setdefault(name, []).append(row)
    errors = Error.objects.in_bulk(by_error, field_name="name") if by_error else {}
    for name, late in by_error.items():
        stop_executions(late, error=errors[name], at=now)


def tasks_to_kill() -> list[TaskRef]:
    """Return the live tasks that are to end; one query over the few that are stopping.

    Those out of reach are left out: none hears of it, and the others would wait for them.
    """
    rows = JobExecution.objects.filter(
        stopping_since__isnull=False, state__in=values(HAS_TASK), unreachable_since=None
    ).values_list("task_id", "agent_id")
    return [TaskRef(task_id, agent_id) for task_id, agent_id in rows[:_ROUND_LIMIT]]


def live_tasks() -> list[TaskRef]:
    """Return every task that should be alive, clean-ups and probes included; three queries."""
    tasks = JobExecution.objects.filter(state__in=values(HAS_TASK)).values_list(
        "task_id", "agent_id"
    )
    cleanups = (
        JobExecution.objects.filter(cleanup_owed=True)
        .exclude(cleanup_task_id="")
        .values_list("cleanup_task_id", "node__slave_id")
        .distinct()
    )
    return [TaskRef(*pair) for pair in [*tasks, *cleanups]] + live_probes()


def leave_agent(
    agent_id: str, leadership: Leadership, *, grace_until: datetime, now: datetime
) -> None:
    """Give executions between phases on a lost agent until `grace_until` for it to come back.

    Those with a task are told of by updates of their own.
    """
    with leadership.fenced():
        JobExecution.objects.filter(
            agent_id=agent_id, state=State.HOLDING.value, unreachable_since=None
        ).update(unreachable_since=now, deadline=grace_until)


def leave_former_agents(
    nodes: Collection[Node], there: Collection[str], *, grace_until: datetime, now: datetime
) -> None:
    """Give what is between phases on these nodes' former agents until `grace_until`; one query.

    An agent with a new id does not bring back what the one before had; `there` are those that are.
    """
    JobExecution.objects.filter(
        state=State.HOLDING.value, node__in=nodes, unreachable_since=None
    ).exclude(agent_id__in=there).update(unreachable_since=now, deadline=grace_until)


def tasks_out_of_reach(agent_ids: Collection[str]) -> list[TaskRef]:
    """Return the tasks out of reach on these agents, or on those that their nodes had before.

    One query.
    """
    rows = JobExecution.objects.filter(
        Q(agent_id__in=agent_ids) | Q(node__slave_id__in=agent_ids),
        state__in=values(HAS_TASK),
        unreachable_since__isnull=False,
    )
    return [TaskRef(*pair) for pair in rows.values_list("task_id", "agent_id")]


def return_agents(agent_ids: Collection[str], *, now: datetime) -> None:
    """Let executions between phases on agents that are there wait for room, as they did before."""
    JobExecution.objects.filter(
        agent_id__in=agent_ids, state=State.HOLDING.value, unreachable_since__isnull=False
    ).update(
        unreachable_since=None, deadline=now + timedelta(seconds=settings.SCALE_HOLD_TIMEOUT_S)
    )
