"""What master and agents tell each other, and its one form on the wire.

A frame is its length (4 bytes, big endian), a byte for the kind of message, the length of the head
(4 bytes), the head, and the tail. The head is a JSON list of the message's plain fields; the tail
is its field `encoded`, JSON that was made elsewhere and is passed on as it is.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, get_type_hints

import orjson

MAX_FRAME: Final = 64 << 20  # bytes; a registration with some 50 000 tasks
_LENGTH: Final = struct.Struct("!I")
_START: Final = struct.Struct("!BI")


class BadFrame(Exception):
    """Bytes that are no message, or a message that cannot be at this point."""


# --- agent to master ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Register:
    """An agent is here; always its first message. `encoded` is what it has, see report.py."""

    agent_id: str
    hostname: str
    ip: str
    port: int
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """A status update (`encoded`, TaskStatus) that the agent repeats until it is acknowledged."""

    framework_id: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Released:
    """The resources of a task are free: its processes are gone."""

    framework_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers `Ping`."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The agent ends on purpose and its tasks with it."""


# --- master to agent ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The agent is registered."""

    master_hostname: str


@dataclass(frozen=True, slots=True)
class Introduce:
    """Who a framework is (`encoded`, FrameworkInfo); comes before its first task."""

    framework_id: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Start:
    """Start a task; `encoded` is the journal's record of it, see tasks.launch_record."""

    encoded: bytes


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a task; `policy` is a KillPolicy, empty for the task's own."""

    framework_id: str
    task_id: str
    policy: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """An update has arrived and need not be repeated."""

    framework_id: str
    task_id: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Resend:
    """A framework listens again: tell it at once what it has not acknowledged."""

    framework_id: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Kill a task and forget it, for it was told as lost for good."""

    framework_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class Missing:
    """The master knows a task that the agent did not report; if it is unknown, say so."""

    framework_id: str
    task_id: str
    state: str  # what to tell then


@dataclass(frozen=True, slots=True)
class RemoveFramework:
    """Kill and forget everything of a framework."""

    framework_id: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a sign of life."""


@dataclass(frozen=True, slots=True)
class Farewell:
    """Answers `Leave`; with `gone`, an operator has ended this agent for good."""

    gone: bool


FromAgent = Register | Told | Released | Pong | Leave
FromMaster = (
    Welcome
    | Introduce
    | Start
    | Kill
    | Acknowledge
    | Resend
    | Discard
    | Missing
    | RemoveFramework
    | Ping
    | Farewell
)
Message = FromAgent | FromMaster

_KINDS: Final[tuple[type[Message], ...]] = (
    Register, Told, Released, Pong, Leave,
    Welcome, Introduce, Start, Kill, Acknowledge, Resend, Discard, Missing, RemoveFramework, Ping,
    Farewell,
)  # fmt: skip
_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}


def _plain(kind: type[Message]) -> tuple[tuple[str, type], ...]:
    """Return name and type of the fields that stand in the head."""
    hints = get_type_hints(kind)
    named = [(each.name, hints[each.name]) for each in fields(kind) if each.name != "encoded"]
    return tuple((name, getattr(hint, "__origin__", hint)) for name, hint in named)


_HEADS: Final = {kind: _plain(kind) for kind in _KINDS}
_WITH_TAIL: Final = frozenset(k for k in _KINDS if "encoded" in {each.name for each in fields(k)})


def encode(message: Message) -> bytes:
    """Return the frame of a message."""
    kind = type(message)
    head = orjson.dumps([getattr(message, name) for name, _ in _HEADS[kind]])
    tail: bytes = getattr(message, "encoded", b"")
    start = _START.pack(_NUMBERS[kind], len(head))
    return b"".join((_LENGTH.pack(len(start) + len(head) + len(tail)), start, head, tail))


def decode(frame: memoryview) -> Message:
    """Return the message of a frame without its length.

    Raises:
        BadFrame: it is not a message of ours.
    """
    if len(frame) < _START.size:
        raise BadFrame("a frame that is too short")
    number, size = _START.unpack_from(frame)
    if number >= len(_KINDS):
        raise BadFrame(f"unknown kind {number}")
    kind, body = _KINDS[number], frame[_START.size :]
    if size > len(body) or (size < len(body) and kind not in _WITH_TAIL):
        raise BadFrame(f"a head of {size} bytes in {len(body)} for {kind.__name__}")
    try:
        head = orjson.loads(body[:size])
    except orjson.JSONDecodeError as error:
        raise BadFrame(str(error)) from None
    expected = _HEADS[kind]
    if not isinstance(head, list) or len(head) != len(expected):
        raise BadFrame(f"a head that does not fit {kind.__name__}")
    for value, (name, wanted) in zip(head, expected, strict=True):
        if type(value) is not wanted:
            raise BadFrame(f"{kind.__name__}.{name} of type {type(value).__name__}")
    tail = (bytes(body[size:]),) if kind in _WITH_TAIL else ()
    message: Message = kind(*head, *tail)
    return message


class Decoder:
    """Cuts a stream of bytes into messages; keeps at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that `data` completes.

        Raises:
            BadFrame: a frame that is too long or is no message; nothing after it can be read.
        """
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, at)
            if size > MAX_FRAME:
                raise BadFrame(f"a frame of {size} bytes")
            end = at + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            frame = bytes(memoryview(self._buffer)[at + _LENGTH.size : end])
            at = end
            yield decode(memoryview(frame))
        del self._buffer[:at]
