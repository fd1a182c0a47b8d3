"""Reading task logs from the agents' sandboxes.

Offsets count bytes, and data are bytes: a chunk may end within a character. A read returns at
most what the agent's page allows (64 KiB in Mesos, whatever was asked for), so advance by the
length of the data.
"""

import base64
import binascii
import json
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

import orjson

from scale.core.errors import ScaleError
from scale.mesos.document import parse
from scale.mesos.wire import (
    HttpConnection,
    Response,
    WireError,
    credential,
    request_head,
    with_body,
)

MAX_LENGTH: Final = 1024 * 1024
#: The worst case is a chunk of control characters in JSON, six bytes each.
MAX_ANSWER_BYTES: Final = 8 * MAX_LENGTH
#: An agent that lacks v1 READ_FILE answers one of these.
UNSUPPORTED: Final = frozenset({404, 405, 406, 415, 501})


class FileGone(ScaleError):
    """The agent has no such file, or no longer."""

    code: ClassVar[str] = "file_gone"


class AgentUnreachable(ScaleError):
    """The agent did not answer in time."""

    code: ClassVar[str] = "agent_unreachable"


class AgentError(ScaleError):
    """The agent answered, but not with the file."""

    code: ClassVar[str] = "agent_error"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a file, and the size of the whole file in bytes when it was read."""

    data: bytes
    size: int


class AgentFiles:
    """A client for the files of all agents, for use by many threads.

    Connections are kept open for later reads, at most `max_idle` of them. `timeout_s` bounds each
    request as a whole.
    """

    def __init__(
        self, principal: str | None, secret: str | None, *, timeout_s: float, max_idle: int = 64
    ) -> None:
        self._authorization = credential(principal, secret)
        self._timeout_s = timeout_s
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: deque[HttpConnection] = deque()  # the longest idle first

    def read(self, address: str, port: int, path: str, offset: int, length: int) -> Chunk:
        """Return up to `length` bytes from `offset`; no data if the file is not that long.

        `length` above 1 MiB is taken as 1 MiB.

        Raises:
            FileGone: there is no such file.
            AgentUnreachable: no connection, no answer in time, or a broken one.
            AgentError: refused, a folder, or an answer that makes no sense.
        """
        length = max(0, min(length, MAX_LENGTH))
        agent = (address, port)
        answer = self._exchange(agent, self._read_file(agent, path, offset, length))
        if answer.status in UNSUPPORTED:
            return self._read_page(agent, path, offset, length)
        document = _document(answer, path)
        return _chunk_of_v1(document)

    def size(self, address: str, port: int, path: str) -> int:
        """Return the file's size in bytes; raises as `read`."""
        return self.read(address, port, path, 0, 0).size

    def close(self) -> None:
        """Close what is idle; the client stays usable."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _read_page(self, agent: tuple[str, int], path: str, offset: int, length: int) -> Chunk:
        """Read by `GET /files/read`, which tells the size only when asked for offset -1."""
        asked = self._exchange(agent, self._files_read(agent, path, -1, 0))
        size = _int(_document(asked, path).get("offset"))
        if length == 0 or offset >= size:
            return Chunk(b"", size)
        answer = self._exchange(agent, self._files_read(agent, path, offset, length))
        data = _lossless(answer, path)
        return Chunk(data, max(size, offset + len(data)))

    def _read_file(self, agent: tuple[str, int], path: str, offset: int, length: int) -> bytes:
        head = self._head(agent, "POST", "/api/v1")
        wanted = {"path": path, "offset": offset, "length": length}
        return with_body(head, orjson.dumps({"type": "READ_FILE", "read_file": wanted}))

    def _files_read(self, agent: tuple[str, int], path: str, offset: int, length: int) -> bytes:
        query = urlencode({"path": path, "offset": offset, "length": length})
        return with_body(self._head(agent, "GET", f"/files/read?{query}"))

    def _head(self, agent: tuple[str, int], method: str, target: str) -> bytes:
        headers = {
            "Host": f"{agent[0]}:{agent[1]}",
            "Accept": "application/json",
            "Content-Type": "application/json" if method == "POST" else None,
            "Authorization": self._authorization,
        }
        return request_head(method, target, headers)

    def _exchange(self, agent: tuple[str, int], request: bytes) -> Response:
        connection = self._take(agent)
        try:
            [answer] = connection.exchange([request])
        except WireError as error:
            raise AgentUnreachable(f"agent {agent[0]}:{agent[1]}: {error}") from error
        self._give(connection)
        return answer

    def _take(self, agent: tuple[str, int]) -> HttpConnection:
        """Return an idle connection to the agent that is still open, or a new one."""
        with self._lock:
            for connection in reversed(self._idle):
                if connection.peer == agent:
                    self._idle.remove(connection)
                    return connection
        host, port = agent
        return HttpConnection(
            host, port, timeout_s=self._timeout_s, max_body_bytes=MAX_ANSWER_BYTES
        )

    def _give(self, connection: HttpConnection) -> None:
        if not connection.reusable:
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)
            surplus = self._idle.popleft() if len(self._idle) > self._max_idle else None
        if surplus is not None:
            surplus.close()


def _document(answer: Response, path: str) -> dict[str, Any]:
    _check(answer, path)
    try:
        return parse(answer.body)
    except ValueError as error:
        raise AgentError(f"the agent's answer for {path} is not JSON") from error


def _check(answer: Response, path: str) -> None:
    if answer.status == 404:
        raise FileGone(f"no such file on the agent: {path}")
    if answer.status != 200:
        raise AgentError(f"the agent answered HTTP {answer.status} for {path}: {answer.excerpt}")


def _chunk_of_v1(document: dict[str, Any]) -> Chunk:
    contents = document.get("read_file") or {}
    try:
        data = base64.b64decode(contents.get("data", ""), validate=True)
    except (binascii.Error, TypeError) as error:
        raise AgentError("the agent's answer holds no base64 data") from error
    return Chunk(data, _int(contents.get("size")))


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise AgentError("the agent's answer holds no size")
    return value


def _lossless(answer: Response, path: str) -> bytes:
    """Return the bytes in `data`, also those that are not UTF-8.

    Mesos copies bytes above 0x7F into the JSON as they are (contract, section 8).
    """
    _check(answer, path)
    try:
        text = json.loads(answer.body.decode(errors="surrogateescape"))["data"]
        return bytes(text.encode(errors="surrogateescape"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise AgentError(f"the agent's answer for {path} makes no sense") from error
