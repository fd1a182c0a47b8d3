"""What the cluster said of tasks, brought into the database in one transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings

from scale.core.cluster import ALIVE, TaskRef, TaskState, TaskUpdate
from scale.core.lifecycle import Event, Phase, State
from scale.core.updates import LiveExecution, Verdict, judge
from scale.failpoints import fail_point
from scale.job.bulk import update_rows
from scale.job.documents import read_error_mapping
from scale.job.models import JobExecution, JobType
from scale.job.orders import phase_limit
from scale.job.services import Move, lock_executions, move_executions
from scale.scheduler.cleanup import is_cleanup, note_cleanups
from scale.scheduler.leader import Leadership


@dataclass(slots=True)
class Applied:
    """What is left to do after the updates are stored: kill strays; `ended` frees resources."""

    kills: list[TaskRef] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Kind:
    """What of a job type matters for an update."""

    exit_code_errors: Mapping[int, str]
    uses_docker: bool


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
        strays = note_cleanups(cleanups)
        rows = lock_executions(uuids={uuid for wave in waves for uuid in wave})
        by_uuid = {row.uuid: row for row in rows.values()}
        kinds = _kinds(rows.values()) if rows else {}
        for wave in waves:
            moves: list[Move] = []
            reach: list[JobExecution] = []
            for uuid, update in wave.items():
                row = by_uuid.get(uuid)
                if row is None:
                    _kill_stray(update, applied)
                    continue
                verdict = judge(_live(row, kinds[row.job_type_id]), update)
                if verdict.kill:
                    applied.kills.append(TaskRef(update.task_id, update.agent_id or row.agent_id))
                if _reach_changed(row, update, verdict, now):
                    reach.append(row)
                moves += _moves(row, update, verdict, now)
            update_rows(reach, ["unreachable_since", "deadline"])
            move_executions(moves, at=now, locked=rows)
            applied.ended |= any(move.event is not Event.START for move in moves)
        fail_point("before-update-commit")
    for update in cleanups:
        if update.task_id in strays:
            _kill_stray(update, applied)
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
        if is_cleanup(update.task_id):
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


def _kinds(rows: Iterable[JobExecution]) -> dict[int, _Kind]:
    types = JobType.objects.only("error_mapping", "uses_docker").in_bulk(
        {row.job_type_id for row in rows}
    )
    return {
        pk: _Kind(read_error_mapping(job_type.error_mapping or {}), job_type.uses_docker)
        for pk, job_type in types.items()
    }


def _live(row: JobExecution, kind: _Kind) -> LiveExecution:
    return LiveExecution(
        state=State(row.state),
        phase=Phase(row.phase),
        first_phase=row.first_phase,
        last_phase=row.last_phase,
        task_id=row.task_id,
        exit_code_errors=kind.exit_code_errors,
        stopping=row.stopping_since is not None,
        stopping_error=row.stopping_error.name if row.stopping_error else None,
        uses_docker=kind.uses_docker,
    )


def _reach_changed(row: JobExecution, update: TaskUpdate, verdict: Verdict, now: datetime) -> bool:
    """Note on the row that its node went out of reach or came back; return whether it did."""
    if verdict.unreachable and row.unreachable_since is None:
        row.unreachable_since = now
        row.deadline = now + timedelta(seconds=settings.SCALE_UNREACHABLE_GRACE_S)
        return True
    ours = update.state in ALIVE and update.task_id == row.task_id
    if ours and row.unreachable_since:
        row.unreachable_since = None
        row.deadline = _deadline_of_task(row, now)
        return True
    return False


def _deadline_of_task(row: JobExecution, now: datetime) -> datetime | None:
    """Return the deadline of a task that came back; the time out of reach counts."""
    if row.stopping_since:
        return None
    started, limit = getattr(row, f"{row.phase}_started"), phase_limit(row)
    if started is None:
        return now + timedelta(seconds=settings.SCALE_STAGING_TIMEOUT_S)
    return started + limit if limit else None


def _moves(row: JobExecution, update: TaskUpdate, verdict: Verdict, now: datetime) -> list[Move]:
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


def _message(verdict: Verdict, update: TaskUpdate) -> str:
    text = verdict.message
    if not text and update.state is not TaskState.FINISHED and verdict.event is not Event.START:
        text = update.state.value
    # What PostgreSQL does not take as text, and what could so stop every later update.
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _deadline(row: JobExecution, event: Event, now: datetime) -> datetime | None:
    """Return when the scheduler must look at the execution again after `event`."""
    if event in {Event.HOLD, Event.BOUNCE_TO_HOLD}:
        return now + timedelta(seconds=settings.SCALE_HOLD_TIMEOUT_S)
    if event is Event.START and not row.stopping_since:
        limit = phase_limit(row)
        return now + limit if limit else None
    return None
