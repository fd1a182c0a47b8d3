"""The web process: streams and logs on the event loop, all else through Django in threads.

Django itself runs as WSGI: under plain ASGI each of its requests gets a new thread and with
psycopg2 a new database connection (architecture, section 9). What moves files has threads of its
own, so that slow agents and downloads never keep a page or a click waiting. A download has one only
while a part is read, an upload for as long as it takes: those of people keep no agent waiting.
"""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable, Mapping, MutableMapping
from io import BytesIO
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from a2wsgi import WSGIMiddleware
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.wsgi import get_wsgi_application

if TYPE_CHECKING:
    from scale.api.log_access import Scope
    from scale.api.pages import Pages
    from scale.api.streams import Receive, Send

_Handler = Callable[[int, FrameType | None], Any] | int | None
_WORKERS: Final = 8
_TRANSFERS: Final = ("/agent/", "/files/", "/v3/files/")
#: A peer that is to send and sends nothing for so long is given up, as one that lost its power.
_SILENT_S: Final = 60.0
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))
#: What bodies that have not come whole may take in all, and for how long one may be on its way.
_WAITING_BYTES: Final = 64 * 1024 * 1024
#: More than Django takes (DATA_UPLOAD_MAX_MEMORY_SIZE); files have paths of their own.
_BODY_BYTES: Final = 16 * 1024 * 1024
_BODY_WITHIN_S: Final = 30.0
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Application:
    """Sends each request where it belongs, and ends the streams when the server stops."""

    def __init__(self) -> None:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scale.settings")
        django = get_wsgi_application()
        # What is imported here has models, and those need Django to be set up.
        from scale.api.logs import close_log_reader, log_reader
        from scale.api.pages import Pages
        from scale.api.streams import LogStreams

        self.streams = LogStreams(log_reader())
        self._close_log_reader = close_log_reader
        self._pages = Pages(django, workers=_WORKERS)
        self._downloads = Pages(django, workers=_WORKERS)
        self._from_agents: Any = WSGIMiddleware(cast("Any", django), workers=_WORKERS)
        self._from_people: Any = WSGIMiddleware(cast("Any", django), workers=_WORKERS)
        self._waiting_bytes = 0

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and self.streams.takes(scope) and _is_safe(scope):
            await self.streams(scope, receive, send)
        elif not scope["path"].startswith(_TRANSFERS):
            await self._page(self._pages, scope, receive, send)
        elif scope["method"] in {"GET", "HEAD"}:
            await self._page(self._downloads, scope, receive, send)
        else:
            is_agent = scope["path"].startswith("/agent/")
            uploads = self._from_agents if is_agent else self._from_people
            await _unless_silent(uploads, _decodable(scope), receive, send)

    async def _page(self, pages: "Pages", scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Give the request a thread only when its body is here.

        Forms are read before anybody has logged in: eight peers that send theirs slowly would
        keep all threads.
        """
        came: list[MutableMapping[str, Any]] = []
        held = 0
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                while not came or came[-1].get("more_body"):
                    came.append(await receive())
                    size = len(came[-1].get("body", b""))
                    held, self._waiting_bytes = held + size, self._waiting_bytes + size
                    if held > _BODY_BYTES or self._waiting_bytes > _WAITING_BYTES:
                        await _refuse(send, 413 if held > _BODY_BYTES else 503)
                        return
        except TimeoutError:
            await _refuse(send, 408)
            return
        finally:
            self._waiting_bytes -= held
        if came[-1]["type"] == "http.request":
            body = b"".join([message.get("body", b"") for message in came])
            await pages(_decodable(scope), body, send)

    async def _live(self, receive: "Receive", send: "Send") -> None:
        await receive()
        restore = _on_stop_signal(self.streams.stop)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        restore()
        self.streams.close()
        self._close_log_reader()
        self._pages.shut_down()
        self._downloads.shut_down()
        for uploads in (self._from_agents, self._from_people):
            uploads.executor.shutdown(wait=False, cancel_futures=True)
        await send({"type": "lifespan.shutdown.complete"})


_REFUSALS: Final = {
    408: b'{"detail":"The body did not come in time.","code":"timeout","field":"body"}',
    413: b'{"detail":"The body is too large.","code":"too_large","field":"body"}',
    503: b'{"detail":"Too many bodies are on their way; try again.","code":"busy"}',
}


def _is_safe(scope: "Scope") -> bool:
    """Say whether a request came by https, where that is asked for; Django sends others there."""
    return not settings.SECURE_SSL_REDIRECT or ASGIRequest(dict(scope), BytesIO()).is_secure()


async def _unless_silent(upload: Any, scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Let an upload take its time, but end it with 408 when nothing comes any more."""
    is_given_up = False

    async def next_part() -> MutableMapping[str, Any]:
        nonlocal is_given_up
        try:
            async with asyncio.timeout(_SILENT_S):
                return await receive()
        except TimeoutError:
            is_given_up = True
            await _refuse(send, 408)
            raise

    async def answer(message: MutableMapping[str, Any]) -> None:
        if not is_given_up:  # Django has an answer to the broken body, too
            await send(message)

    await upload(scope, next_part, answer)


async def _refuse(send: "Send", status: int) -> None:
    body = _REFUSALS[status]
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _on_stop_signal(stop: Callable[[], None]) -> Callable[[], None]:
    """Call `stop` on the loop when the process is told to end; return how to undo that.

    A server says "shutdown" only after all responses have ended, and a stream ends only when it
    is told to: so we listen to the signal ourselves, and hand it on to the server.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    loop = asyncio.get_running_loop()
    handlers = {number: signal.getsignal(number) for number in _STOP_SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        then = handlers[signal.Signals(number)]
        if callable(then):
            then(number, frame)
        elif then is signal.SIG_DFL:
            signal.signal(number, then)
            signal.raise_signal(number)

    for number in handlers:
        signal.signal(number, handle)
    return lambda: _restore(handlers, handle)


def _restore(handlers: "Mapping[signal.Signals, _Handler]", ours: "_Handler") -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) is ours:
            signal.signal(number, handler)


def _decodable(scope: "Scope") -> "Scope":
    """Return the scope with a query string in ASCII: a2wsgi breaks at anything else."""
    query: bytes = scope.get("query_string", b"")
    return scope if query.isascii() else {**scope, "query_string": quote(query, _ASCII).encode()}


application = Application()
# What is loaded by now stays: looking through it for garbage takes tens of milliseconds.
gc.freeze()
