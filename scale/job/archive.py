"""Bringing the logs of ended executions from the agents to our own storage."""

import logging
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.core.files.storage import default_storage
from django.db import connection, transaction

from scale.job import logs
from scale.job.files import ReceivedFile
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

    `unreachable` are nodes that did not answer in this run: they are not asked again. `failure` is
    why our own storage takes nothing, such as a full disk.
    """

    agents: Agents
    now: datetime
    unreachable: set[int | None] = field(default_factory=set)
    failure: OSError | None = None


def archive_owed_logs(agents: Agents, *, now: datetime, at_most_s: float = 60) -> int:
    """Archive what is owed, in batches, until nothing is left; return how many executions.

    Safe to kill and to repeat: a piece is stored before its row, its row before the debt is
    cleared, and pieces that have a row are not read again. What cannot be read stays owed until
    its agent has been offline, or has refused, for long; then it is noted as lost. Another
    archiver at work means that there is nothing to do here. No batch is begun after `at_most_s`.

    Raises OSError if nothing can be stored here; what was stored before has its rows then.
    """
    run = _Run(agents, now)
    deadline = time.monotonic() + at_most_s
    count = last_id = 0
    with _alone() as alone, ThreadPoolExecutor(_READERS, "archive") as readers:
        while alone and time.monotonic() < deadline:
            batch = _owed_after(last_id, run.unreachable)
            results = list(readers.map(lambda owed: _archive(run, owed), batch))
            count += _settle(batch, results)
            _remove_leftovers(batch, results)
            if run.failure:
                raise run.failure
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


def _archive(run: _Run, owed: _Owed) -> list[ArchivedLog]:
    """Store the pieces of one execution; return their rows, fewer than pieces if some stay owed.

    What was stored gets its row even so: it is not read again, and its file is known.
    """
    rows, reason = [], ""
    for piece in owed.pieces:
        if run.failure:
            break
        try:
            rows.append(_archive_piece(run, owed, piece))
        except (LogUnreachable, LogRefused) as error:
            reason = str(error)
            if _gives_up(run, owed, error):
                rows.append(_row(run, owed, piece, lost=True))
        except OSError as error:
            run.failure, reason = error, str(error)
    facts = {"execution": owed.execution_id, "reason": reason}
    if len(rows) < len(owed.pieces):
        logger.info("logs stay owed", extra=facts)
    elif reason:
        logger.warning("logs are lost", extra=facts)
    return rows


def _gives_up(run: _Run, owed: _Owed, error: LogUnreachable | LogRefused) -> bool:
    if isinstance(error, LogRefused):
        return owed.ended < run.now - REFUSED_GIVE_UP
    run.unreachable.add(owed.node_id)
    return not owed.node_is_online and owed.ended < run.now - OFFLINE_GIVE_UP


def _archive_piece(run: _Run, owed: _Owed, piece: Piece) -> ArchivedLog:
    """Store one piece. Raises LogUnreachable or LogRefused; then nothing of it is stored."""
    if owed.node_id in run.unreachable:
        raise LogUnreachable("did not answer before")
    try:
        first = run.agents.read(piece, 0, _READ_BYTES)
        if not first.size:
            return _row(run, owed, piece)
        with ReceivedFile("log", "application/gzip") as file:
            size, ends = _compress(_content(run.agents, piece, first), file)
            file.flush()
            name = default_storage.save(_storage_name(owed, piece.phase, piece.stream), file)
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


def _compress(content: Iterator[bytes], file: ReceivedFile) -> tuple[int, list[int]]:
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


def _write_member(block: bytearray, file: ReceivedFile) -> int:
    file.add(zlib.compress(block, _LEVEL, wbits=_GZIP))
    return file.size or 0


def _storage_name(owed: _Owed, phase: str, stream: str) -> str:
    """Return a name, the same each time; the folders are of hours, so that none grows for ever."""
    return f"logs/{owed.ended:%Y-%m-%d/%H}/{owed.uuid}.{phase}.{stream}.gz"


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
def _settle(batch: Sequence[_Owed], results: Sequence[list[ArchivedLog]]) -> int:
    """Store rows and clear debts; a row that somebody holds is left for the next run.

    Returns how many executions owe nothing more.
    """
    made = [row for rows in results for row in rows]
    if made:
        ArchivedLog.objects.bulk_create(made, ignore_conflicts=True)
    done = [
        owed.execution_id
        for owed, rows in zip(batch, results, strict=True)
        if len(rows) == len(owed.pieces)
    ]
    if not done:
        return 0
    free = list(
        JobExecution.objects.filter(pk__in=done)
        .select_for_update(skip_locked=True, no_key=True)
        .order_by("job_id", "pk")
        .values_list("pk", flat=True)
    )
    JobExecution.objects.filter(pk__in=free).update(logs_owed=False)
    return len(done)


def _remove_leftovers(batch: Sequence[_Owed], results: Sequence[list[ArchivedLog]]) -> None:
    """Remove files whose names were taken before: a killed archiver left them, and no row has them.

    Only when the new rows are stored. That shows that our session, and with it the lock, is as it
    was: one that has lost its session would remove what the next archiver has stored meanwhile.
    """
    for owed, rows in zip(batch, results, strict=True):
        for row in rows:
            wanted = _storage_name(owed, row.phase, row.stream)
            if row.storage_name not in {"", wanted}:
                default_storage.delete(wanted)
