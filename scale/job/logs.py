"""Where the bytes of an execution's logs are: on its agent, or in the archive.

stdout and stderr of an execution are one stream of bytes each: those of its phases, in their
order. A stream of one phase is a piece. A piece only grows, until its task has ended; then it is
archived, byte for byte, and read from there. So an offset into a log means the same bytes for ever.

Of a piece at most `KEPT_BYTES` are shown or archived; `CUT_NOTE` follows, so that nobody takes
the start of a log for the whole.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from django.core.files.storage import default_storage

from scale.core.errors import ScaleError
from scale.core.lifecycle import TERMINAL, Phase, State
from scale.job.models import ArchivedLog, JobExecution

STREAMS: Final = ("stdout", "stderr")
KEPT_BYTES: Final = 1024**3
CUT_NOTE: Final = b"\n[scale: this log is longer than 1 GiB; the rest was not kept]\n"
_GZIP: Final = 16 + zlib.MAX_WBITS


class LogGone(ScaleError):
    """The agent has no such file, or no longer."""

    code: ClassVar[str] = "log_gone"


class LogUnreachable(ScaleError):
    """The agent that has the log does not answer."""

    code: ClassVar[str] = "agent_unreachable"


class LogRefused(ScaleError):
    """The agent answers, but not with the log."""

    code: ClassVar[str] = "agent_error"


class Chunk(Protocol):
    """Bytes of a file, and how large the whole file was then."""

    @property
    def data(self) -> bytes: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Agents:
    """How files of agents are read, and which of the reader's errors means what.

    `read_file` takes address, port, path, offset and length; it may return less than asked for.
    Given by the layer that knows Mesos.
    """

    read_file: Callable[[str, int, str, int, int], Chunk]
    gone: type[Exception]
    unreachable: type[Exception]
    refused: type[Exception]

    def read(self, piece: "Piece", offset: int, length: int) -> Chunk:
        """Return bytes of a piece; raises LogGone, LogUnreachable or LogRefused."""
        try:
            return self.read_file(piece.address, piece.port, piece.path, offset, length)
        except self.gone as error:
            raise LogGone(str(error)) from error
        except self.unreachable as error:
            raise LogUnreachable(str(error)) from error
        except self.refused as error:
            raise LogRefused(str(error)) from error


@dataclass(frozen=True, slots=True)
class Piece:
    """One stream of one phase.

    `started` says whether the task was seen running: if not, a missing file is no loss. `ended`:
    nothing is written to it any more.
    """

    phase: str
    stream: str
    address: str
    port: int
    path: str
    started: bool
    ended: bool
    archived: ArchivedLog | None = None


@dataclass(frozen=True, slots=True)
class Logs:
    """The pieces of an execution's logs, by phase, stdout first."""

    execution_id: int
    is_finished: bool
    pieces: tuple[Piece, ...]


#: What `pieces_of` wants to know of an execution.
COLUMNS: Final = (
    "state",
    "phase",
    "node__address",
    "node__port",
    *(f"{phase}_{what}" for phase in Phase for what in ("task_id", "framework_id", "started")),
)


def find_logs(execution_id: int) -> Logs:
    """Return where the logs of an execution are; at most two queries.

    Raises:
        JobExecution.DoesNotExist: no such execution.
    """
    row = JobExecution.objects.values(*COLUMNS).get(pk=execution_id)
    is_finished = State(row["state"]) in TERMINAL
    archived = ArchivedLog.objects.filter(execution_id=execution_id) if is_finished else ()
    pieces = pieces_of(row, {(log.phase, log.stream): log for log in archived})
    return Logs(execution_id, is_finished, pieces)


def pieces_of(
    row: Mapping[str, Any], archived: Mapping[tuple[str, str], ArchivedLog]
) -> tuple[Piece, ...]:
    """Return the pieces of an execution, of which `row` has the `COLUMNS`.

    `archived` is by phase and stream. A phase that was never launched has no pieces.
    """
    phases = list(Phase)
    current = phases.index(Phase(row["phase"]))
    state = State(row["state"])
    pieces = []
    for number, phase in enumerate(phases):
        task_id = row[f"{phase}_task_id"]
        bounced = state is State.HOLDING and number == current
        if not task_id or bounced:
            continue
        run = f"/frameworks/{row[f'{phase}_framework_id']}/executors/{task_id}/runs/latest"
        pieces += [
            Piece(
                phase=phase.value,
                stream=stream,
                address=row["node__address"] or "",
                port=row["node__port"] or 0,
                path=f"{run}/{stream}",
                started=row[f"{phase}_started"] is not None,
                ended=state in TERMINAL or number < current,
                archived=archived.get((phase.value, stream)),
            )
            for stream in STREAMS
        ]
    return tuple(pieces)


def read_block(log: ArchivedLog, number: int) -> bytes:
    """Return block `number` of an archived log: `BLOCK_BYTES`, or what is left for the last one.

    Raises:
        LogGone: the stored file is missing or damaged.
    """
    start = log.block_ends[number - 1] if number else 0
    try:
        with default_storage.open(log.storage_name) as file:
            file.seek(start)
            member = file.read(log.block_ends[number] - start)
        return zlib.decompress(member, wbits=_GZIP)
    except (OSError, zlib.error) as error:
        raise LogGone(f"archived log {log.pk} cannot be read: {error}") from error
