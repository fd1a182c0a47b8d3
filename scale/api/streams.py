"""Logs, served without a thread for each client: bytes by range, and live streams of events.

A stream holds its client's offset and nothing else. Who reads slowly makes only its own `send`
wait, and later gets what is there by then. All streams of one log share one task, which looks for
news every 250 ms while it has listeners.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

from django.db import Error as DatabaseError
from django.db import close_old_connections
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from scale.api.base import key_of
from scale.api.errors import NotFound
from scale.api.log_access import Answer, Gate, Headers, Scope, answer_to
from scale.api.log_reader import INTERVAL_S, NAMES, LogReader, View
from scale.api.log_reply import LogUnavailable, Wanted, decide, wanted_by
from scale.api.log_text import named_event, text_event, whole_characters
from scale.api.parameters import Query
from scale.api.renderers import BIGGEST_INTEGER
from scale.core.errors import InvalidInput, ScaleError
from scale.job.models import JobExecution

logger = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

_PATH: Final = re.compile(
    r"(?:/v3)?/job-executions/(?P<pk>[^/]+)/logs/(?P<name>stdout|stderr|combined|stream)/\Z"
)
_HEARTBEAT_S: Final = 15.0
#: How often a stream asks anew whether its client may still read.
_ADMITTED_S: Final = 60.0
_EVENT_BYTES: Final = 64 * 1024
_BODY_BYTES: Final = 256 * 1024
_STREAM_HEADERS: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"private, no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


@dataclass(slots=True, eq=False)
class _Listener:
    """A client of a stream; `wake` is set when there is something to look at."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_gone: bool = False


@dataclass(slots=True)
class _Tail:
    """What the streams of one log share: the log as it is now, and the events made of it."""

    view: View
    looking: asyncio.Task[None] = field(init=False)
    listeners: set[_Listener] = field(default_factory=set)
    events: dict[int, tuple[bytes, int]] = field(default_factory=dict)


class LogStreams:
    """An ASGI application for what `takes` accepts. `stop` ends its streams."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._gate = Gate()
        self._threads = ThreadPoolExecutor(4, "logs")
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._tails: dict[tuple[int, str], _Tail] = {}
        self._is_stopping = False

    @staticmethod
    def takes(scope: Scope) -> bool:
        return scope["method"] in {"GET", "HEAD"} and _PATH.match(scope["path"]) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _PATH.match(scope["path"])
        assert path is not None
        if not self._gate.knows(scope):
            refusal = await self._in_thread(self._gate.refusal, scope)
            if refusal is not None:
                await _answer(send, refusal)
                return
        try:
            pk = key_of(path["pk"], "job execution")
            if path["name"] == "stream":
                await self._stream(scope, pk, receive, send)
            else:
                await self._bytes(scope, pk, path["name"], send)
        except (ScaleError, APIException) as error:
            await _answer(send, await self._in_thread(answer_to, scope, error))

    @property
    def is_idle(self) -> bool:
        """Whether nobody listens and nothing is being read."""
        return not self._tails and not self._running

    def stop(self) -> None:
        """End all streams soon; for the event loop's thread. Later ones end at once."""
        self._is_stopping = True
        for tail in self._tails.values():
            _wake(tail)

    def close(self) -> None:
        """Wait for reads that are under way; each has its time-out."""
        self._threads.shutdown(cancel_futures=True)

    async def _bytes(self, scope: Scope, pk: int, name: str, send: Send) -> None:
        wanted = _wanted(scope)
        view = await self._view(pk, name)
        reply = decide(view, wanted)
        start, body = reply.start, reply.body
        if body is None:
            # Before the headers are sent the client can still be told that it cannot be had.
            try:
                body = await self._read(view, start, min(_BODY_BYTES, reply.stop - start))
            except ScaleError as error:
                raise LogUnavailable(error) from error
            start += len(body)
        headers = [(k.lower().encode(), v.encode()) for k, v in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        more = start < reply.stop
        await send({"type": "http.response.body", "body": body, "more_body": more})
        while more:
            try:
                body = await self._read(view, start, min(_BODY_BYTES, reply.stop - start))
            except ScaleError as error:
                # The server cuts the connection, so that nobody takes the part for the whole.
                logger.warning("a log broke off", extra={"execution": pk, "reason": str(error)})
                return
            start += len(body)
            more = start < reply.stop
            await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _stream(self, scope: Scope, pk: int, receive: Receive, send: Send) -> None:
        name, offset, resumed = _followed(scope)
        view = await self._view(pk, name)
        if resumed and view.is_complete and offset >= view.size:
            # The one answer after which a browser does not connect again.
            await _answer(send, (204, [], b""))
            return
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        if scope["method"] == "GET":
            async with self._listening(view, receive) as (tail, listener):
                await self._follow(scope, tail, listener, offset, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(
        self, scope: Scope, tail: _Tail, listener: _Listener, offset: int, send: Send
    ) -> None:
        """Send what there is and what comes, until the log or the client ends."""
        clock = asyncio.get_running_loop().time
        admitted_until, problem = clock() + _ADMITTED_S, ""
        while True:
            listener.wake.clear()
            view = tail.view
            offset, is_read = await self._catch_up(tail, view, listener, offset, send)
            if listener.is_gone or self._is_stopping:
                return
            if view.problem != problem:
                problem = view.problem
                await _event(send, named_event("problem", offset, {"problem": problem}))
            if view.is_complete and is_read:
                facts = {"size": view.size, "problem": problem}
                await _event(send, named_event("end", offset, facts))
                return
            if clock() > admitted_until:
                if await self._in_thread(self._gate.refusal, scope) is not None:
                    return
                admitted_until = clock() + _ADMITTED_S
            if view is tail.view and not await _news(listener, _HEARTBEAT_S):
                await _event(send, b": still here\n\n")

    async def _catch_up(
        self, tail: _Tail, view: View, listener: _Listener, offset: int, send: Send
    ) -> tuple[int, bool]:
        """Send events up to the end of a view; return where they end and whether that is all."""
        while offset < view.size and not (listener.is_gone or self._is_stopping):
            try:
                event, stop = await self._event_at(tail, view, offset)
            except ScaleError:
                return offset, False  # the next look at the log says what is wrong
            if stop == offset:
                return offset, False  # a character that is not complete yet
            await _event(send, event)
            offset = stop
        return offset, offset >= view.size

    async def _event_at(self, tail: _Tail, view: View, offset: int) -> tuple[bytes, int]:
        """Return the event that begins at an offset, and where it ends; made once for all."""
        if view is tail.view and offset in tail.events:
            return tail.events[offset]
        data = await self._read(view, offset, min(_EVENT_BYTES, view.size - offset))
        is_end = view.is_complete and offset + len(data) >= view.size
        stop = offset + (len(data) if is_end else whole_characters(data))
        made = text_event(stop, data[: stop - offset]), stop
        if view is tail.view and len(tail.events) < 16:
            tail.events[offset] = made
        return made

    @asynccontextmanager
    async def _listening(
        self, view: View, receive: Receive
    ) -> AsyncIterator[tuple[_Tail, _Listener]]:
        """Be told of news of a log; the first listener starts the looking, the last one ends it."""
        key = (view.execution_id, view.name)
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = _Tail(view)
            tail.looking = asyncio.create_task(self._look(key, tail))
        listener = _Listener()
        tail.listeners.add(listener)
        watching = asyncio.create_task(_until_gone(receive, listener))
        try:
            yield tail, listener
        finally:
            watching.cancel()
            tail.listeners.discard(listener)
            if not tail.listeners:
                del self._tails[key]
                tail.looking.cancel()

    async def _look(self, key: tuple[int, str], tail: _Tail) -> None:
        while not tail.view.is_complete:
            await asyncio.sleep(INTERVAL_S)
            try:
                view = await self._view(*key)
            except NotFound:
                for listener in tail.listeners:
                    listener.is_gone = True
                _wake(tail)
                return
            except DatabaseError:
                # Streams outlive a database that restarts.
                logger.warning("a log cannot be looked up", extra={"execution": key[0]})
                continue
            if (view.etag, view.is_finished) != (tail.view.etag, tail.view.is_finished):
                tail.view = view
                tail.events.clear()
                _wake(tail)

    async def _view(self, pk: int, name: str) -> View:
        recent = self._reader.recent_view(pk, name)
        if recent is not None:
            return recent
        return await self._once(("view", pk, name), self._find, pk, name)

    def _find(self, pk: int, name: str) -> View:
        try:
            return self._reader.view(pk, name)
        except JobExecution.DoesNotExist:
            raise NotFound("job execution", pk) from None

    async def _read(self, view: View, offset: int, length: int) -> bytes:
        """Return bytes of a log; raises as LogReader.read."""
        found = self._reader.recent_bytes(view, offset, length)
        if found is not None:
            return found
        key = ("read", view.execution_id, view.name, offset, length)
        return await self._once(key, self._reader.read, view, offset, length)

    async def _once(self, key: Hashable, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread; who asks for the same meanwhile gets the same answer."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._in_thread(function, *arguments))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        result: T = await asyncio.shield(task)
        return result

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _with_database, function, *arguments)


def _with_database(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function as Django calls a view: with connections that are neither old nor broken."""
    close_old_connections()
    try:
        return function(*arguments)
    finally:
        close_old_connections()


def _wanted(scope: Scope) -> Wanted:
    return wanted_by(scope["method"], partial(_header, scope), _query(scope))


def _followed(scope: Scope) -> tuple[str, int, bool]:
    """Return which log is followed, from which offset, and whether this is a reconnection."""
    query = _query(scope)
    name = query.choice("stream", NAMES) or "stdout"
    offset = query.integer("offset", default=0, least=0, most=BIGGEST_INTEGER)
    query.done()
    last = _header(scope, "last-event-id") or ""
    resumed = last.isascii() and last.isdigit() and len(last) < 20
    if last and not resumed:
        raise InvalidInput("Last-Event-ID", "must be the id of an event")
    return name, int(last) if resumed else offset, resumed


def _header(scope: Scope, name: str) -> str | None:
    """Return a header; one that comes twice with both values, as WSGI servers do."""
    values = [value for key, value in scope["headers"] if key == name.encode()]
    return b",".join(values).decode("latin-1") if values else None


def _query(scope: Scope) -> Query:
    raw = {"QUERY_STRING": scope["query_string"].decode("latin-1")}
    return Query(cast("Request", SimpleNamespace(META=raw)))


async def _answer(send: Send, answer: Answer) -> None:
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _event(send: Send, event: bytes) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": True})


async def _news(listener: _Listener, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await listener.wake.wait()
    except TimeoutError:
        return False


async def _until_gone(receive: Receive, listener: _Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.is_gone = True
    listener.wake.set()


def _wake(tail: _Tail) -> None:
    for listener in tail.listeners:
        listener.wake.set()
