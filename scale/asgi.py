"""The web process: streams and logs on the event loop, all else through Django in threads.

Django itself runs as WSGI: under plain ASGI each of its requests gets a new thread and with
psycopg2 a new database connection (architecture, section 9). What moves files has threads of its
own, so that slow agents and downloads never keep a page or a click waiting.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final
from urllib.parse import quote

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scale.settings")

from a2wsgi import WSGIMiddleware
from django.core.wsgi import get_wsgi_application

_django = get_wsgi_application()  # before anything that needs models

from scale.api.logs import log_reader
from scale.api.streams import LogStreams, Receive, Scope, Send

_WORKERS: Final = 8
_TRANSFERS: Final = ("/agent/", "/files/", "/v3/files/")
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Application:
    """Sends each request where it belongs, and ends the streams when the server stops."""

    def __init__(self) -> None:
        self._streams = LogStreams(log_reader())
        self._pages = WSGIMiddleware(_django, workers=_WORKERS)
        self._transfers = WSGIMiddleware(_django, workers=_WORKERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        if scope["type"] == "http" and LogStreams.takes(scope):
            return await self._streams(scope, receive, send)
        django = self._transfers if scope["path"].startswith(_TRANSFERS) else self._pages
        await django(_decodable(scope), receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        restore: Callable[[], None] = lambda: None  # noqa: E731
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                restore = _on_stop_signal(self._streams.stop)
                await send({"type": "lifespan.startup.complete"})
            else:
                restore()
                self._streams.stop()
                self._streams.close()
                return await send({"type": "lifespan.shutdown.complete"})


def _on_stop_signal(stop: Callable[[], None]) -> Callable[[], None]:
    """Call `stop` on the loop when the process is told to end; return how to undo that.

    A server says "shutdown" only after all responses have ended, and a stream ends only when it
    is told to: so we listen to the signal ourselves, and hand it on to the server.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        then: Any = before[signal.Signals(number)]
        if callable(then):
            then(number, frame)

    for number, then in before.items():
        if callable(then):
            signal.signal(number, handle)
    return lambda: _restore(handle, before)


def _restore(handle: Any, before: dict[signal.Signals, Any]) -> None:
    for number, then in before.items():
        if signal.getsignal(number) is handle:
            signal.signal(number, then)


def _decodable(scope: Scope) -> Scope:
    """Return the scope with a query string in ASCII: a2wsgi breaks at anything else."""
    query: bytes = scope.get("query_string", b"")
    return scope if query.isascii() else {**scope, "query_string": quote(query, _ASCII).encode()}


application = Application()
