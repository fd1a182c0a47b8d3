"""The only writer of states: moves of executions, and what their jobs become by them.

`new_jobs` begins them. Lock order: a job, then its executions, in the order of job ids.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import F

from scale.core.errors import NotAllowedNow
from scale.core.lifecycle import HAS_TASK, TERMINAL, Event, JobStatus, Phase, State, next_state
from scale.core.resources import Resources
from scale.core.retry import job_status_after, should_retry
from scale.error.models import Error
from scale.job.bulk import update_rows
from scale.job.models import LIVE, ExecutionEvent, Job, JobExecution
from scale.wake import wake_scheduler


@dataclass(frozen=True, slots=True)
class Placed:
    """Where and as what a phase was sent: only with Event.LAUNCH."""

    node_id: int
    agent_id: str
    framework_id: str
    task_id: str
    needs: Resources
    command_arguments: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that happened to an execution.

    `error` names a failure of the catalogue, only with Event.FAIL. `deadline` is when the
    scheduler looks again if nothing more happens.
    """

    execution_id: int
    event: Event
    exit_code: int | None = None
    error: str | None = None
    message: str = ""
    deadline: datetime | None = None
    placed: Placed | None = None


def lock_executions(
    *, ids: Collection[int] | None = None, uuids: Collection[UUID] | None = None
) -> dict[int, JobExecution]:
    """Lock executions and their jobs for this transaction; one query, by execution id.

    Each job is locked before its execution, so that who holds a job may wait for the rest.
    """
    chosen = (
        JobExecution.objects.filter(pk__in=ids)
        if ids is not None
        else JobExecution.objects.filter(uuid__in=uuids or ())
    )
    rows = (
        chosen.select_related("job", "stopping_error")
        .select_for_update(of=("job", "self"))
        .order_by("job_id", "id")
    )
    return {row.pk: row for row in rows}


def move_executions(
    moves: Sequence[Move],
    *,
    at: datetime,
    locked: Mapping[int, JobExecution] | None = None,
) -> list[JobExecution]:
    """Move executions, record the moves and let their jobs follow; return the executions.

    Several moves of one execution are applied in their order. A fixed number of statements,
    however many moves.

    Args:
        at: when it happened; the caller's clock, timezone-aware.
        locked: the rows, if the caller has locked them with `lock_executions` already.

    Raises:
        IllegalTransition: a move is not allowed now; nothing was written.
    """
    if not moves:
        return []
    # Rows that were locked before are in a transaction already, which fails or commits as a whole.
    with transaction.atomic(savepoint=locked is None):
        rows = lock_executions(ids={m.execution_id for m in moves}) if locked is None else locked
        return _move(moves, rows, at)


def _move(
    moves: Sequence[Move], rows: Mapping[int, JobExecution], at: datetime
) -> list[JobExecution]:
    errors = Error.objects.in_bulk({m.error for m in moves if m.error}, field_name="name")
    touched: dict[int, JobExecution] = {}
    history = []
    retries = []
    for move in moves:
        execution = rows[move.execution_id]
        history.append(_apply(execution, move, errors, at))
        touched[execution.pk] = execution
        if _job_follows(execution, at):
            retries.append(execution)
    _store(list(touched.values()), moves, history)
    queue_executions([_retry_of(execution) for execution in retries], at=at)
    return list(touched.values())


def _apply(
    execution: JobExecution, move: Move, errors: Mapping[str, Error], at: datetime
) -> ExecutionEvent:
    """Change the row in memory; return the entry for its history."""
    state = next_state(State(execution.state), move.event)
    task_id, phase = execution.task_id, Phase(execution.phase)
    execution.state = state.value
    execution.last_modified = at
    execution.deadline = move.deadline
    execution.unreachable_since = None
    match move.event:
        case Event.LAUNCH:
            assert move.placed is not None
            _place(execution, move.placed, at)
            task_id = execution.task_id
        case Event.START:
            setattr(execution, f"{phase}_started", at)
        case Event.BOUNCE:
            _unplace(execution)
        case Event.BOUNCE_TO_HOLD:
            execution.task_id = ""
            setattr(execution, f"{phase}_task_id", "")
            setattr(execution, f"{phase}_framework_id", "")
        case _:
            _end_phase(execution, move, at)
    if move.event is Event.HOLD:
        # It ended well before the kill for its time-out came through.
        execution.stopping_since = execution.stopping_error = None
        execution.phase = (Phase.JOB if phase is Phase.PRE else Phase.POST).value
    if state in TERMINAL:
        _end(execution, move, errors, at)
    return ExecutionEvent(
        execution_id=execution.pk,
        at=at,
        event=move.event.value,
        state=state.value,
        phase=phase.value,
        task_id=task_id,
        message=move.message,
    )


def _place(execution: JobExecution, placed: Placed, at: datetime) -> None:
    execution.node_id = placed.node_id
    execution.agent_id = placed.agent_id
    execution.task_id = placed.task_id
    setattr(execution, f"{execution.phase}_task_id", placed.task_id)
    setattr(execution, f"{execution.phase}_framework_id", placed.framework_id)
    execution.launches += 1
    execution.command_arguments = placed.command_arguments
    execution.environment = dict(placed.environment)
    if execution.started is None:
        execution.started = at
        execution.cpus_scheduled = placed.needs.millicpus / 1000
        execution.mem_scheduled = float(placed.needs.mem_mib)
        execution.disk_in_scheduled = execution.job.disk_in_required
        execution.disk_out_scheduled = execution.job.disk_out_required
        execution.disk_total_scheduled = float(placed.needs.disk_mib)


def _unplace(execution: JobExecution) -> None:
    execution.node_id = None
    execution.agent_id = execution.task_id = ""
    setattr(execution, f"{execution.phase}_task_id", "")
    setattr(execution, f"{execution.phase}_framework_id", "")
    execution.started = None
    execution.cpus_scheduled = execution.mem_scheduled = None
    execution.disk_in_scheduled = execution.disk_out_scheduled = None
    execution.disk_total_scheduled = None


def _end_phase(execution: JobExecution, move: Move, at: datetime) -> None:
    phase = execution.phase
    if execution.task_id:
        if getattr(execution, f"{phase}_started") is None and move.exit_code is not None:
            setattr(execution, f"{phase}_started", at)  # its start was never reported
        if getattr(execution, f"{phase}_started") is not None:
            setattr(execution, f"{phase}_completed", at)
        setattr(execution, f"{phase}_exit_code", move.exit_code)
    execution.task_id = ""


def _end(execution: JobExecution, move: Move, errors: Mapping[str, Error], at: datetime) -> None:
    execution.ended = at
    execution.deadline = execution.stopping_since = None
    execution.logs_owed = execution.launches > 0
    execution.error = errors[move.error] if move.error else None
    if move.event is Event.FAIL and not execution.error_message:
        execution.error_message = move.message
    # A post phase that ended well has removed the work folder, or has said that it could not.
    if move.event is not Event.FINISH and execution.has_steps and execution.agent_id:
        execution.cleanup_owed = True


def _job_follows(execution: JobExecution, at: datetime) -> bool:
    """Give the job the status that follows from the move; return whether to try again."""
    job = execution.job
    canceled = job.status == JobStatus.CANCELED
    will_retry = execution.error is not None and should_retry(
        should_be_retried=execution.error.should_be_retried,
        exe_num=execution.exe_num,
        max_tries=job.max_tries,
        canceled=canceled,
    )
    state = State(execution.state)
    status = job_status_after(state, will_retry=will_retry, canceled=canceled)
    if will_retry or status == job.status:
        return will_retry
    if status is JobStatus.COMPLETED:
        job.results = execution.results
    if status is JobStatus.FAILED:
        job.error = execution.error
    started = None if status is JobStatus.QUEUED else job.started or execution.started
    _set_job(job, status, at, started=started, ended=at if state in TERMINAL else None)
    return False


def _set_job(
    job: Job,
    status: JobStatus,
    at: datetime,
    *,
    started: datetime | None = None,
    ended: datetime | None = None,
) -> None:
    job.status = status.value
    job.started, job.ended = started, ended
    job.last_status_change = job.last_modified = at


_ENDING = ("error", "error_message", "ended", "stopping_since", "logs_owed", "cleanup_owed")
_TASK = tuple(f"{phase}_{what}_id" for phase in Phase for what in ("task", "framework"))
_PLACING = (
    "node",
    "agent_id",
    "started",
    "launches",
    "cpus_scheduled",
    "mem_scheduled",
    "disk_in_scheduled",
    "disk_out_scheduled",
    "disk_total_scheduled",
    *_TASK,
)
_PHASE_ENDING = tuple(
    f"{phase}_{what}" for phase in Phase for what in ("started", "completed", "exit_code")
)
_ALWAYS = ("state", "phase", "task_id", "deadline", "unreachable_since", "last_modified")
#: What a move may change besides what every move changes.
_FIELDS: Final[Mapping[Event, tuple[str, ...]]] = {
    Event.LAUNCH: (*_PLACING, "command_arguments", "environment"),
    Event.START: tuple(f"{phase}_started" for phase in Phase),
    Event.HOLD: (*_PHASE_ENDING, "stopping_since", "stopping_error"),
    Event.FINISH: (*_PHASE_ENDING, *_ENDING),
    Event.FAIL: (*_PHASE_ENDING, *_ENDING),
    Event.CANCEL: (*_PHASE_ENDING, *_ENDING),
    Event.BOUNCE: _PLACING,
    Event.BOUNCE_TO_HOLD: _TASK,
}
_JOB_FIELDS = (
    "status",
    "error",
    "started",
    "ended",
    "last_status_change",
    "last_modified",
    "results",
)


def _store(
    executions: Sequence[JobExecution], moves: Sequence[Move], history: list[ExecutionEvent]
) -> None:
    fields = {name for move in moves for name in _FIELDS[move.event]}
    update_rows(executions, [*_ALWAYS, *sorted(fields)])
    changes_job = {move.execution_id for move in moves if move.event not in _JOB_STAYS}
    update_rows([row.job for row in executions if row.pk in changes_job], _JOB_FIELDS)
    ExecutionEvent.objects.bulk_create(history)


_JOB_STAYS = frozenset({Event.START, Event.HOLD, Event.BOUNCE_TO_HOLD})


def _retry_of(failed: JobExecution) -> JobExecution:
    return new_execution(failed.job, needs=needs_of(failed), has_steps=failed.has_steps)


def needs_of(execution: JobExecution) -> Resources:
    """Return what placement asks for this execution."""
    return Resources(execution.needs_millicpus, execution.needs_mem_mib, execution.needs_disk_mib)


def new_execution(job: Job, *, needs: Resources, has_steps: bool) -> JobExecution:
    """Return the next attempt of a job, not stored yet; `queue_executions` stores it."""
    return JobExecution(
        job=job,
        job_type_id=job.job_type_id,
        exe_num=job.num_exes + 1,
        phase=(Phase.PRE if has_steps else Phase.JOB).value,
        has_steps=has_steps,
        priority=job.priority,
        needs_millicpus=needs.millicpus,
        needs_mem_mib=needs.mem_mib,
        needs_disk_mib=needs.disk_mib,
        timeout=job.timeout,
    )


@transaction.atomic(savepoint=False)
def queue_executions(executions: Sequence[JobExecution], *, at: datetime) -> None:
    """Store new attempts as queued, with their jobs, and wake the scheduler on commit.

    The jobs are stored and locked by the caller, or new in this transaction.
    """
    if not executions:
        return
    for execution in executions:
        execution.state = State.QUEUED.value
        execution.created = execution.queued = execution.last_modified = at
        job = execution.job
        job.num_exes = execution.exe_num
        job.queued = at
        job.error = None
        _set_job(job, JobStatus.QUEUED, at)
    JobExecution.objects.bulk_create(executions)
    ExecutionEvent.objects.bulk_create(
        ExecutionEvent(
            execution=execution,
            at=at,
            event=ExecutionEvent.CREATE,
            state=execution.state,
            phase=execution.phase,
        )
        for execution in executions
    )
    update_rows(
        [execution.job for execution in executions],
        [*_JOB_FIELDS, "num_exes", "queued", "priority", "max_tries"],
    )
    wake_scheduler()


def cancel_job(job_id: int, *, at: datetime) -> Job:
    """Cancel a job at once; its live task is killed and its execution ends when that is gone.

    Raises:
        Job.DoesNotExist: no such job.
        NotAllowedNow: it has completed, failed or was canceled already; nothing was written.
    """
    return _only(job_id, cancel_jobs([job_id], at=at))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of jobs that were to change; those that do not exist are in neither.

    `refused` maps the ids of jobs that were left as they are to the reason.
    """

    done: list[Job]
    refused: dict[int, str]


def _only(job_id: int, outcome: Outcome) -> Job:
    if job_id in outcome.refused:
        raise NotAllowedNow(outcome.refused[job_id])
    if not outcome.done:
        raise Job.DoesNotExist
    return outcome.done[0]


@transaction.atomic
def cancel_jobs(job_ids: Collection[int], *, at: datetime) -> Outcome:
    """Cancel these jobs, as `cancel_job`, except those that have ended.

    A fixed number of statements.
    """
    ended = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED}
    jobs = _lock_jobs(job_ids)
    chosen = {job.pk: job for job in jobs if job.status not in ended}
    refused = {
        job.pk: f"job {job.pk} is {job.status} and cannot be canceled"
        for job in jobs
        if job.pk not in chosen
    }
    if not chosen:
        return Outcome([], refused)
    live = _lock_live(chosen)
    waiting = {row.pk: row for row in live if State(row.state) not in HAS_TASK}
    move_executions(
        [Move(pk, Event.CANCEL, message="canceled by a user") for pk in waiting],
        at=at,
        locked=waiting,
    )
    follow = {row.job_id for row in waiting.values()}
    rest = [job for job in chosen.values() if job.pk not in follow]
    for job in rest:
        _set_job(job, JobStatus.CANCELED, at, started=job.started, ended=at)
    update_rows(rest, _JOB_FIELDS)
    stop_executions([row for row in live if row.pk not in waiting], error=None, at=at)
    wake_scheduler()
    return Outcome(list(chosen.values()), refused)


def _lock_jobs(job_ids: Collection[int]) -> list[Job]:
    return list(Job.objects.select_for_update().filter(pk__in=job_ids).order_by("id"))


def _lock_live(jobs: Mapping[int, Job]) -> list[JobExecution]:
    """Lock the live executions of locked jobs, which nobody can move then."""
    live = list(
        JobExecution.objects.select_for_update()
        .filter(job_id__in=jobs, state__in=LIVE)
        .order_by("job_id")
    )
    for execution in live:
        execution.job = jobs[execution.job_id]
    return live


def stop_executions(
    executions: Iterable[JobExecution], *, error: Error | None, at: datetime
) -> None:
    """Note that the tasks of these locked executions are to be killed.

    `error` is why they fail; None means that their jobs were canceled. A cancel overrides an
    error, never the other way round.
    """
    changed = []
    for execution in executions:
        if execution.stopping_since and (error or execution.stopping_error_id is None):
            continue
        execution.stopping_since = execution.stopping_since or at
        execution.stopping_error = error
        if not execution.unreachable_since:  # else the patience with its node ends then
            execution.deadline = None
        execution.last_modified = at
        changed.append(execution)
    update_rows(changed, ["stopping_since", "stopping_error", "deadline", "last_modified"])


def requeue_job(job_id: int, *, at: datetime, priority: int | None = None) -> Job:
    """Try a failed or canceled job again; it gets at least one more attempt.

    Raises:
        Job.DoesNotExist: no such job.
        NotAllowedNow: it has not failed and was not canceled, or its last task is still being
            killed; nothing was written.
    """
    return _only(job_id, requeue_jobs([job_id], at=at, priority=priority))


@transaction.atomic
def requeue_jobs(job_ids: Collection[int], *, at: datetime, priority: int | None = None) -> Outcome:
    """Try these jobs again, as `requeue_job`, except those that may not be.

    A fixed number of statements.
    """
    jobs = _lock_jobs(job_ids)
    last = JobExecution.objects.filter(job_id__in=job_ids, exe_num=F("job__num_exes"))
    attempts = {execution.job_id: execution for execution in last}
    done, refused, next_attempts = [], {}, []
    for job in jobs:
        execution = attempts[job.pk]
        if job.status not in {JobStatus.FAILED, JobStatus.CANCELED}:
            refused[job.pk] = f"job {job.pk} is {job.status}; only FAILED and CANCELED requeue"
        elif execution.state in LIVE:
            refused[job.pk] = f"job {job.pk} is still being stopped; try again in a moment"
        else:
            job.max_tries = max(job.max_tries, job.num_exes + 1)
            job.priority = job.priority if priority is None else priority
            done.append(job)
            next_attempts.append(
                new_execution(job, needs=needs_of(execution), has_steps=execution.has_steps)
            )
    queue_executions(next_attempts, at=at)
    return Outcome(done, refused)
