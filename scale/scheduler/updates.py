"""What the cluster said of tasks, brought into the database in one transaction."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings

from scale.core.cluster import ALIVE, TaskRef, TaskState, TaskUpdate
from scale.core.lifecycle import HAS_TASK, Event, Phase, State
from scale.core.updates import LiveExecution, Verdict, judge
from scale.job.bulk import update_rows
from scale.job.documents import read_error_mapping
from scale.job.models import JobExecution, JobType
from scale.job.orders import phase_limit
from scale.job.services import Move, lock_executions, move_executions
from scale.scheduler.cleanup import CLEANUP_PREFIX, note_cleanups
from scale.scheduler.leader import Leadership


@dataclass(slots=True)
class Applied:
    """What is left to do after the updates are stored: kill strays; `ended` frees resources."""

    kills: list[TaskRef] = field(default_factory=list)
    ended: bool = False


def apply_updates(
    updates: Sequence[TaskUpdate], leadership: Leadership, *, now: datetime
) -> Applied:
    """Store what updates mean, all or nothing; the caller acknowledges them afterwards.

    A fixed number of queries for any number of updates, but for those that are about one
    execution: they are applied one after the other.
    """
    applied = Applied()
    waves, cleanups = _in_waves(updates, applied)
    with leadership.fenced():
        note_cleanups(cleanups)
        rows = lock_executions(uuids={uuid for wave in waves for uuid in wave})
        by_uuid = {row.uuid: row for row in rows.values()}
        types = _job_types(rows.values()) if rows else {}
        for wave in waves:
            moves = []
            for uuid, update in wave.items():
                row = by_uuid.get(uuid)
                if row is None:
                    _kill_stray(update, applied)
                    continue
                moves += _moves(row, types[row.job_type_id], update, applied, now)
            move_executions(moves, at=now, locked=rows)
            applied.ended |= any(move.event is not Event.START for move in moves)
    applied.ended |= bool(cleanups)
    return applied


def _in_waves(
    updates: Sequence[TaskUpdate], applied: Applied
) -> tuple[list[dict[UUID, TaskUpdate]], list[TaskUpdate]]:
    """Sort updates into sets with at most one for each execution, in order; clean-ups apart."""
    waves: list[dict[UUID, TaskUpdate]] = []
    seen: dict[UUID, int] = defaultdict(int)
    cleanups = []
    for update in updates:
        if update.task_id.startswith(CLEANUP_PREFIX):
            cleanups.append(update)
            continue
        try:
            uuid = UUID(update.task_id.partition(".")[0])
        except ValueError:
            _kill_stray(update, applied)
            continue
        wave = seen[uuid]
        seen[uuid] += 1
        if wave == len(waves):
            waves.append({})
        waves[wave][uuid] = update
    return waves, cleanups


def _kill_stray(update: TaskUpdate, applied: Applied) -> None:
    if update.state in ALIVE and update.agent_id:
        applied.kills.append(TaskRef(update.task_id, update.agent_id))


def _job_types(rows: Iterable[JobExecution]) -> dict[int, JobType]:
    ids = {row.job_type_id for row in rows}
    return JobType.objects.only("error_mapping", "uses_docker").in_bulk(ids)


def _moves(
    row: JobExecution, job_type: JobType, update: TaskUpdate, applied: Applied, now: datetime
) -> list[Move]:
    verdict = judge(_live(row, job_type), update)
    if verdict.kill:
        applied.kills.append(TaskRef(update.task_id, update.agent_id or row.agent_id))
    if verdict.unreachable:
        _out_of_reach(row, now)
    elif row.unreachable_since and update.state in ALIVE and update.task_id == row.task_id:
        _back_in_reach(row, now)
    if verdict.event is None:
        return []
    return [
        Move(
            row.pk,
            verdict.event,
            exit_code=verdict.exit_code,
            error=verdict.error,
            message=_message(verdict, update),
            deadline=_deadline(row, verdict.event, now),
        )
    ]


def _live(row: JobExecution, job_type: JobType) -> LiveExecution:
    return LiveExecution(
        state=State(row.state),
        phase=Phase(row.phase),
        first_phase=row.first_phase,
        last_phase=row.last_phase,
        task_id=row.task_id,
        exit_code_errors=read_error_mapping(job_type.error_mapping or {}),
        stopping=row.stopping_since is not None,
        stopping_error=row.stopping_error.name if row.stopping_error else None,
        uses_docker=job_type.uses_docker,
    )


def _message(verdict: Verdict, update: TaskUpdate) -> str:
    if verdict.message or verdict.event is Event.START:
        return verdict.message
    return "" if update.state is TaskState.FINISHED else update.state.value


def _deadline(row: JobExecution, event: Event, now: datetime) -> datetime | None:
    """Return when the scheduler must look at the execution again after `event`."""
    if row.stopping_since:
        return None
    if event is Event.START:
        limit = phase_limit(row)
        return now + limit if limit else None
    if event in {Event.HOLD, Event.BOUNCE_TO_HOLD}:
        return now + timedelta(seconds=settings.SCALE_HOLD_TIMEOUT_S)
    return None


def _out_of_reach(row: JobExecution, now: datetime) -> None:
    if row.unreachable_since is None:
        row.unreachable_since = now
        row.deadline = now + timedelta(seconds=settings.SCALE_UNREACHABLE_GRACE_S)
        update_rows([row], ["unreachable_since", "deadline"])


def _back_in_reach(row: JobExecution, now: datetime) -> None:
    """Take up the phase's deadline again; the time out of reach counts."""
    row.unreachable_since = None
    started = getattr(row, f"{row.phase}_started")
    limit = phase_limit(row)
    row.deadline = started + limit if started and limit and State(row.state) in HAS_TASK else None
    update_rows([row], ["unreachable_since", "deadline"])
