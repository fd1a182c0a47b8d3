"""What tests of logs stand on: an agent that serves files over HTTP, executions with tasks on it,
and our web process."""

import base64
import gc
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import uvicorn

from scale.core.lifecycle import Event
from scale.core.resources import Resources
from scale.job.models import JobExecution
from scale.job.services import Move, Placed, move_executions
from scale.job.submission import JobRequest, create_job_type, submit_job
from scale.mesos.files import MAX_LENGTH
from scale.node.models import Node

if TYPE_CHECKING:
    from scale.api.streams import LogStreams

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
FRAMEWORK = "framework-7"
ONE_PHASE: Mapping[str, Any] = {"command": "true"}
THREE_PHASES: Mapping[str, Any] = {
    "command": "sh",
    "input_data": [{"name": "text", "type": "file", "required": False}],
    "output_data": [
        {"name": "out", "type": "file", "pattern": "out.txt"},
        {"name": "parts", "type": "files", "pattern": "*.part", "required": False},
    ],
}


class FakeAgent:
    """An agent's READ_FILE over real files, as `/frameworks/...` below `root`.

    `page` is the most that it returns at once; `status` is answered instead if it is set;
    a path that has `refused` in it gets 500.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reads: Counter[str] = Counter()
        self.page = MAX_LENGTH
        self.status = 0
        self.refused = ""
        self._heard = threading.Condition()
        agent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = json.loads(body)["read_file"]
                status, answer = agent.answer(asked["path"], asked["offset"], asked["length"])
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                # `/files/read`, which is asked when READ_FILE finds nothing.
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str, offset: int, length: int) -> tuple[int, bytes]:
        with self._heard:
            self.reads[path] += 1
            self._heard.notify_all()
        if self.status or (self.refused and self.refused in path):
            return self.status or 500, b"no"
        file = self.root / path.lstrip("/")
        if not file.is_file():
            return 404, b""
        with file.open("rb") as content:
            content.seek(offset)
            data = content.read(min(length, self.page))
        found = {"size": file.stat().st_size, "data": base64.b64encode(data).decode()}
        return 200, json.dumps({"type": "READ_FILE", "read_file": found}).encode()

    def wait_for_reads(self, count: int, timeout_s: float = 30) -> None:
        """Wait until there were so many reads in all."""
        with self._heard:
            assert self._heard.wait_for(lambda: self.reads.total() >= count, timeout_s)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def running_agent(root: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent(root)
    try:
        yield agent
    finally:
        agent.close()


def wait_until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait for what other threads or processes bring about and nobody announces."""
    deadline = monotonic() + timeout_s
    while not true():
        assert monotonic() < deadline
        sleep(0.005)


def make_node(agent: FakeAgent, **fields: Any) -> Node:
    """Return a node whose agent this is."""
    name = f"node-{uuid4()}"
    given = {"hostname": name, "slave_id": name, "address": "127.0.0.1", "port": agent.port}
    return Node.objects.create(**{**given, **fields})


class Life:
    """An execution that the test moves, and the logs of its tasks."""

    def __init__(
        self,
        node: Node,
        agent: FakeAgent,
        interface: Mapping[str, Any] = ONE_PHASE,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        job_type = create_job_type(
            {"name": f"type-{uuid4()}", "version": "1", "interface": dict(interface)}
        )
        _, row = submit_job(JobRequest(job_type, inputs or {}), user="ada", at=NOON)
        self.node, self.agent = node, agent
        self.framework_id = FRAMEWORK
        self.row: JobExecution = row
        self.pk = self.row.pk

    def move(self, event: Event, **facts: Any) -> "Life":
        move_executions([Move(self.pk, event, **facts)], at=NOON)
        self.row = JobExecution.objects.get(pk=self.pk)
        return self

    def launch(self) -> "Life":
        self.row = JobExecution.objects.get(pk=self.pk)
        placed = Placed(
            node_id=self.node.pk,
            agent_id=self.node.slave_id,
            framework_id=self.framework_id,
            task_id=f"{self.row.uuid}.{self.row.phase}.{self.row.launches + 1}",
            needs=Resources(1000, 100, 10),
            command_arguments="",
            environment={},
        )
        return self.move(Event.LAUNCH, placed=placed)

    def start(self, stdout: bytes = b"", stderr: bytes = b"") -> "Life":
        """Launch and start the current phase; its sandbox is there then."""
        self.launch()
        self.write("stdout", stdout)
        self.write("stderr", stderr)
        return self.move(Event.START)

    def hold(self) -> "Life":
        return self.move(Event.HOLD, exit_code=0)

    def finish(self) -> "Life":
        return self.move(Event.FINISH, exit_code=0)

    def file(self, stream: str, phase: str | None = None) -> Path:
        task_id = getattr(self.row, f"{phase or self.row.phase}_task_id")
        run = f"frameworks/{self.framework_id}/executors/{task_id}/runs/latest"
        return self.agent.root / run / stream

    def write(self, stream: str, data: bytes) -> None:
        file = self.file(stream)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as log:
            log.write(data)


@dataclass
class Answer:
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """A client of our web process; `token` is knox' unless a request says otherwise."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; `_` in names of headers stands for `-`."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(
                method, path, body, {"Authorization": f"Token {self.token}", **given}
            )
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    @contextmanager
    def stream(self, path: str, **headers: str) -> Iterator["Events"]:
        """Open a stream of events and leave it open for the block."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(
                "GET", path, headers={"Authorization": f"Token {self.token}", **given}
            )
            yield Events(connection.getresponse())


class Events:
    """Server-sent events as they come."""

    def __init__(self, answer: HTTPResponse) -> None:
        self.answer = answer

    def next(self) -> dict[str, str]:
        """Return the fields of the next event or comment, which is ""; {} at the end."""
        fields: dict[str, str] = {}
        while line := self.answer.readline().decode():
            if line == "\n":
                return fields
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value
        return fields

    def text(self, size: int) -> str:
        """Return the text up to an offset."""
        found = ""
        while True:
            event = self.next()
            found += json.loads(event["data"])
            if int(event["id"]) >= size:
                assert int(event["id"]) == size
                return found


@contextmanager
def running_web() -> Iterator[tuple[int, "LogStreams"]]:
    """Run our ASGI application under uvicorn in a thread; yield its port and its streams.

    It may serve many tests: what it remembers is by ids, and no test has those of another.
    """
    from scale.asgi import Application

    before = set(threading.enumerate())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        application = Application()
        config = uvicorn.Config(
            application, log_config=None, lifespan="on", ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1], application.streams
        finally:
            server.should_exit = True
            thread.join()
            # With its threads go their connections to the database.
            for worker in set(threading.enumerate()) - before:
                if worker.name.startswith(("WSGI", "pages", "logs")):
                    worker.join(10)
            gc.collect()
