"""Stores new jobs, each with its first attempt in the queue: one statement, however many.

It is the beginning of every history; what comes after is written by `services` alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, Final

import orjson
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from scale.core.lifecycle import JobStatus, State
from scale.job.models import (
    ExecutionEvent,
    Job,
    JobExecution,
    JobType,
    JobTypeRevision,
    TriggerEvent,
)
from scale.job.rows import columns_of, execute_prepared, fields_of, row_of
from scale.wake import WORK_CHANNEL


def _column(kind: str) -> Any:
    return field(metadata={"kind": kind})


@dataclass(slots=True)
class Draft:
    """What of a job and its first attempt is not the same for all; the fields of both models."""

    job_type_id: int = _column("bigint")
    revision_num: int = _column("integer")
    name: str = _column("text")
    priority: int = _column("integer")
    timeout: int = _column("integer")
    max_tries: int = _column("integer")
    cpus_required: float = _column("double precision")
    mem_required: float = _column("double precision")
    disk_in_required: float = _column("double precision")
    disk_out_required: float = _column("double precision")
    data: Mapping[str, Any] = _column("jsonb")
    phase: str = _column("text")
    has_steps: bool = _column("boolean")
    needs_millicpus: int = _column("integer")
    needs_mem_mib: int = _column("integer")
    needs_disk_mib: int = _column("integer")


def store_jobs(drafts: Sequence[Draft], *, user: str, at: datetime) -> list[int]:
    """Store jobs and queue them, all or none; return their ids, which rise in this order.

    One statement, which is a transaction of its own if there is none. Raises DataError for a
    number that its column cannot hold.
    """
    with connection.cursor() as cursor:
        _execute(cursor, drafts, user, at, whole=False)
        return [job_id for (job_id,) in cursor.fetchall()]


def store_and_read_job(
    draft: Draft, job_type: JobType, *, user: str, at: datetime
) -> tuple[Job, JobExecution]:
    """Store a job as `store_jobs`; return it and its attempt as they are stored.

    The job comes with its type, revision and event, without another statement.
    """
    with connection.cursor() as cursor:
        _execute(cursor, [draft], user, at, whole=True)
        row = cursor.fetchone()
    revision_created, *values = row
    job = row_of(Job, values[: len(fields_of(Job))])
    job.job_type = job_type
    job.job_type_rev = JobTypeRevision(
        pk=job.job_type_rev_id,
        job_type=job_type,
        revision_num=draft.revision_num,
        interface=job_type.interface,
        created=revision_created,
    )
    job.event = TriggerEvent(
        pk=job.event_id, type=_USER, description={"user": user}, occurred=job.created
    )
    execution = row_of(JobExecution, values[len(fields_of(Job)) :])
    execution.job = job
    return job, execution


_USER: Final = "USER"
#: Column -> what goes into it, of those that do not have the default of the model.
_SAME: Final = {each.name: f"given.{each.name}" for each in fields(Draft)}
_NOW: Final = "event.occurred"
_JOB: Final = {
    **{
        name: _SAME[name]
        for name in (
            *("job_type_id", "name", "priority", "timeout", "max_tries", "data"),
            *("cpus_required", "mem_required", "disk_in_required", "disk_out_required"),
        )
    },
    "id": "given.job_id",
    "job_type_rev_id": "given.job_type_rev_id",
    "event_id": "event.id",
    "status": f"'{JobStatus.QUEUED.value}'",
    "num_exes": "1",
    **dict.fromkeys(("created", "queued", "last_status_change", "last_modified"), _NOW),
}
_EXECUTION: Final = {
    **{
        name: _SAME[name]
        for name in (
            *("job_type_id", "priority", "timeout", "phase", "has_steps"),
            *("needs_millicpus", "needs_mem_mib", "needs_disk_mib"),
        )
    },
    "id": "given.execution_id",
    "job_id": "given.job_id",
    "uuid": "overlay(gen_random_uuid()::text PLACING $4 FROM 1 FOR length($4))::uuid",
    "exe_num": "1",
    "state": f"'{State.QUEUED.value}'",
    **dict.fromkeys(("created", "queued", "last_modified"), _NOW),
}
_HISTORY: Final = {
    "execution_id": "given.execution_id",
    "at": _NOW,
    "event": f"'{ExecutionEvent.CREATE}'",
    "state": f"'{State.QUEUED.value}'",
    "phase": "given.phase",
}


def _execute(
    cursor: CursorWrapper, drafts: Sequence[Draft], user: str, at: datetime, *, whole: bool
) -> None:
    text, defaults = _statement(whole=whole)
    # As one document: for a thousand rows that is read faster than as many literals.
    given = [_document(drafts), json.dumps({"user": user}), at, _head_of_uuids(at)]
    execute_prepared(cursor, text, given, defaults)


def _head_of_uuids(at: datetime) -> str:
    """Return how a UUID of version 7 of that time begins (RFC 9562, 5.7); the rest is random.

    Neighbours in time are neighbours in the index. Wholly random ones change a page for each row,
    and each of those is read, and written whole to the log: twice the cost with ten million rows.
    """
    milliseconds = f"{int(at.timestamp() * 1000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7"


def _document(drafts: Sequence[Draft]) -> str:
    try:
        return orjson.dumps(drafts).decode()
    except orjson.JSONEncodeError:  # it takes no numbers of more than 64 bits
        return json.dumps([asdict(draft) for draft in drafts])


@cache
def _statement(*, whole: bool) -> tuple[str, dict[str, Any]]:
    """Return the statement and those of its parameters that never change.

    Ids are taken before the rows are written, so that the rows know each other's. Foreign keys
    are checked at the end, so that the order of the parts does not matter.
    """
    defaults: dict[str, Any] = {}
    kinds = ", ".join(f"{each.name} {each.metadata['kind']}" for each in fields(Draft))
    returning, columns, source = "", "job_id", "given"
    if whole:
        returning, source = "RETURNING *", "given, stored, attempt"
        columns = ", ".join(
            ["revision_created", columns_of(Job, "stored"), columns_of(JobExecution, "attempt")]
        )
    text = f"""
        WITH event AS (
            INSERT INTO trigger_event (type, description, occurred)
            VALUES ('{_USER}', $2, $3) RETURNING id, occurred
        ), draft AS MATERIALIZED (
            SELECT draft.*,
                nextval((SELECT pg_get_serial_sequence('job', 'id')::regclass)) AS job_id,
                nextval((SELECT pg_get_serial_sequence('job_execution', 'id')::regclass))
                    AS execution_id
            FROM json_to_recordset($1) AS draft ({kinds})
        ), given AS MATERIALIZED (
            SELECT draft.*, revision.id AS job_type_rev_id, revision.created AS revision_created
            FROM draft LEFT JOIN job_type_revision AS revision USING (job_type_id, revision_num)
        ),
        stored AS ({_insert(Job, _JOB, defaults)} {returning}),
        attempt AS ({_insert(JobExecution, _EXECUTION, defaults)} {returning}),
        history AS ({_insert(ExecutionEvent, _HISTORY, defaults)}),
        wake AS MATERIALIZED (SELECT pg_notify('{WORK_CHANNEL}', ''))
        SELECT {columns} FROM {source}, wake ORDER BY given.job_id
    """  # noqa: S608 - all names are ours
    return text, defaults


def _insert(model: type[Model], given: Mapping[str, str], defaults: dict[str, Any]) -> str:
    """Return an INSERT; what the models have for columns that are not given goes to `defaults`."""
    sources = dict(given)
    table = model._meta.db_table
    for each in fields_of(model):
        column = str(each.column)
        if column in sources or each.primary_key or each.generated:
            continue
        default = each.get_db_prep_save(each.get_default(), connection)
        if default is not None:
            name = f"{table}_{column}"
            sources[column] = f"%({name})s"
            defaults[name] = default
    return (
        f"INSERT INTO {table} ({', '.join(sources)}) "  # noqa: S608 - names come from the model
        f"SELECT {', '.join(sources.values())} FROM given, event"
    )
