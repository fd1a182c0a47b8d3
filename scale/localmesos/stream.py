"""The event stream of one subscription: RecordIO in a chunked answer that never ends by itself."""

import asyncio
import logging
from typing import Final

from scale.localmesos.http import JSON, Receive, Send, date

logger = logging.getLogger(__name__)

MAX_BACKLOG: Final = 64 << 20  # bytes that a reader may lag behind before it is cut off


def event(kind: bytes, field: bytes = b"", payload: bytes = b"") -> bytes:
    """Return the JSON of an event whose payload is encoded already."""
    if not field:
        return b'{"type":"%s"}' % kind
    return b'{"type":"%s","%s":%s}' % (kind, field, payload)


class EventStream:
    """Records wait here until the connection takes them; bounded, see MAX_BACKLOG."""

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self._records: list[bytes] = []
        self._size = 0
        self._wake = asyncio.Event()
        self._open = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._ended = False
        self._gone = False

    def push(self, record: bytes) -> None:
        if self._ended or self._gone:
            return
        self._records.append(b"%d\n%s" % (len(record), record))
        self._size += len(record)
        if self._size > MAX_BACKLOG:
            logger.warning("a subscriber does not read its events and is cut off")
            self._gone = True
            if self._writer is not None:
                self._writer.cancel()
        self._wake.set()

    def open(self) -> None:
        """Let the answer begin."""
        self._open.set()

    def end(self) -> None:
        """Send what waits, then close."""
        self._ended = True
        self._wake.set()

    async def serve(self, receive: Receive, send: Send) -> None:
        """Write the answer until the stream is ended or the client is gone."""
        await self._open.wait()
        mine = (b"Mesos-Stream-Id", self.stream_id.encode())
        headers = [date(), mine, (b"Content-Type", JSON)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        watcher = asyncio.create_task(self._watch(receive))
        self._writer = asyncio.create_task(self._write(send))
        try:
            await self._writer
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            self._gone = True
            watcher.cancel()
            self._writer.cancel()

    async def _write(self, send: Send) -> None:
        while not self._gone and (self._records or not self._ended):
            if self._records:
                data = b"".join(self._records)
                self._records.clear()
                self._size = 0
                await send({"type": "http.response.body", "body": data, "more_body": True})
            else:
                self._wake.clear()
                await self._wake.wait()
        await send({"type": "http.response.body", "body": b""})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._wake.set()
