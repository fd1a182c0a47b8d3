"""One log of many processes: a line at a time, each with the name of who said it."""

import asyncio
import os
import re
import select
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

_LONGEST_LINE = 8192  # bytes; what is longer goes on in the next line
_PIPE_BUF = 4096  # a pipe that poll() calls writable takes as much without blocking (pipe(7))
_OWN_LINE_S = 1.0
_OWN_NAME = "scale"
_COLORS = (36, 35, 33, 32, 34, 96, 95, 93)
_SGR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)")


def wants_color(*, is_tty: bool, environ: Mapping[str, str]) -> bool:
    """Follow no-color.org and force-color.org; NO_COLOR wins."""
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (is_tty and environ.get("TERM") != "dumb")


class Console:
    """Write prefixed lines to a descriptor, without ever blocking the event loop.

    Nothing is queued: who writes to a full terminal or pipe waits. `width` is that of the
    longest name. When the other end is gone the log is lost and everything goes on.
    """

    def __init__(self, descriptor: int, *, color: bool = False, width: int = 9) -> None:
        self.color = color
        self._descriptor = descriptor
        self._width = width
        self._colors: dict[str, int] = {}
        self._turn = asyncio.Lock()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._gone = False

    async def line(self, name: str, raw: bytes) -> None:
        """Write a line of a child, for as long as it takes."""
        await self.write(f"{self._prefix(name)}{readable(raw, color=self.color)}\n")

    async def say(self, text: str) -> None:
        """Write a line of our own; give up soon, for there is other work to do."""
        strong = f"\x1b[1m{text}\x1b[0m" if self.color else text
        with suppress(TimeoutError):
            async with asyncio.timeout(_OWN_LINE_S):
                await self.write(f"{self._prefix(_OWN_NAME)}{strong}\n")

    async def write(self, text: str) -> None:
        left = memoryview(text.encode())
        async with self._turn:
            while left and not self._gone:
                await self._room()
                try:
                    left = left[os.write(self._descriptor, left[:_PIPE_BUF]) :]
                except OSError:
                    self._gone = True

    def _prefix(self, name: str) -> str:
        label = f"{name:<{self._width}} | "
        if not self.color:
            return label
        color = self._colors.setdefault(name, _COLORS[len(self._colors) % len(_COLORS)])
        return f"\x1b[{color}m{label}\x1b[0m"

    async def _room(self) -> None:
        if self._poll.poll(0):
            return
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._descriptor)


def readable(raw: bytes, *, color: bool) -> str:
    """Turn what a program wrote into text that cannot harm a terminal; colours may stay."""
    text = raw.rstrip(b"\r").decode(errors="backslashreplace")
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    if not color:
        return _SGR.sub("", text)
    return text + "\x1b[0m" if "\x1b[" in text else text


def boxed(lines: list[str], *, color: bool) -> str:
    """Draw a frame around lines that a person must not overlook."""
    width = max(map(len, lines))
    inside = [f"│ {line:<{width}} │" for line in lines]
    box = [f"┌{'─' * (width + 2)}┐", *inside, f"└{'─' * (width + 2)}┘"]
    paint = "\x1b[1;32m{}\x1b[0m" if color else "{}"
    return "".join(f"{paint.format(line)}\n" for line in box)


async def each_line(reader: asyncio.StreamReader, take: Callable[[bytes], Awaitable[None]]) -> None:
    """Hand on every line until the end; a line that is too long comes in pieces."""
    rest = b""
    while chunk := await reader.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            for piece in _pieces(line):
                await take(piece)
        while len(rest) > _LONGEST_LINE:
            await take(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
    if rest:
        await take(rest)


def _pieces(line: bytes) -> list[bytes]:
    cuts = range(0, max(len(line), 1), _LONGEST_LINE)
    return [line[cut : cut + _LONGEST_LINE] for cut in cuts]
