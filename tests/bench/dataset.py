"""Ten million executions in minutes: what `make bench-rest` measures on.

Rows are made here and streamed into COPY; tables have no secondary indexes meanwhile. Each row
follows from its number alone, so that two builds are the same.

Of the jobs, the last quarter of the submitted is mostly still waiting, and each twentieth failed
once and was tried again; a thousand nodes have eight tasks each at most. So about 80 % of the
executions have ended. There is a history for each twentieth job.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from multiprocessing import get_context
from typing import Any, BinaryIO, Final

from django.db import connection, models, transaction

TYPE_NAMES: Final = 100
VERSIONS: Final = ("1.0", "2.0")
CATEGORIES: Final = 10
NODES: Final = 1000
_RUNNING: Final = NODES * 8
_DAYS: Final = 90
_PER_EVENT: Final = 10
_WITH_HISTORY: Final = 20
_BLOCK: Final = 5000
_REASONS: Final = ("INSUFFICIENT_CPUS", "INSUFFICIENT_MEM")
_NULL: Final = "~"
#: From node_id to the end of a line, for what never got to a node.
_NEVER_RAN: Final = "\t".join([_NULL, "", "", "0", _NULL, _NULL, "", *[_NULL] * 7]) + "\n"
_CODES: Final = {"RUNNING": _NULL, "COMPLETED": "0", "FAILED": "1"}
#: An odd number: its multiples spread evenly over 128 bits, as random UUIDs do.
_SPREAD: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835
_NEEDS: Final = ((1000, 1024, 64), (500, 512, 64), (2000, 4096, 1024), (100, 256, 10))

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cast:
    """Ids of what rows refer to."""

    types: list[int]
    revisions: list[int]
    nodes: list[int]
    retried: list[int]
    final: list[int]


def build(executions: int, report: Report) -> None:
    """Fill the database, which is migrated and otherwise empty, and tell what takes long."""
    from scale.job.tallies import correct_tallies, fold

    began = time.monotonic()

    def told(what: str) -> None:
        report(f"{time.monotonic() - began:6.0f} s  {what}")

    cast = _make_cast()
    rows = Rows(jobs=executions * 80 // 83, cast=cast)
    tables = _tables(rows)
    with _without_indexes([model for model, _, _ in tables], told), transaction.atomic():
        # Emptied in the same transaction, they need not be vacuumed (FREEZE).
        names = ", ".join(model._meta.db_table for model, _, _ in tables)
        _execute(f"TRUNCATE {names} CASCADE")
        for model, columns, lines in tables:
            _copy(model, columns, lines)
            told(f"{model._meta.db_table} is filled")
    # Else it would begin by itself while we measure.
    _execute("VACUUM (ANALYZE)")
    told("vacuumed and analyzed")
    correct_tallies()
    while fold(10_000):
        pass
    told("counted")


def _make_cast() -> Cast:
    from scale.error.models import Error
    from scale.job.models import JobType, JobTypeRevision
    from scale.job.submission import create_job_type
    from scale.node.models import Node
    from scale.scheduler.models import WaitingShape

    for number in range(TYPE_NAMES):
        for version in VERSIONS:
            create_job_type(_job_type(number, version))
    Node.objects.bulk_create(
        Node(
            hostname=f"node-{number:04d}.example",
            port=5051,
            slave_id=f"agent-{number:04d}",
            address="127.0.0.1",
            millicpus_total=32_000,
            mem_mib_total=131_072,
            disk_mib_total=1_000_000,
        )
        for number in range(NODES)
    )
    types = list(JobType.objects.order_by("id").values_list("id", flat=True))
    now = datetime.now(UTC)
    WaitingShape.objects.bulk_create(
        WaitingShape(
            job_type_id=key,
            needs_millicpus=millicpus,
            needs_mem_mib=mem_mib,
            needs_disk_mib=disk_mib,
            code=_REASONS[index % len(_REASONS)],
            message="asks more than there is",
            since=now,
        )
        for index, key in enumerate(types)
        for millicpus, mem_mib, disk_mib in [_NEEDS[index // len(VERSIONS) % len(_NEEDS)]]
    )
    revisions = dict(JobTypeRevision.objects.values_list("job_type_id", "id"))
    errors = Error.objects.order_by("id")
    return Cast(
        types=types,
        revisions=[revisions[key] for key in types],
        nodes=list(Node.objects.order_by("id").values_list("id", flat=True)),
        retried=list(errors.filter(should_be_retried=True).values_list("id", flat=True)),
        final=list(errors.filter(should_be_retried=False).values_list("id", flat=True)),
    )


def _job_type(number: int, version: str) -> dict[str, Any]:
    millicpus, mem_mib, disk_mib = _NEEDS[number % len(_NEEDS)]
    return {
        "name": f"type-{number:03d}",
        "version": version,
        "title": f"Type {number}",
        "category": f"category-{number % CATEGORIES}",
        "cpus_required": millicpus / 1000,
        "mem_required": float(mem_mib),
        "disk_out_const_required": float(disk_mib),
        "interface": {
            "command": "/bin/sh",
            "command_arguments": "run.sh ${x}",
            "input_data": [
                {"name": "x", "type": "property", "value_type": "number", "required": False}
            ],
        },
    }


class Rows:
    """Makes the lines of all tables; a job's facts follow from its number."""

    def __init__(self, jobs: int, cast: Cast) -> None:
        self.jobs = jobs
        self._cast = cast
        self._end = datetime.now(UTC).replace(microsecond=0)
        self._begin = self._end - timedelta(days=_DAYS)
        minutes = _DAYS * 24 * 60
        self._minutes = [
            (self._begin + timedelta(minutes=each)).strftime("%Y-%m-%d %H:%M:")
            for each in range(minutes + 1)
        ]
        self._waiting_from = jobs - jobs * 25 // 100
        self._running_from = max(0, self._waiting_from - min(_RUNNING, jobs // 100))

    def _time(self, number: int, later_s: int = 0) -> str:
        """Return when a job was submitted, or so many seconds later, but not in the future."""
        most = _DAYS * 86_400 - 1
        second = min(most, number * (most - 7200) // self.jobs + later_s)
        return f"{self._minutes[second // 60]}{second % 60:02d}.{number % 1000:03d}+00"

    def _facts(self, number: int) -> tuple[str, int, int]:
        """Return what became of a job, a number at random, and how many attempts it has had."""
        chance = (number * 2_654_435_761 + 12_345) & 0xFFFFFFFF
        attempts = 2 if number % 20 == 7 and number < self._waiting_from else 1
        if number >= self._waiting_from and chance % 100 < 78:
            return "QUEUED", chance, attempts
        if self._running_from <= number < self._waiting_from:
            return "RUNNING", chance, attempts
        part = (chance >> 12) % 100
        status = "COMPLETED" if part < 86 else "FAILED" if part < 97 else "CANCELED"
        return status, chance, attempts

    def events(self) -> Iterator[str]:
        for number in range(0, self.jobs, _PER_EVENT):
            key = number // _PER_EVENT + 1
            yield f'{key}\tUSER\t{{"user": "bench"}}\t{self._time(number)}\n'

    def job_lines(self) -> Iterator[str]:
        cast, types = self._cast, len(self._cast.types)
        for number in range(self.jobs):
            status, chance, attempts = self._facts(number)
            kind = chance % types
            millicpus, mem_mib, disk_mib = _NEEDS[kind // len(VERSIONS) % len(_NEEDS)]
            error = self._error(number, chance) if status == "FAILED" else _NULL
            queued = self._time(number)
            started = _NULL if status in {"QUEUED", "CANCELED"} else self._time(number, 60)
            ended = (
                _NULL if status in {"QUEUED", "RUNNING"} else self._time(number, 60 + chance % 900)
            )
            changed = ended if ended != _NULL else started if started != _NULL else queued
            yield (
                f"{number + 1}\t{cast.types[kind]}\t{cast.revisions[kind]}\t"
                f"{number // _PER_EVENT + 1}\t{error}\tjob {number}\t{status}\t{chance % 5 * 50}\t"
                f"{attempts}\t1800\t3\t{millicpus / 1000}\t{mem_mib}\t0\t{disk_mib}\t"
                f"{queued}\t{queued}\t{started}\t{ended}\t{changed}\t{changed}\t"
                f'{{"version": "1.0", "input_data": [{{"name": "x", "value": {number}}}], '
                f'"output_data": []}}\n'
            )

    def _error(self, number: int, chance: int) -> int:
        errors = self._cast.retried if number % 20 == 7 else self._cast.final
        return errors[(chance >> 5) % len(errors)]

    def execution_lines(self) -> Iterator[str]:
        key = 0
        for number in range(self.jobs):
            status, chance, attempts = self._facts(number)
            for attempt in range(1, attempts + 1):
                key += 1
                became = status if attempt == attempts else "FAILED"
                yield self._execution(key, number, attempt, became, chance)

    def _execution(self, key: int, number: int, attempt: int, status: str, chance: int) -> str:
        cast = self._cast
        kind, node = chance % len(cast.types), (chance >> 8) % NODES
        millicpus, mem_mib, disk_mib = _NEEDS[kind // len(VERSIONS) % len(_NEEDS)]
        unique = f"{key * _SPREAD & (1 << 128) - 1:032x}"
        queued = self._time(number, attempt)
        head = (
            f"{key}\t{unique}\t{number + 1}\t{cast.types[kind]}\t{attempt}\t{status.lower()}\tjob\t"
            f"f\t{chance % 5 * 50}\t{millicpus}\t{mem_mib}\t{disk_mib}\t1800\t{queued}\t{queued}\t"
        )
        if status == "QUEUED":
            return f"{head}{_NULL}\t{_NULL}\t{queued}\t{_NEVER_RAN}"
        if status == "CANCELED":
            ended = self._time(number, 60 + attempt)
            return f"{head}{_NULL}\t{ended}\t{ended}\t{_NEVER_RAN}"
        started, runs = self._time(number, 60), status == "RUNNING"
        ended = _NULL if runs else self._time(number, 60 + chance % 900)
        error = self._error(number, chance) if status == "FAILED" else _NULL
        return (
            f"{head}{started}\t{ended}\t{started if runs else ended}\t{cast.nodes[node]}\t"
            f"agent-{node:04d}\t{unique + '.job.1' if runs else ''}\t1\t{error}\t{_CODES[status]}\t"
            f"{'it failed' if error != _NULL else ''}\t{started}\t{ended}\t{millicpus / 1000}\t"
            f"{mem_mib}\t0\t{disk_mib}\t{disk_mib}\n"
        )

    def history_lines(self) -> Iterator[str]:
        key = entry = 0
        for number in range(self.jobs):
            status, chance, attempts = self._facts(number)
            key += attempts
            if number % _WITH_HISTORY:
                continue
            queued, started = self._time(number, 1), self._time(number, 60)
            entries = [(queued, "create", "queued")]
            if status not in {"QUEUED", "CANCELED"}:
                entries += [(started, "launch", "starting"), (started, "start", "running")]
            ended = self._time(number, 60 + chance % 900)
            last = {"COMPLETED": "finish", "FAILED": "fail", "CANCELED": "cancel"}.get(status)
            if last:
                entries.append((ended, last, status.lower()))
            for at, event, state in entries:
                entry += 1
                yield f"{entry}\t{key}\t{at}\t{event}\t{state}\tjob\n"


_EVENT: Final = "id, type, description, occurred"
_JOB: Final = (
    "id, job_type_id, job_type_rev_id, event_id, error_id, name, status, priority, num_exes,"
    " timeout, max_tries, cpus_required, mem_required, disk_in_required, disk_out_required,"
    " created, queued, started, ended, last_status_change, last_modified, data"
)
_EXECUTION: Final = (
    "id, uuid, job_id, job_type_id, exe_num, state, phase, has_steps, priority, needs_millicpus,"
    " needs_mem_mib, needs_disk_mib, timeout, created, queued, started, ended, last_modified,"
    " node_id, agent_id, task_id, launches, error_id, job_exit_code, error_message, job_started,"
    " job_completed, cpus_scheduled, mem_scheduled, disk_in_scheduled, disk_out_scheduled,"
    " disk_total_scheduled"
)
_HISTORY: Final = "id, execution_id, at, event, state, phase"
_Table = tuple[type[models.Model], str, Iterable[str]]


def _tables(rows: Rows) -> list[_Table]:
    from scale.job.models import ExecutionEvent, Job, JobExecution, TriggerEvent

    return [
        (TriggerEvent, _EVENT, rows.events()),
        (Job, _JOB, rows.job_lines()),
        (JobExecution, _EXECUTION, rows.execution_lines()),
        (ExecutionEvent, _HISTORY, rows.history_lines()),
    ]


@contextmanager
def _made_beside(lines: Iterable[str]) -> Iterator[BinaryIO]:
    """Make lines in a process of its own, while PostgreSQL takes in what was made before."""
    reading, writing = os.pipe()
    maker = get_context("fork").Process(target=_write, args=(lines, writing))
    maker.start()
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=1 << 20) as file:
        yield file
    maker.join()
    if maker.exitcode:
        raise ChildProcessError(f"making rows ended with {maker.exitcode}")


def _write(lines: Iterable[str], descriptor: int) -> None:
    left = iter(lines)
    with os.fdopen(descriptor, "wb") as file:
        while block := "".join(islice(left, _BLOCK)):
            file.write(block.encode())


def _copy(model: type[models.Model], columns: str, lines: Iterable[str]) -> None:
    """Fill a table; columns that are not named get the model's defaults, which it has meanwhile."""
    table = model._meta.db_table
    named = set(columns.split(", "))
    kept = []
    with connection.cursor() as cursor:
        for field in model._meta.concrete_fields:
            default = field.get_default()
            if field.column in named or field.generated or default is None or field.primary_key:
                continue
            kept.append(field.column)
            value = json.dumps(default) if isinstance(default, dict | list) else default
            cursor.execute(f"ALTER TABLE {table} ALTER {field.column} SET DEFAULT %s", [value])
        statement = f"COPY {table} ({columns}) FROM STDIN WITH (FREEZE, NULL '{_NULL}')"
        with _made_beside(lines) as file:
            cursor.cursor.copy_expert(statement, file, size=1 << 18)
        for column in kept:
            cursor.execute(f"ALTER TABLE {table} ALTER {column} DROP DEFAULT")
        cursor.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
        )


@contextmanager
def _without_indexes(tables: list[type[models.Model]], told: Report) -> Iterator[None]:
    """Drop all but the primary keys for the block, and check no foreign keys in it."""
    names = [model._meta.db_table for model in tables]
    unique = _read(
        """
        SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype = 'u' AND conrelid::regclass::text = ANY(%s)
        """,
        names,
    )
    indexes = _read(
        """
        SELECT relid.oid::regclass, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
        FROM pg_index AS i JOIN pg_class AS relid ON relid.oid = i.indrelid
        WHERE relid.relname = ANY(%s) AND NOT i.indisprimary
            AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid
                AND c.contype = 'u')
        """,
        names,
    )
    for table, name, _ in unique:
        _execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    for _, name, _ in indexes:
        _execute(f"DROP INDEX {name}")
    for table in names:
        _execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    yield
    _execute("SET maintenance_work_mem = '1GB'")
    for table, name, definition in unique:
        _execute(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}')
        told(f"constraint {name}")
    for _, name, definition in indexes:
        _execute(definition)
        told(f"index {name}")
    for table in names:
        _execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL")


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _read(statement: str, names: list[str]) -> list[tuple[str, str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, [names])
        found: list[tuple[str, str, str]] = cursor.fetchall()
        return found
