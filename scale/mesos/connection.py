"""The event stream of one subscription; stands in for `pymesos.process.Connection`.

That one gives up on the first surprise, reads 4 KiB at a time and joins bytes quadratically.
"""

import logging
import socket
from dataclasses import dataclass
from time import monotonic
from typing import Final

import httptools

from scale.mesos import translate
from scale.mesos.document import JsonObject, parse
from scale.mesos.wire import READ_BYTES

logger = logging.getLogger(__name__)

#: Digits of a record's length (contract, 1.1); more than any event has.
LENGTH_DIGITS: Final = 12
OK: Final = 200
REDIRECT: Final = 307


class Records:
    """Cuts a stream into RecordIO records: decimal length, newline, that many bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the records that are complete now; raise ValueError if the framing is broken."""
        self._buffer += data
        records = []
        while self._measured():
            length = self._length or 0
            if len(self._buffer) < length:
                break
            records.append(bytes(self._buffer[:length]))
            del self._buffer[:length]
            self._length = None
        return records

    def _measured(self) -> bool:
        """Whether the length of the next record is known; takes it from the buffer."""
        if self._length is None:
            end = self._buffer.find(b"\n", 0, LENGTH_DIGITS + 1)
            digits = self._buffer[:end] if end >= 0 else self._buffer
            if (digits and not digits.isdigit()) or end == 0 or len(digits) > LENGTH_DIGITS:
                raise ValueError("broken record length")
            if end < 0:
                return False
            self._length = int(digits)
            del self._buffer[: end + 1]
        return True


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stream is over; `leader` is the address of the master that it pointed to, if any."""

    reason: str
    leader: str | None = None


class EventStream:
    """A connection on which a SUBSCRIBE was sent, read without blocking.

    httptools calls the on_… methods.

    Raises OSError when the master cannot be reached within `timeout_s`.
    """

    def __init__(self, address: str, request: bytes, *, timeout_s: float) -> None:
        host, _, port = address.rpartition(":")
        self.ending: Ending | None = None
        self.stream_id = ""
        self.opened_s = monotonic()
        self._headers: dict[str, str] = {}
        self._records = Records()
        self._events: list[JsonObject] = []
        self._parser = httptools.HttpResponseParser(self)
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket.sendall(request)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[JsonObject]:
        """Return the events that arrived; `ending` is set when no more will."""
        try:
            data = self._socket.recv(READ_BYTES)
            if data:
                self._parser.feed_data(data)
            else:
                self._end("the master closed the stream")
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(str(error))
        except httptools.HttpParserError as error:
            self._end(f"broken HTTP: {error}")
        events, self._events = self._events, []
        return events

    def _end(self, reason: str, leader: str | None = None) -> None:
        self.ending = self.ending or Ending(reason, leader)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self.stream_id = self._headers.get("mesos-stream-id", "")
        if status == REDIRECT:
            location = self._headers.get("location", "")
            self._end("the master is not the leader", translate.leader(location))
        elif status != OK:
            self._end(f"the master refused to subscribe us with HTTP {status}")

    def on_body(self, body: bytes) -> None:
        if self._parser.get_status_code() != OK:
            self._explain(body)
        else:
            self._take(body)

    def _explain(self, body: bytes) -> None:
        text = body[:200].decode(errors="replace").strip()
        if self.ending is not None and text:
            self.ending = Ending(f"{self.ending.reason}: {text}", self.ending.leader)

    def _take(self, body: bytes) -> None:
        try:
            records = self._records.feed(body)
        except ValueError as error:
            self._end(str(error))
            return
        for record in records:
            try:
                self._events.append(parse(record))
            except ValueError:
                logger.exception("mesos event is not JSON", extra={"start": record[:200]})

    def on_message_complete(self) -> None:
        self._end("the master ended the stream")
