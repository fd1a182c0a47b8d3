"""Start processes in order, keep them alive, stop them in reverse."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from scale.embedded.console import Console, each_line
from scale.embedded.errors import CannotStart
from scale.embedded.guard import Guard

_FIRST_ATTEMPTS: Final = 3
_SAY_EVERY_S: Final = 10.0
_LOG_ENDS_WITHIN_S: Final = 0.5

#: Asks what a process (by pid) still lacks to be ready; None when nothing.
Probe = Callable[[int], Awaitable[str | None]]


_DIES_AT_ONCE: Final = Guard(signal.SIGKILL)


async def _alive(_pid: int) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process to keep running.

    `launch` does what is needed before each start and returns the command line. `grace_s` is the
    time from `stop_signal` to SIGKILL. `hurry_signal` ends it at once.
    """

    name: str
    launch: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    guard: Guard = _DIES_AT_ONCE
    missing: Probe = _alive
    stop_signal: int = signal.SIGTERM
    hurry_signal: int = signal.SIGKILL
    grace_s: float = 1.5
    ready_within_s: float = 60.0
    probe_every_s: float = 0.02
    descriptors: tuple[int, ...] = ()


class Backoff:
    """How long to wait before a start: 1, 2, 4 ... 30 s, from the beginning after a good minute."""

    first_s = 1.0
    most_s = 30.0
    forgiven_after_s = 60.0

    def __init__(self) -> None:
        self._next_s = self.first_s

    def after(self, lived_s: float) -> float:
        if lived_s >= self.forgiven_after_s:
            self._next_s = self.first_s
        delay, self._next_s = self._next_s, min(self._next_s * 2, self.most_s)
        return delay


class Child:
    """One running process, whose output goes to the console.

    Made without a point where the event loop could break in: either it does not exist, or it is
    known and will be stopped.
    """

    def __init__(self, part: Part, console: Console) -> None:
        loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        try:
            self._process, log = _spawn(part)
        except OSError as error:
            raise CannotStart(f"{part.name} cannot be started: {error}") from None
        self.pid = self._process.pid
        self._log = loop.create_task(_copy(log, part.name, console))
        self._end = loop.create_task(self._wait())

    async def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal (as Popen does)."""
        await self.ended.wait()
        await asyncio.wait({self._log}, timeout=_LOG_ENDS_WITHIN_S)
        self._log.cancel()
        return self._process.returncode

    def signal(self, number: int) -> None:
        if not self.ended.is_set():
            self._process.send_signal(number)

    async def _wait(self) -> None:
        """Wait without a thread: forks must come from a process that is as simple as possible."""
        loop, exited = asyncio.get_running_loop(), asyncio.Event()
        descriptor = os.pidfd_open(self.pid)
        loop.add_reader(descriptor, exited.set)
        try:
            await exited.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._process.wait()
        self.ended.set()


@dataclass
class _Kept:
    part: Part
    ready: asyncio.Future[None]
    child: Child | None = None
    lacks: str | None = "it has not started"
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)


class Supervisor:
    """The parts of one run. Time comes in as functions."""

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._console = console
        self._clock = clock
        self._sleep = sleep
        self._kept: dict[str, _Kept] = {}
        self._hurry = False

    def start(self, part: Part) -> None:
        """Start a part and keep it running from now on."""
        kept = _Kept(part, asyncio.get_running_loop().create_future())
        self._kept[part.name] = kept
        kept.task = asyncio.create_task(self._keep(kept))

    async def ready(self, name: str) -> None:
        """Wait until a part was ready for the first time; raise CannotStart if it cannot be."""
        kept = self._kept[name]
        assert kept.task is not None
        limit = kept.part.ready_within_s
        try:
            async with asyncio.timeout(limit):
                while not await self._settled({kept.ready, kept.task}):
                    await self._console.say(f"still waiting for {name}: {kept.lacks}")
        except TimeoutError:
            raise CannotStart(f"{name} was not ready within {limit:g} s: {kept.lacks}") from None
        if not kept.ready.done():
            kept.task.result()

    async def once(self, part: Part) -> None:
        """Run a part to its end; raise CannotStart if that is not a good one."""
        kept = self._kept[part.name] = _Kept(part, asyncio.get_running_loop().create_future())
        kept.child = Child(part, self._console)
        status = await kept.child.wait()
        del self._kept[part.name]
        if status != 0:
            raise CannotStart(f"{part.name} {how_it_ended(status)}")

    async def watch(self) -> None:
        """Wait for ever; raise what made the keeping of any part fail."""
        tasks = {kept.task for kept in self._kept.values() if kept.task}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Stop every part, the last first, none before the one above it has ended."""
        tasks = [kept.task for kept in self._kept.values() if kept.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for kept in reversed(self._kept.values()):
            if kept.child:
                await self._end(kept.part, kept.child)

    def hurry(self) -> None:
        """End every part at once, also when `stop` waits for one."""
        self._hurry = True
        for kept in self._kept.values():
            if kept.child:
                kept.child.signal(kept.part.hurry_signal)

    async def _settled(self, ways: "set[asyncio.Future[None]]") -> bool:
        done, _ = await asyncio.wait(
            ways, timeout=_SAY_EVERY_S, return_when=asyncio.FIRST_COMPLETED
        )
        return bool(done)

    async def _keep(self, kept: _Kept) -> None:
        part, backoff, failed = kept.part, Backoff(), 0
        while True:
            started = self._clock()
            status = await self._run(kept)
            if not kept.ready.done():
                failed += 1
                if failed == _FIRST_ATTEMPTS:
                    reason = f"{part.name} {how_it_ended(status)}, {failed} times of {failed}"
                    raise CannotStart(f"{reason}; what it said is above")
            delay = backoff.after(self._clock() - started)
            await self._console.say(
                f"{part.name} {how_it_ended(status)}; it starts again in {delay:g} s"
            )
            await self._sleep(delay)

    async def _run(self, kept: _Kept) -> int:
        """Run the part once, noting when it is ready; return its exit code."""
        kept.child = child = Child(kept.part, self._console)
        again = kept.ready.done()
        getting_ready = asyncio.create_task(self._get_ready(kept, child))
        ending = asyncio.create_task(child.ended.wait())
        try:
            await asyncio.wait({getting_ready, ending}, return_when=asyncio.FIRST_COMPLETED)
            if getting_ready.done() and not child.ended.is_set():
                getting_ready.result()
                if again:
                    await self._console.say(f"{kept.part.name} runs again")
                elif not kept.ready.done():
                    kept.ready.set_result(None)
        finally:
            getting_ready.cancel()
            ending.cancel()
        return await child.wait()

    async def _get_ready(self, kept: _Kept, child: Child) -> None:
        while True:
            kept.lacks = await kept.part.missing(child.pid)
            if kept.lacks is None:
                return
            await asyncio.sleep(kept.part.probe_every_s)

    async def _end(self, part: Part, child: Child) -> None:
        child.signal(part.hurry_signal if self._hurry else part.stop_signal)
        with suppress(TimeoutError):
            async with asyncio.timeout(part.grace_s):
                await child.wait()
                return
        await self._console.say(f"{part.name} did not stop within {part.grace_s:g} s; it is killed")
        child.signal(signal.SIGKILL)
        await child.wait()


def how_it_ended(status: int) -> str:
    """Put an exit code of Popen's into words."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"was killed by signal {name}"


def _spawn(part: Part) -> tuple[subprocess.Popen[bytes], int]:
    """Start the process; return it and where to read what it writes."""
    command = list(part.launch())
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            env=part.environment,
            pass_fds=part.descriptors,
            start_new_session=True,
            preexec_fn=part.guard.preexec(),  # noqa: PLW1509  the loop runs in the main thread
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return process, reading


async def _copy(descriptor: int, name: str, console: Console) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=65536)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        await each_line(reader, lambda raw: console.line(name, raw))
    finally:
        transport.close()
