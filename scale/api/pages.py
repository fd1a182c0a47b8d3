"""Runs Django for requests whose bodies are here, in threads that keep their connections.

A general bridge from ASGI to WSGI hops between thread and loop for each part of a response, and for
each read of a body. Here the thread gets all and returns all, which saves a third of a request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final, cast

from a2wsgi.wsgi import build_environ

from scale.api.log_access import Scope

#: What of a response a thread reads at once; more is fetched when that has been sent.
_PART_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class _Reply:
    """A response of Django: its head, and parts of its body as long as there are any."""

    status: int = 500
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    chunks: Iterable[bytes] = ()
    close: Callable[[], None] | None = None

    def start(self, status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        self.status = int(status[:3])
        self.headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]

    def next_part(self) -> tuple[bytes, bool]:
        """Return the next part of the body, and whether there is more; closes after the last."""
        taken, size = [], 0
        try:
            for chunk in self.chunks:
                taken.append(chunk)
                size += len(chunk)
                if size >= _PART_BYTES:
                    return b"".join(taken), True
        except BaseException:
            self.finish()
            raise
        self.finish()
        return b"".join(taken), False

    def finish(self) -> None:
        close, self.close = self.close, None
        if close is not None:
            close()


class Pages:
    """A WSGI application as one of ASGI; `workers` threads."""

    def __init__(self, application: Callable[..., Iterable[bytes]], *, workers: int) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(workers, "pages")

    async def __call__(
        self, scope: Scope, body: bytes, send: Callable[[Any], Awaitable[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        reply, part, more = await loop.run_in_executor(self._threads, self._begin, scope, body)
        try:
            start = {"type": "http.response.start", "status": reply.status}
            await send({**start, "headers": reply.headers})
            await send({"type": "http.response.body", "body": part, "more_body": more})
            while more:
                part, more = await loop.run_in_executor(self._threads, reply.next_part)
                await send({"type": "http.response.body", "body": part, "more_body": more})
        finally:
            if more:  # the client has gone
                await loop.run_in_executor(self._threads, reply.finish)

    def shut_down(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, scope: Scope, body: bytes) -> tuple[_Reply, bytes, bool]:
        """Run the application in this thread, up to the first part of its answer."""
        environ = build_environ(cast("Any", scope), cast("Any", BytesIO(body)))
        # One that came in chunks said no length, and Django reads no further than that.
        environ["CONTENT_LENGTH"] = str(len(body))
        reply = _Reply()
        answer = self._application(environ, reply.start)
        reply.close = getattr(answer, "close", None)
        reply.chunks = iter(answer)
        part, more = reply.next_part()
        return reply, part, more
