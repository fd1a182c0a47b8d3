"""Reading logs for many at once: what one reader has fetched, the others get.

However many poll a log or follow it, its agent is asked for news of a piece at most once in
`INTERVAL_S`, and for old bytes only if they are not in the cache. Nothing is read while nobody
asks. One reader serves a web process, any number of threads.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from scale.job import logs
from scale.job.logs import (
    CUT_NOTE,
    STREAMS,
    Agents,
    LogGone,
    LogRefused,
    Logs,
    LogUnreachable,
    Piece,
)
from scale.job.models import ArchivedLog

NAMES: Final = ("stdout", "stderr", "combined")

INTERVAL_S: Final = 0.25
#: How long an agent that did not answer is left alone.
BACK_OFF_S: Final = 2.0
#: How long a log that is complete is taken from memory without a look at the database.
COMPLETE_S: Final = 30.0
CACHE_BYTES: Final = 32 * 1024 * 1024
_ENTRIES: Final = 10_000
_BLOCK: Final = ArchivedLog.BLOCK_BYTES

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The values used last, up to a total weight; for any number of threads."""

    def __init__(self, capacity: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        self._capacity, self._weigh = capacity, weigh
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()
        self.weight = 0

    def get(self, key: K) -> V | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: K, value: V) -> None:
        with self._lock:
            old = self._values.pop(key, None)
            self.weight += self._weigh(value) - (self._weigh(old) if old is not None else 0)
            self._values[key] = value
            while self.weight > self._capacity and len(self._values) > 1:
                self.weight -= self._weigh(self._values.popitem(last=False)[1])

    def drop(self, key: K) -> None:
        with self._lock:
            if key in self._values:
                self.weight -= self._weigh(self._values.pop(key))

    def setdefault(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of the key; all callers get the same one."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                self.weight += self._weigh(self._values[key])
                if self.weight > self._capacity and len(self._values) > 1:
                    self.weight -= self._weigh(self._values.popitem(last=False)[1])
            self._values.move_to_end(key)
            return self._values[key]


@dataclass(slots=True)
class _Tail:
    """What is known of a piece that is on its agent; guarded by `lock`.

    `size` is None until the agent has told. `is_final`: it told after the task had ended;
    `asked_ended`: it was asked since then, whatever it said.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    size: int | None = None
    asked_s: float = float("-inf")
    is_final: bool = False
    asked_ended: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of bytes of a view: fixed `text`, or the first `size` bytes of a piece."""

    size: int
    piece: Piece | None = None
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class View:
    """A log as it was at one moment; `read` returns its bytes.

    `is_complete`: it will never change. `problem` is empty, or why bytes are missing: `lost`,
    `agent_unreachable` or `agent_error`.
    """

    execution_id: int
    name: str
    segments: tuple[Segment, ...]
    is_finished: bool
    is_complete: bool
    problem: str
    size: int

    @property
    def etag(self) -> str:
        """A strong validator: a log only grows, so its size tells which one it is."""
        kind = "complete" if self.is_complete else "open"
        return f'"{self.execution_id}-{self.name}-{self.size}-{self.problem or kind}"'


class LogReader:
    """The shared reads of one process.

    `find` returns where an execution's logs are, or raises JobExecution.DoesNotExist.
    """

    def __init__(
        self,
        agents: Agents,
        find: Callable[[int], Logs],
        *,
        clock: Callable[[], float] = time.monotonic,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._agents, self._find, self._clock = agents, find, clock
        self._blocks: Recent[tuple[Hashable, int], bytes] = Recent(cache_bytes, len)
        self._tails: Recent[str, _Tail] = Recent(_ENTRIES)
        self._views: Recent[tuple[int, str], tuple[View, float]] = Recent(_ENTRIES)
        self._asking: Recent[int, threading.Lock] = Recent(_ENTRIES)
        self._silent_until: Recent[tuple[str, int], float] = Recent(_ENTRIES)

    def recent_view(self, execution_id: int, name: str) -> View | None:
        """Return the log if it was looked at a moment ago; never waits."""
        found = self._views.get((execution_id, name))
        if found is None:
            return None
        view, seen_s = found
        lasts_s = COMPLETE_S if view.is_complete else INTERVAL_S
        return view if self._clock() - seen_s < lasts_s else None

    def view(self, execution_id: int, name: str, *, ended: bool = False) -> View:
        """Return the log as it is, or was a moment ago; `ended` wants it from after its end.

        Raises:
            JobExecution.DoesNotExist: no such execution.
        """
        with self._asking.setdefault(execution_id, threading.Lock):
            recent = self.recent_view(execution_id, name)
            if recent is None or (ended and not recent.is_finished):
                recent = self._look(self._find(execution_id), name)
                self._views.put((execution_id, name), (recent, self._clock()))
            return recent

    def read(self, view: View, offset: int, length: int) -> bytes:
        """Return `length` bytes of a view, fewer only at its end.

        Raises:
            LogGone, LogUnreachable, LogRefused: they cannot be had now.
        """
        return b"".join(
            segment.text[start : start + size]
            if segment.piece is None
            else self._block(segment.piece, start // _BLOCK, start % _BLOCK + size)[
                start % _BLOCK : start % _BLOCK + size
            ]
            for segment, start, size in _spans(view, offset, length)
        )

    def recent_bytes(self, view: View, offset: int, length: int) -> bytes | None:
        """Return what `read` would, if all of it is in memory; never waits."""
        found = []
        for segment, start, size in _spans(view, offset, length):
            if segment.piece is None:
                found.append(segment.text[start : start + size])
                continue
            block = self._blocks.get((_key(segment.piece), start // _BLOCK)) or b""
            if len(block) < start % _BLOCK + size:
                return None
            found.append(block[start % _BLOCK : start % _BLOCK + size])
        return b"".join(found)

    def _look(self, found: Logs, name: str) -> View:
        segments: list[Segment] = []
        complete, problem = found.is_finished, ""
        for piece in _wanted(found.pieces, name):
            size, is_final, trouble = self._measure(piece)
            segments += _segments(piece, size or 0, name, first=not segments)
            problem = problem or trouble
            if not is_final:
                # What follows has no place yet.
                complete = False
                break
        total = sum(segment.size for segment in segments)
        return View(
            found.execution_id, name, tuple(segments), found.is_finished, complete, problem, total
        )

    def _measure(self, piece: Piece) -> tuple[int | None, bool, str]:
        """Return the size of a piece, whether that is final, and what is wrong with it."""
        if piece.archived is not None:
            return piece.archived.size, True, "lost" if piece.archived.lost else ""
        tail = self._tails.setdefault(piece.path, _Tail)
        with tail.lock:
            first_after_end = piece.ended and not tail.asked_ended
            due = first_after_end or self._clock() - tail.asked_s >= INTERVAL_S
            if not tail.is_final and due:
                self._ask(piece, tail)
            return tail.size, tail.is_final, tail.problem

    def _ask(self, piece: Piece, tail: _Tail) -> None:
        """Ask the agent for what is new; that tells the size, too."""
        tail.asked_s, tail.asked_ended = self._clock(), piece.ended
        known = tail.size or 0
        if known > logs.KEPT_BYTES:
            tail.is_final = piece.ended  # more of it is not shown
            return
        try:
            chunk = self._fetch(piece, known, _BLOCK)
        except LogGone:
            # Not there yet, never there, or no longer there.
            tail.is_final = piece.ended
            tail.problem = "lost" if piece.ended and piece.started else ""
            tail.size = 0
        except (LogUnreachable, LogRefused) as error:
            tail.problem = error.code
        else:
            tail.problem = ""
            tail.is_final = piece.ended
            self._keep(piece, known, chunk.data)
            # A task may truncate its log; what was read stays read, and offsets go on.
            tail.size = max(known, chunk.size)

    def _keep(self, piece: Piece, offset: int, data: bytes) -> None:
        """Put news into the cache, where they join what is there."""
        while data:
            key = (_key(piece), offset // _BLOCK)
            before = self._blocks.get(key) or b""
            if len(before) < offset % _BLOCK:
                return  # the bytes before are not here: the whole block is fetched when wanted
            room = _BLOCK - offset % _BLOCK
            self._blocks.put(key, before[: offset % _BLOCK] + data[:room])
            offset, data = offset + len(data[:room]), data[room:]

    def _block(self, piece: Piece, number: int, size: int) -> bytes:
        """Return a block, or its first `size` bytes at least."""
        key = (_key(piece), number)
        block = self._blocks.get(key) or b""
        if len(block) >= size:
            return block
        if piece.archived is not None:
            block = logs.read_block(piece.archived, number)
            self._blocks.put(key, block)
            return block
        tail = self._tails.setdefault(piece.path, _Tail)
        with tail.lock:
            block = self._blocks.get(key) or b""
            while len(block) < size:
                chunk = self._fetch(piece, number * _BLOCK + len(block), _BLOCK - len(block))
                if not chunk.data:
                    raise LogGone(f"{piece.path} has become shorter")
                block += chunk.data
            self._blocks.put(key, block)
        return block

    def _fetch(self, piece: Piece, offset: int, length: int) -> logs.Chunk:
        """Ask the agent; if it was silent lately, one thread tries and the others fail at once."""
        agent = (piece.address, piece.port)
        silent_until = self._silent_until.get(agent)
        if silent_until is not None:
            if self._clock() < silent_until:
                raise LogUnreachable(f"agent {agent[0]}:{agent[1]} does not answer")
            self._silent_until.put(agent, self._clock() + BACK_OFF_S)
        try:
            chunk = self._agents.read(piece, offset, length)
        except LogUnreachable:
            self._silent_until.put(agent, self._clock() + BACK_OFF_S)
            raise
        self._silent_until.drop(agent)
        return chunk


def _key(piece: Piece) -> Hashable:
    return piece.path if piece.archived is None else piece.archived.pk


def _wanted(pieces: tuple[Piece, ...], name: str) -> Iterator[Piece]:
    """Return the pieces of a log in their order.

    In a combined log a phase's stderr follows its stdout: which of their lines came first nobody
    knows, and only so do offsets stay. The stderr of the live phase shows when that has ended.
    """
    streams = STREAMS if name == "combined" else (name,)
    return (piece for piece in pieces if piece.stream in streams)


def _segments(piece: Piece, size: int, name: str, *, first: bool) -> Iterator[Segment]:
    if not size:
        return
    if name == "combined":
        title = f"{'' if first else chr(10)}==> {piece.phase} {piece.stream} <==\n".encode()
        yield Segment(len(title), text=title)
    if piece.archived is None and size > logs.KEPT_BYTES:
        yield Segment(logs.KEPT_BYTES, piece)
        yield Segment(len(CUT_NOTE), text=CUT_NOTE)
    else:
        yield Segment(size, piece)


def _spans(view: View, offset: int, length: int) -> Iterator[tuple[Segment, int, int]]:
    """Cut a range where segments and blocks end: the segment, where in it, and how many bytes."""
    for segment in view.segments:
        while offset < segment.size and length > 0:
            size = min(length, segment.size - offset, _BLOCK - offset % _BLOCK)
            yield segment, offset, size
            offset, length = offset + size, length - size
        offset -= segment.size
