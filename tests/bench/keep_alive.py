"""An HTTP client that costs next to nothing, so that the server is what is measured."""

import json
import socket
from typing import Any


class Line:
    """One connection that stays open; `get` and `post` send one request and read its answer."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Token {token}\r\n"

    def get(self, path: str, headers: str = "") -> tuple[int, bytes]:
        """Return status and body; `headers` are lines that each end with CRLF."""
        self.send(path, headers)
        return self._answer()

    def json(self, path: str) -> Any:
        status, body = self.get(path)
        assert status == 200, (path, status, body[:500])
        return json.loads(body)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        head = (
            f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)
        return self._answer()

    def send(self, path: str, headers: str = "") -> None:
        """Ask for something whose answer `receive` gets."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\n{self._head}{headers}\r\n".encode())

    def receive(self) -> bytes:
        """Return what has come; wait for something."""
        return self._socket.recv(1 << 18)

    def close(self) -> None:
        self._socket.close()

    def _answer(self) -> tuple[int, bytes]:
        found = b""
        while b"\r\n\r\n" not in found:
            found += self._more()
        head, _, body = found.partition(b"\r\n\r\n")
        status, lower = int(head[9:12]), head.lower()
        if status in {204, 304}:
            return status, b""
        if b"content-length:" in lower:
            length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += self._more()
            return status, body
        while not body.endswith(b"0\r\n\r\n"):
            body += self._more()
        return status, _unchunked(body)

    def _more(self) -> bytes:
        came = self.receive()
        if not came:
            raise ConnectionError("the server has closed the connection")
        return came

    def header(self, path: str, name: str) -> str:
        """Return one header of an answer whose body is short."""
        self.send(path)
        head = self._more().partition(b"\r\n\r\n")[0].decode("latin-1")
        self.close()
        pairs = [line.split(": ", 1) for line in head.split("\r\n")[1:]]
        return {key.lower(): value for key, value in pairs}[name]


def _unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)
