"""What the cluster said of tasks, brought into the database in one transaction."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings

from scale.core.cluster import ALIVE, TaskRef, TaskState, TaskUpdate
from scale.core.lifecycle import Event, Phase, State
from scale.core.updates import LOST, LiveExecution, Verdict, judge
from scale.error.models import Error
from scale.failpoints import fail_point
from scale.job.bulk import storable, update_rows
from scale.job.documents import stored_error_mapping
from scale.job.models import JobExecution, JobType
from scale.job.orders import phase_limit
from scale.job.services import Move, lock_executions, move_executions
from scale.scheduler.backoff import note_types
from scale.scheduler.cleanup import is_cleanup, note_cleanups
from scale.scheduler.leader import Leadership
from scale.scheduler.models import SchedulerState
from scale.scheduler.probes import is_probe, note_nodes, note_probes
from scale.scheduler.signs import Ending, Sign, sign_of_node, sign_of_type


@dataclass(slots=True)
class Applied:
    """What is left to do after the updates are stored: kill strays; `ended` frees resources.

    `moves` counts what happened to executions; `back` are agents that were out of reach.
    """

    kills: list[TaskRef] = field(default_factory=list)
    ended: bool = False
    back: set[str] = field(default_factory=set)
    moves: Counter[Event] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What of a job type matters for an update."""

    exit_code_errors: Mapping[int, str]
    uses_docker: bool
    has_failed: bool


def apply_updates(
    updates: Sequence[TaskUpdate], leadership: Leadership, *, now: datetime
) -> Applied:
    """Store what updates mean, all or nothing; the caller acknowledges them afterwards.

    A fixed number of queries for any number of updates, but for those that are about one
    execution: they are applied one after the other.
    """
    applied = Applied()
    waves, errands = _in_waves(updates, applied)
    endings: list[Ending] = []
    with leadership.fenced():
        strays = note_cleanups([each for each in errands if is_cleanup(each.task_id)], now=now)
        strays |= note_probes([each for each in errands if is_probe(each.task_id)], now=now)
        rows = lock_executions(uuids={uuid for wave in waves for uuid in wave})
        by_uuid = {row.uuid: row for row in rows.values()}
        kinds = _kinds(rows.values()) if rows else {}
        framework_id = _framework_id(updates)
        for wave in waves:
            moves: list[Move] = []
            reach: list[JobExecution] = []
            for uuid, update in wave.items():
                row = by_uuid.get(uuid)
                if row is None:
                    _kill_stray(update, applied)
                    continue
                verdict = judge(_live(row, kinds[row.job_type_id], framework_id), update)
                if verdict.kill:
                    applied.kills.append(TaskRef(update.task_id, update.agent_id or row.agent_id))
                if _reach_changed(row, update, verdict, now):
                    reach.append(row)
                moves += _moves(row, update, verdict, now)
            endings += [_ending(rows[move.execution_id], move, kinds) for move in moves]
            _store_reach(reach, applied)
            move_executions(moves, at=now, locked=rows)
            applied.moves.update(move.event for move in moves)
        _note_signs(endings, kinds, now)
        fail_point("before-update-commit")
    applied.ended = any(event is not Event.START for event in applied.moves)
    for update in errands:
        if update.task_id in strays:
            _kill_stray(update, applied)
    applied.ended |= bool(errands)
    return applied


def _in_waves(
    updates: Sequence[TaskUpdate], applied: Applied
) -> tuple[list[dict[UUID, TaskUpdate]], list[TaskUpdate]]:
    """Sort updates into sets with at most one for each execution, in order; errands apart.

    Errands are clean-ups and probes.
    """
    waves: list[dict[UUID, TaskUpdate]] = []
    seen: dict[UUID, int] = defaultdict(int)
    errands = []
    for update in updates:
        if is_cleanup(update.task_id) or is_probe(update.task_id):
            errands.append(update)
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
    return waves, errands


def _kill_stray(update: TaskUpdate, applied: Applied) -> None:
    if update.state in ALIVE and update.agent_id:
        applied.kills.append(TaskRef(update.task_id, update.agent_id))


def _kinds(rows: Iterable[JobExecution]) -> dict[int, _Kind]:
    types = JobType.objects.only("error_mapping", "uses_docker", "launch_failures").in_bulk(
        {row.job_type_id for row in rows}
    )
    return {
        pk: _Kind(
            stored_error_mapping(job_type.error_mapping or {}),
            job_type.uses_docker,
            job_type.launch_failures > 0,
        )
        for pk, job_type in types.items()
    }


def _ending(row: JobExecution, move: Move, kinds: Mapping[int, _Kind]) -> Ending:
    """Note what is about to happen to a row, before the move changes it."""
    return Ending(
        job_id=row.job_id,
        job_type_id=row.job_type_id,
        node_id=row.node_id,
        event=move.event,
        phase=Phase(row.phase),
        uses_docker=kinds[row.job_type_id].uses_docker,
        launches=row.launches,
        exit_code=move.exit_code,
        error=move.error,
    )


def _note_signs(endings: Sequence[Ending], kinds: Mapping[int, _Kind], now: datetime) -> None:
    """Store what the endings say about job types and nodes; little to do while all goes well."""
    names = {ending.error for ending in endings if ending.error}
    system: set[str] = set()
    if names:
        rows = Error.objects.filter(name__in=names, category=Error.Category.SYSTEM)
        system = set(rows.values_list("name", flat=True))
    types, nodes = [], []
    for ending in endings:
        if sign := sign_of_type(ending, system):
            types.append((ending.job_type_id, sign))
        if ending.node_id and (sign := sign_of_node(ending, system)):
            nodes.append((ending.node_id, ending.job_id, sign, ending.error))
    note_nodes(nodes, now=now)
    if any(sign is Sign.BROKEN or kinds[pk].has_failed for pk, sign in types):
        note_types(types, now=now)


def _framework_id(updates: Sequence[TaskUpdate]) -> str:
    """Return the framework that we are now, if it matters; one query, when tasks are gone."""
    if not any(update.state in LOST for update in updates):
        return ""
    return SchedulerState.objects.values_list("framework_id", flat=True).get()


def _live(row: JobExecution, kind: _Kind, framework_id: str) -> LiveExecution:
    launched_by = getattr(row, f"{row.phase}_framework_id")
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
        framework_ended="" not in {launched_by, framework_id} and launched_by != framework_id,
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


def _store_reach(rows: Sequence[JobExecution], applied: Applied) -> None:
    update_rows(rows, ["unreachable_since", "deadline"])
    applied.back |= {row.agent_id for row in rows if row.unreachable_since is None}


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
    return storable(text)


def _deadline(row: JobExecution, event: Event, now: datetime) -> datetime | None:
    """Return when the scheduler must look at the execution again after `event`."""
    if event in {Event.HOLD, Event.BOUNCE_TO_HOLD}:
        return now + timedelta(seconds=settings.SCALE_HOLD_TIMEOUT_S)
    if event is Event.START and not row.stopping_since:
        limit = phase_limit(row)
        return now + limit if limit else None
    return None
