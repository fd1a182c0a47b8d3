"""A Mesos master, or agent, that does what a test tells it to, also what no real one would."""

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

DEADLINE_S = 10
FRAMEWORK_ID = "the-framework"


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Peer:
    """One accepted connection, seen from the server."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("rb")
        self.stream_id = ""

    def request(self) -> Request | None:
        first = self._reader.readline().split()
        if len(first) != 3:
            return None
        headers = {}
        while (line := self._reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = self._reader.read(int(headers.get("content-length", 0)))
        return Request(first[0].decode(), first[1].decode(), headers, body)

    def raw(self, data: bytes) -> None:
        with suppress(OSError):
            self._connection.sendall(data)

    def open_stream(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self.raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
            b"Mesos-Stream-Id: " + stream_id.encode() + b"\r\n\r\n"
        )

    def chunk(self, data: bytes) -> None:
        self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, event: dict[str, Any]) -> None:
        data = json.dumps(event).encode()
        self.chunk(b"%d\n%s" % (len(data), data))

    def reset(self) -> None:
        """Close so that the other side gets a reset instead of an end."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._reader.close()
        self._connection.close()

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.close()
        self._connection.close()


class FakeServer:
    """Answers each request on each connection with `handle`; closes all at the end."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.requests: list[Request] = []
        self.connections = 0
        self.changed = threading.Condition()
        self._peers: list[Peer] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def handle(self, peer: Peer, request: Request) -> None:
        raise NotImplementedError

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(DEADLINE_S)
        self.hang_up()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def hang_up(self) -> None:
        """Close every connection."""
        for peer in self._peers:
            peer.close()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until something about the requests is true."""
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE_S), "it never came to that"
            return condition()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(connection)
            self._peers.append(peer)
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        with suppress(OSError, ValueError):
            while (request := peer.request()) is not None:
                with self.changed:
                    self.requests.append(request)
                    self.changed.notify_all()
                self.handle(peer, request)
        peer.close()


Script = Callable[["FakeMaster", Peer], None]


class FakeMaster(FakeServer):
    """Follows one script per subscription, in turn, and accepts when there are none left."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = deque(scripts)
        self.streams: list[Peer] = []
        self.answer = lambda peer, request: peer.raw(response(202))
        self.agents = response(200, b'{"slaves": []}')
        super().__init__()

    def handle(self, peer: Peer, request: Request) -> None:
        if request.target == "/slaves":
            peer.raw(self.agents)
        elif request.json.get("type") != "SUBSCRIBE":
            self.answer(peer, request)
        else:
            script = self.scripts.popleft() if self.scripts else accept
            script(self, peer)

    def subscribes(self) -> list[Request]:
        return [one for one in self.requests if b'"SUBSCRIBE"' in one.body]

    def calls(self, kind: str | None = None) -> list[Request]:
        return [
            one
            for one in self.requests
            if one.method == "POST"
            and one.json["type"] not in {"SUBSCRIBE"}
            and kind in {None, one.json["type"]}
        ]

    @property
    def stream(self) -> Peer:
        """The latest accepted subscription."""
        return self.wait(lambda: self.streams)[-1]


# Scripts.


def opened(master: FakeMaster, peer: Peer) -> None:
    """Answer with the headers of a stream only."""
    with master.changed:
        peer.open_stream(f"stream-{len(master.streams) + 1}")
        master.streams.append(peer)
        master.changed.notify_all()


def accept(master: FakeMaster, peer: Peer, heartbeat_s: float = 15.0) -> None:
    opened(master, peer)
    subscribed = {
        "framework_id": {"value": FRAMEWORK_ID},
        "heartbeat_interval_seconds": heartbeat_s,
        "master_info": {"id": "m", "ip": 0, "port": master.port, "version": "1.12.0-rc1"},
    }
    peer.event({"type": "SUBSCRIBED", "subscribed": subscribed})


def accept_with_heartbeat(heartbeat_s: float) -> Script:
    return lambda master, peer: accept(master, peer, heartbeat_s)


def refuse(status: int, body: bytes = b"", **headers: str) -> Script:
    return lambda _, peer: peer.raw(response(status, body, **headers))


def redirect_to(other: FakeMaster) -> Script:
    return refuse(307, Location=f"//{other.address}/master/api/v1/scheduler")


def error(message: str) -> Script:
    """Refuse as Mesos does a well-formed SUBSCRIBE: an ERROR event and the end of the stream."""

    def script(master: FakeMaster, peer: Peer) -> None:
        opened(master, peer)
        peer.event({"type": "ERROR", "error": {"message": message}})
        peer.chunk(b"")
        peer.close()

    return script


def hang(master: FakeMaster, peer: Peer) -> None:
    """Take the request and say nothing."""


def close(master: FakeMaster, peer: Peer) -> None:
    peer.close()


def end_without_closing(master: FakeMaster, peer: Peer) -> None:
    accept(master, peer)
    peer.chunk(b"")


def reset(master: FakeMaster, peer: Peer) -> None:
    accept(master, peer)
    peer.reset()


def half_an_event(master: FakeMaster, peer: Peer) -> None:
    accept(master, peer)
    peer.chunk(b'100\n{"type": "HEART')
    peer.close()


def no_http(master: FakeMaster, peer: Peer) -> None:
    peer.raw(b"220 smtp ready\r\n\r\n")


def no_records(master: FakeMaster, peer: Peer) -> None:
    opened(master, peer)
    peer.chunk(b"<html>")
