"""Web's side of the steps protocol, and a web server that misbehaves on request, on loopback."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from scale.steps.archive import build_zipapp

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
TOKEN = "only-for-this-execution"
BLOCK = 1024 * 1024

Route = Callable[["Handler"], None]


@dataclass
class Request:
    method: str
    path: str
    authorization: str | None


@dataclass
class Upload:
    size: int
    sha256: str
    media_type: str
    times: int = 1


@dataclass
class FakeWeb:
    """What was asked and told; `routes` are inputs by path, `answers` override the protocol."""

    url: str = ""
    orders: dict[str, Any] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    uploads: dict[tuple[str, str], Upload] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def serve(self, path: str, body: bytes, *, length: int | None = None, status: int = 200) -> str:
        """Answer `path` with `body` and a Content-Length that may be a lie; return its URL."""

        def route(handler: "Handler") -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(body) if length is None else length))
            handler.end_headers()
            handler.wfile.write(body)

        self.routes[path] = route
        return self.url + path

    def redirect(self, path: str, location: str) -> str:
        def route(handler: "Handler") -> None:
            handler.send_response(302)
            handler.send_header("Location", location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        self.routes[path] = route
        return self.url + path

    def raw(self, path: str, *answers: bytes) -> str:
        """Answer with exactly these bytes, one after the other, the last one for ever."""
        left = list(answers)

        def route(handler: "Handler") -> None:
            handler.wfile.write(left.pop(0) if len(left) > 1 else left[0])

        self.routes[path] = route
        return self.url + path

    def hang(self, path: str) -> str:
        def route(handler: "Handler") -> None:
            self.asked.set()
            self.ended.wait()

        self.routes[path] = route
        return self.url + path

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    """One request; the protocol of plan and architecture 7 under `/agent/`."""

    server: "Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._dispatch()

    def do_PUT(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def _dispatch(self) -> None:
        web = self.server.web
        path = urlsplit(self.path).path
        web.requests.append(Request(self.command, path, self.headers["Authorization"]))
        if path in web.routes:
            web.routes[path](self)
            return
        kind = path.rstrip("/").rpartition("/")[2]
        planned = web.answers.get(kind, [])
        status = planned.pop(0) if len(planned) > 1 else (planned[0] if planned else 0)
        if status:
            self._answer(status, {"detail": f"planned {status}"})
        elif not path.startswith(f"/agent/executions/{UUID}/"):
            self._answer(404, {"detail": "nothing here"})
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer(401, {"detail": "no token"})
        else:
            getattr(self, f"_{kind}")(web)

    def _orders(self, web: FakeWeb) -> None:
        self._answer(200, web.orders)

    def _outputs(self, web: FakeWeb) -> None:
        query = parse_qs(urlsplit(self.path).query)
        key = (query["output"][0], query["name"][0])
        summed, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left and (block := self.rfile.read(min(left, BLOCK))):
            summed.update(block)
            left -= len(block)
        assert left == 0
        assert summed.hexdigest() == self.headers["X-Checksum-Sha256"]
        times = web.uploads[key].times + 1 if key in web.uploads else 1
        size = int(self.headers["Content-Length"])
        web.uploads[key] = Upload(size, summed.hexdigest(), self.headers["Content-Type"], times)
        self._answer(201, {"file_id": list(web.uploads).index(key) + 1})

    def _results(self, web: FakeWeb) -> None:
        web.results.append(self._json())
        self._answer(204, None)

    def _failure(self, web: FakeWeb) -> None:
        web.failures.append(self._json())
        self._answer(204, None)

    def _json(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, document: Any) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, web: FakeWeb) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.web = web

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of the tests; what it saw is what they look at."""


@contextmanager
def running_web(context: Any = None) -> Iterator[FakeWeb]:
    """Serve until the block ends; with an SSL `context` over https."""
    web = FakeWeb()
    server = Server(web)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if context is None else "https"
    web.url = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        web.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Agent:
    """Runs the real program as an agent would, against `web`."""

    web: FakeWeb
    home: Path
    python: str = sys.executable
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.program = self.home / "steps.pyz"
        self.program.write_bytes(build_zipapp())
        self.work_dir = self.home / "work" / UUID
        self.outputs = self.work_dir / "outputs"
        executors = self.home / "executors"
        self.sandbox = executors / f"{UUID}.post.1" / "runs" / "container-1"
        self.sandbox.mkdir(parents=True)
        self.job_stdout = executors / f"{UUID}.job.1" / "runs" / "latest" / "stdout"
        self.job_stdout.parent.mkdir(parents=True)
        self.web.orders = {
            "execution": UUID,
            "work_dir": str(self.work_dir),
            "job_task_id": f"{UUID}.job.1",
            "max_output_bytes": 2**40,
            "file_roots": [],
            "forbidden_networks": [],
            "inputs": [],
            "outputs": [],
        }

    def wants(self, uri: str, name: str = "text", **more: Any) -> Path:
        """Order an input and return where it will be."""
        path = f"inputs/{name}/file.txt"
        place = {"name": name, "path": path, "uri": uri}
        self.web.orders["inputs"].append(
            {**place, "stored": False, "size": None, "sha256": None, **more}
        )
        return self.work_dir / path

    def declares(self, name: str, **more: Any) -> None:
        kind = {"name": name, "type": "file", "required": True}
        self.web.orders["outputs"].append({**kind, "pattern": None, "media_type": None, **more})

    @contextmanager
    def started(self, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
        """Start the program; it is gone when the block ends, however it ends."""
        with subprocess.Popen(
            [self.python, str(self.program), *arguments],
            cwd=self.sandbox,
            env={
                "SCALE_API_URL": self.web.url,
                "SCALE_EXECUTION_TOKEN": TOKEN,
                "SCALE_EXECUTION_UUID": UUID,
                "SCALE_AGENT_WORK_DIR": str(self.home / "work"),
                "MESOS_DIRECTORY": str(self.sandbox),
                "SCALE_STEPS_BACKOFF_S": "0.01",
                "SCALE_STEPS_TRIES": "3",
                "SCALE_STEPS_API_TRIES": "3",
                "SCALE_STEPS_STALL_S": "5",
                **self.environ,
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *arguments: str, **environ: str) -> "Ended":
        """Run to the end; whatever happens, no traceback and no token may be seen."""
        with self.started(*arguments, **environ) as process:
            out, err = process.communicate(timeout=30)
        assert "Traceback" not in err, err
        assert TOKEN not in out + err
        assert TOKEN not in json.dumps([self.web.failures, self.web.results])
        return Ended(process.returncode, out, err)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
