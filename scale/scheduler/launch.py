"""Placing what waits: rows first, then the cluster."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings

from scale.core.cluster import Offer, TaskRef, TaskSpec
from scale.core.lifecycle import Event, State
from scale.core.placement import Launch, plan
from scale.core.reasons import WaitCode
from scale.core.resources import Resources
from scale.job.models import JobExecution, JobType, JobTypeRevision
from scale.job.orders import CLEANUP_BATCH, CLEANUP_NEEDS, assign, files_of, recipe_of
from scale.job.services import Move, Placed, lock_executions, move_executions
from scale.scheduler.cleanup import owed_cleanups, start_cleanup
from scale.scheduler.leader import Leadership
from scale.scheduler.probes import start_probes
from scale.scheduler.snapshot import LAUNCH_LIMIT, Turn, snapshot, waiting_shapes

logger = logging.getLogger(__name__)

_NOT_FOR_WANT_OF_OFFERS: Final = frozenset(
    {
        WaitCode.SCHEDULER_PAUSED,
        WaitCode.MAX_SCHEDULED_REACHED,
        WaitCode.JOB_TYPE_PAUSED,
        WaitCode.RETRY_BACK_OFF,
    }
)


@dataclass(slots=True)
class Decided:
    """What to tell the cluster: tasks by agent with the offers that they use.

    `waits` says whether something is left that would start on more or larger offers; `full`
    whether the round ended at its limit, so that the next should follow at once. `reserved` is
    for the next round. `waited_s` tells of each that left the queue how long it was there.
    """

    tasks: dict[str, list[TaskSpec]] = field(default_factory=lambda: defaultdict(list))
    offer_ids: dict[str, list[str]] = field(default_factory=dict)
    waits: bool = False
    full: bool = False
    reserved: Mapping[Resources, str] = field(default_factory=dict)
    waited_s: list[float] = field(default_factory=list)

    def launched(self) -> list[TaskRef]:
        return [
            TaskRef(task.task_id, agent_id)
            for agent_id, tasks in self.tasks.items()
            for task in tasks
        ]


def decide(
    offers: Sequence[Offer],
    node_ids: Mapping[str, int],
    leadership: Leadership,
    *,
    framework_id: str,
    reserved: Mapping[Resources, str],
    turn: Turn,
    now: datetime,
) -> Decided:
    """Plan on these offers and store what will be launched; the caller then tells the cluster.

    A crash after this leaves rows whose tasks Mesos does not know, which reconciliation sends
    back to the queue, and never a task that no row knows.
    """
    decided = Decided()
    with leadership.fenced():
        left = _place_cleanups(offers, decided, now)
        left = _place_probes(left, decided, now)
        planned = plan(snapshot(left, reserved, waiting_shapes(turn), now=now))
        launches = planned.launches[:LAUNCH_LIMIT]
        decided.full = len(planned.launches) > len(launches) or len(launches) == LAUNCH_LIMIT
        _store(launches, node_ids, framework_id, decided, now)
        decided.waits |= bool(planned.held) or any(
            reason.code not in _NOT_FOR_WANT_OF_OFFERS for reason in planned.reasons.values()
        )
        decided.waits |= turn.after is not None  # others wait that were not looked at
        decided.reserved = planned.reserved
    for offer in offers:
        if offer.agent_id in decided.tasks:
            decided.offer_ids.setdefault(offer.agent_id, []).append(offer.offer_id)
    return decided


def _place_cleanups(offers: Sequence[Offer], decided: Decided, now: datetime) -> list[Offer]:
    """Start one clean-up task on each agent that owes one and has room; return what is left."""
    owed = owed_cleanups({offer.agent_id for offer in offers})
    left = []
    for offer in offers:
        free = offer.free
        if offer.agent_id in owed and CLEANUP_NEEDS.fits_in(free):
            folders = owed.pop(offer.agent_id)
            decided.tasks[offer.agent_id].append(start_cleanup(offer.agent_id, folders, now=now))
            if len(folders) > CLEANUP_BATCH:
                decided.waits = True
            free = free - CLEANUP_NEEDS
        left.append(_with_free(offer, free))
    decided.waits |= bool(owed)
    return left


def _place_probes(offers: Sequence[Offer], decided: Decided, now: datetime) -> list[Offer]:
    """Start a probe on each node that was set aside and is due; return what is left."""
    probes, wait = start_probes(offers, now=now)
    decided.waits |= wait
    for task in probes.values():
        decided.tasks[task.agent_id].append(task)
    return [
        _with_free(offer, offer.free - probes[offer.offer_id].needs)
        if offer.offer_id in probes
        else offer
        for offer in offers
    ]


def _with_free(offer: Offer, free: Resources) -> Offer:
    return Offer(offer.offer_id, offer.agent_id, offer.hostname, offer.address, offer.port, free)


def _store(
    launches: Sequence[Launch],
    node_ids: Mapping[str, int],
    framework_id: str,
    decided: Decided,
    now: datetime,
) -> None:
    """Move the planned executions to starting; leave out what was canceled meanwhile."""
    if not launches:
        return
    rows = lock_executions(ids={launch.execution_id for launch in launches})
    ready = [launch for launch in launches if _still_waits(rows.get(launch.execution_id))]
    chosen = [rows[launch.execution_id] for launch in ready]
    types = JobType.objects.defer("interface", "error_mapping").in_bulk(
        {row.job_type_id for row in chosen}
    )
    revisions = JobTypeRevision.objects.in_bulk({row.job.job_type_rev_id for row in chosen})
    recipes = {pk: recipe_of(revision) for pk, revision in revisions.items()}
    files = files_of(chosen)
    deadline = now + timedelta(seconds=settings.SCALE_STAGING_TIMEOUT_S)
    moves = []
    for launch in ready:
        row = rows[launch.execution_id]
        if row.state == State.QUEUED:
            decided.waited_s.append((now - row.queued).total_seconds())
        row.job.job_type = types[row.job_type_id]
        assignment = assign(
            row, recipes[row.job.job_type_rev_id], agent_id=launch.agent_id, files=files
        )
        decided.tasks[launch.agent_id].append(assignment.task)
        placed = Placed(
            node_id=node_ids[launch.agent_id],
            agent_id=launch.agent_id,
            framework_id=framework_id,
            task_id=assignment.task.task_id,
            needs=launch.needs,
            command_arguments=assignment.command_arguments,
            environment=assignment.environment,
        )
        moves.append(Move(row.pk, Event.LAUNCH, deadline=deadline, placed=placed))
    move_executions(moves, at=now, locked=rows)


def _still_waits(row: JobExecution | None) -> bool:
    return (
        row is not None
        and row.stopping_since is None
        and State(row.state) in {State.QUEUED, State.HOLDING}
    )
