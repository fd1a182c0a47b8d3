"""Bringing the logs of ended executions from the agents to our own storage."""

import logging
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from django.core.files.base import File as Content
from django.core.files.storage import default_storage
from django.db import connection, transaction

from scale.job import logs
from scale.job.logs import (
    COLUMNS,
    CUT_NOTE,
    Agents,
    LogGone,
    LogRefused,
    LogUnreachable,
    Piece,
    pieces_of,
)
from scale.job.models import ArchivedLog, JobExecution

logger = logging.getLogger(__name__)

#: An agent that is offline may come back, one that refuses may be mended; then no more.
OFFLINE_GIVE_UP: Final = timedelta(hours=1)
REFUSED_GIVE_UP: Final = timedelta(days=1)
_BATCH: Final = 200
_READERS: Final = 8
_READ_BYTES: Final = 1024 * 1024
_SPOOL_BYTES: Final = 512 * 1024
_LEVEL: Final = 6
_GZIP: Final = 16 + zlib.MAX_WBITS
#: The session lock under which one archiver works at a time ("logs" in ASCII).
_LOCK: Final = 0x6C6F6773


@dataclass(frozen=True, slots=True)
class _Owed:
    """An ended execution and the pieces of its logs that are not archived yet."""

    execution_id: int
    uuid: str
    ended: datetime
    node_id: int | None
    node_is_online: bool
    pieces: tuple[Piece, ...]


@dataclass(slots=True)
class _Run:
    """What one run of the archiver knows and learns; shared by its threads.

    `unreachable` are nodes that did not answer in this run: they are not asked again.
    """

    agents: Agents
    now: datetime
    unreachable: set[int | None] = field(default_factory=set)


def archive_owed_logs(agents: Agents, *, now: datetime, at_most_s: float = 60) -> int:
    """Archive what is owed, in batches, until nothing is left; return how many executions.

    Safe to kill and to repeat: a piece is stored before its row, its row before the debt is
    cleared, and pieces that have a row are not read again. What cannot be read stays owed until
    its agent has been offline, or has refused, for long; then it is noted as lost. Another
    archiver at work means that there is nothing to do here. No batch is begun after `at_most_s`.
    """
    run = _Run(agents, now)
    deadline = time.monotonic() + at_most_s
    count = last_id = 0
    with _alone() as alone, ThreadPoolExecutor(_READERS, "archive") as readers:
        while alone and time.monotonic() < deadline:
            batch = _owed_after(last_id, run.unreachable)
            results = list(readers.map(lambda owed: _archive(run, owed), batch))
            _settle(batch, results)
            count += sum(rows is not None for rows in results)
            if len(batch) < _BATCH:
                break
            last_id = batch[-1].execution_id
    return count


@contextmanager
def _alone() -> Iterator[bool]:
    """Yield whether no other archiver works now; none begins before this one is done."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        [alone] = cursor.fetchone()
    try:
        yield alone
    finally:
        if alone:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _owed_after(last_id: int, without: set[int | None]) -> list[_Owed]:
    """Return the next batch in the order of ids; two queries, index execution_logs_owed."""
    rows = (
        JobExecution.objects.filter(logs_owed=True, pk__gt=last_id, ended__isnull=False)
        .exclude(node_id__in=[node_id for node_id in without if node_id])
        .order_by("pk")
        .values("pk", "uuid", "ended", "node_id", "node__is_online", *COLUMNS)[:_BATCH]
    )
    archived: dict[int, dict[tuple[str, str], ArchivedLog]] = {row["pk"]: {} for row in rows}
    for log in ArchivedLog.objects.filter(execution_id__in=archived) if archived else ():
        archived[log.execution_id][log.phase, log.stream] = log
    return [
        _Owed(
            execution_id=row["pk"],
            uuid=str(row["uuid"]),
            ended=row["ended"],
            node_id=row["node_id"],
            node_is_online=bool(row["node__is_online"]),
            pieces=tuple(
                piece for piece in pieces_of(row, archived[row["pk"]]) if piece.archived is None
            ),
        )
        for row in rows
    ]


def _archive(run: _Run, owed: _Owed) -> list[ArchivedLog] | None:
    """Store the pieces of one execution and return their rows; None if they stay owed."""
    try:
        if owed.pieces and owed.node_id in run.unreachable:
            raise LogUnreachable("did not answer before")
        return [_archive_piece(run, owed, piece) for piece in owed.pieces]
    except LogUnreachable as error:
        run.unreachable.add(owed.node_id)
        give_up = not owed.node_is_online and owed.ended < run.now - OFFLINE_GIVE_UP
        return _unreadable(run, owed, error, give_up=give_up)
    except LogRefused as error:
        return _unreadable(run, owed, error, give_up=owed.ended < run.now - REFUSED_GIVE_UP)


def _unreadable(
    run: _Run, owed: _Owed, error: Exception, *, give_up: bool
) -> list[ArchivedLog] | None:
    facts = {"execution": owed.execution_id, "reason": str(error)}
    if not give_up:
        logger.info("logs stay owed", extra=facts)
        return None
    logger.warning("logs are lost", extra=facts)
    return [_row(run, owed, piece, lost=True) for piece in owed.pieces]


def _archive_piece(run: _Run, owed: _Owed, piece: Piece) -> ArchivedLog:
    """Store one piece. Raises LogUnreachable or LogRefused; nothing has a row then."""
    try:
        first = run.agents.read(piece, 0, _READ_BYTES)
        if not first.size:
            return _row(run, owed, piece)
        with SpooledTemporaryFile(_SPOOL_BYTES) as file:
            size, ends = _compress(_content(run.agents, piece, first), file)
            file.seek(0)
            name = _store(_storage_name(owed, piece), file)
    except LogGone as error:
        if piece.started:
            facts = {"execution": owed.execution_id, "reason": str(error)}
            logger.warning("a log is lost", extra=facts)
        return _row(run, owed, piece, lost=piece.started)
    return _row(run, owed, piece, size=size, name=name, ends=ends)


def _content(agents: Agents, piece: Piece, chunk: logs.Chunk) -> Iterator[bytes]:
    """Yield the piece as readers see it; `chunk` was read from its start."""
    offset = 0
    while True:
        yield chunk.data[: logs.KEPT_BYTES - offset]
        offset += len(chunk.data)
        if offset >= min(chunk.size, logs.KEPT_BYTES):
            break
        if not chunk.data:
            raise LogRefused(f"the agent has {chunk.size} bytes and returns none at {offset}")
        chunk = agents.read(piece, offset, _READ_BYTES)
    if chunk.size > logs.KEPT_BYTES:
        yield CUT_NOTE


def _compress(content: Iterator[bytes], file: IO[bytes]) -> tuple[int, list[int]]:
    """Write gzip members of a block each; return the size before and where the members end."""
    size, ends, rest = 0, [], bytearray()
    for data in content:
        size += len(data)
        rest += data
        while len(rest) >= ArchivedLog.BLOCK_BYTES:
            ends.append(_write_member(rest[: ArchivedLog.BLOCK_BYTES], file))
            del rest[: ArchivedLog.BLOCK_BYTES]
    if rest:
        ends.append(_write_member(rest, file))
    return size, ends


def _write_member(block: bytearray, file: IO[bytes]) -> int:
    file.write(zlib.compress(block, _LEVEL, wbits=_GZIP))
    return file.tell()


def _storage_name(owed: _Owed, piece: Piece) -> str:
    """Return a name, the same each time; the folders are of hours, so that none grows for ever."""
    return f"logs/{owed.ended:%Y-%m-%d/%H}/{owed.uuid}.{piece.phase}.{piece.stream}.gz"


def _store(name: str, file: IO[bytes]) -> str:
    stored = default_storage.save(name, Content(file))
    if stored != name:
        # The name was taken, and no row has it: a killed archiver left that file.
        default_storage.delete(name)
    return stored


def _row(
    run: _Run,
    owed: _Owed,
    piece: Piece,
    *,
    size: int = 0,
    name: str = "",
    ends: Sequence[int] = (),
    lost: bool = False,
) -> ArchivedLog:
    return ArchivedLog(
        execution_id=owed.execution_id,
        phase=piece.phase,
        stream=piece.stream,
        size=size,
        storage_name=name,
        block_ends=list(ends),
        lost=lost,
        archived=run.now,
    )


@transaction.atomic
def _settle(batch: Sequence[_Owed], results: Sequence[list[ArchivedLog] | None]) -> None:
    """Store rows and clear debts; a row that somebody holds is left for the next run."""
    done = [
        owed.execution_id for owed, rows in zip(batch, results, strict=True) if rows is not None
    ]
    if not done:
        return
    ArchivedLog.objects.bulk_create(
        [row for rows in results for row in rows or ()], ignore_conflicts=True
    )
    free = list(
        JobExecution.objects.filter(pk__in=done)
        .select_for_update(skip_locked=True, no_key=True)
        .order_by("job_id", "pk")
        .values_list("pk", flat=True)
    )
    JobExecution.objects.filter(pk__in=free).update(logs_owed=False)
