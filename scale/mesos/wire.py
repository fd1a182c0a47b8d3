"""An HTTP/1.1 client for Mesos' own endpoints: keep-alive, pipelined, bounded in time and size."""

import base64
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import httptools

READ_BYTES: Final = 256 * 1024
#: Requests sent before their answers are read. More could fill both peers' buffers and hang.
PIPELINE: Final = 128


class WireError(Exception):
    """An exchange failed; whether the peer acted on it is unknown."""


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def excerpt(self) -> str:
        """Return the start of the body, for an error message."""
        return self.body[:200].decode(errors="replace").strip()


def credential(principal: str | None, secret: str | None) -> str | None:
    """Return the value of an Authorization header; None without both."""
    if principal is None or secret is None:
        return None
    return "Basic " + base64.b64encode(f"{principal}:{secret}".encode()).decode()


def request_head(method: str, target: str, headers: Mapping[str, str | None]) -> bytes:
    """Return a request up to where Content-Length belongs; headers that are None are left out."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join(lines).encode() + b"\r\n"


def with_body(head: bytes, body: bytes = b"") -> bytes:
    return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)


class HttpConnection:
    """One connection to one peer, opened when needed. Used by one thread at a time."""

    def __init__(self, host: str, port: int, *, timeout_s: float, max_body_bytes: int) -> None:
        self._peer = (host, port)
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._socket: socket.socket | None = None

    @property
    def peer(self) -> tuple[str, int]:
        return self._peer

    @property
    def reusable(self) -> bool:
        """Whether it is open and nothing came that nobody asked for, such as its end."""
        if self._socket is None:
            return False
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return not poller.poll(0)

    def exchange(self, requests: Sequence[bytes]) -> list[Response]:
        """Send all requests, several before their answers are read; return the answers in order.

        Raises:
            WireError: time ran out for the whole, the peer hung up or broke HTTP, an answer was
                too large. The connection is closed and the next exchange opens another.
        """
        deadline = monotonic() + self._timeout_s
        try:
            answers: list[Response] = []
            for start in range(0, len(requests), PIPELINE):
                batch = requests[start : start + PIPELINE]
                peer = self._open(deadline)
                peer.sendall(b"".join(batch))
                answers += self._receive(peer, len(batch), deadline)
        except (OSError, httptools.HttpParserError, WireError) as error:
            self.close()
            raise WireError(str(error) or type(error).__name__) from error
        return answers

    def _open(self, deadline: float) -> socket.socket:
        if self._socket is not None and not self.reusable:
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(self._peer, timeout=_left(deadline))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(_left(deadline))
        return self._socket

    def _receive(self, peer: socket.socket, count: int, deadline: float) -> list[Response]:
        answers = _Answers(self._max_body_bytes)
        while len(answers.complete) < count:
            peer.settimeout(_left(deadline))
            data = peer.recv(READ_BYTES)
            if not data:
                raise WireError("the peer closed the connection")
            answers.feed(data)
        if not answers.keep_alive:
            self.close()
        if len(answers.complete) > count:
            raise WireError("the peer answers what was not asked")
        return answers.taken()

    def interrupt(self) -> None:
        """Make an exchange that another thread waits in fail now."""
        connection = self._socket
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # closed already, which is as good

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass(slots=True)
class _Answers:
    """Puts the responses of one pipelined batch together; httptools calls the on_… methods."""

    max_body_bytes: int
    complete: list[Response] = field(default_factory=list)
    keep_alive: bool = True
    _headers: dict[str, str] = field(default_factory=dict)
    _body: bytearray = field(default_factory=bytearray)
    _parser: httptools.HttpResponseParser = field(init=False)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if len(self._body) > self.max_body_bytes:
            raise WireError(f"the answer is longer than {self.max_body_bytes} bytes")

    def taken(self) -> list[Response]:
        """Return the responses and let go of them.

        The parser refers to us and we to it, so that only the cycle collector, which counts
        objects and not bytes, would free what we hold: hundreds of MiB while a log is archived.
        """
        complete, self.complete = self.complete, []
        self._body = bytearray()
        return complete

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self.complete.append(Response(status, self._headers, bytes(self._body)))
        self.keep_alive = self._parser.should_keep_alive()


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise WireError("timed out")
    return left
