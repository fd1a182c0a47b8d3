"""A running `scale up`, and what tests ask of it over HTTP."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

READY_LINE = "| ready: "
START_LIMIT_S = 120
#: What the developer's own environment may hold and the stack must not see.
OURS = ("DATABASE_URL", "SCALE_", "DJANGO_SETTINGS_MODULE", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Stack:
    """A running `scale up` and its admin's token."""

    def __init__(self, url: str, home: Path, pid: int = 0) -> None:
        self.url = url
        self.home = home
        self.pid = pid
        self.token = (home / "token").read_text().strip()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        sent = {"Authorization": f"Token {self.token}", **(headers or {})}
        if body is not None:
            raw = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        request = urllib.request.Request(f"{self.url}{path}", method=method, data=raw, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status == 200, answer.text
        return answer.json

    def post(self, path: str, body: Any) -> Any:
        answer = self.call("POST", path, body)
        assert answer.status == 201, answer.text
        return answer.json

    def upload(self, name: str, content: bytes, media_type: str = "text/plain") -> int:
        boundary = uuid4().hex
        head = (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="file"; filename="{name}"\r\nContent-Type: {media_type}\r\n\r\n'
        )
        answer = self.call(
            "POST",
            "/files/",
            raw=head.encode() + content + f"\r\n--{boundary}--\r\n".encode(),
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        assert answer.status == 201, answer.text
        return int(answer.json["id"])

    def job_type(self, command: str, arguments: str = "", **more: Any) -> dict[str, Any]:
        """Register a one-off job type; `interface` in `more` adds inputs and outputs."""
        interface = {"command": command, "command_arguments": arguments}
        interface |= more.pop("interface", {})
        fields = {
            "name": f"t-{uuid4().hex[:12]}",
            "version": "1",
            "cpus_required": 0.1,
            "mem_required": 64,
            "disk_out_const_required": 1,
            "interface": interface,
        }
        made: dict[str, Any] = self.post("/job-types/", fields | more)
        return made

    def submit(self, job_type: dict[str, Any], **inputs: Any) -> int:
        job = self.post("/jobs/", {"job_type_id": job_type["id"], "inputs": inputs})
        return int(job["id"])

    def ended(self, job_id: int, limit_s: float = 40) -> dict[str, Any]:
        """Wait for the end of a job; return its last execution's details."""
        done = ("COMPLETED", "FAILED", "CANCELED")
        until(lambda: self.get(f"/jobs/{job_id}/")["status"] in done, limit_s)
        until(lambda: self.last_execution(job_id)["status"] in done, limit_s)
        return self.last_execution(job_id)

    def last_execution(self, job_id: int) -> dict[str, Any]:
        newest = self.get(f"/jobs/{job_id}/")["job_exes"][0]["id"]
        details: dict[str, Any] = self.get(f"/job-executions/{newest}/")
        return details

    def work_folder(self, execution: dict[str, Any]) -> Path:
        return self.home / "work" / execution["uuid"]


def until(true: Callable[[], Any], limit_s: float = 30) -> Any:
    """Return what `true` returns as soon as that is true; fail after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@contextmanager
def running_stack(home: Path, *, before: Sequence[str] = ()) -> Iterator[Stack]:
    """Run `scale up` in a folder; `before` are words before its command line."""
    log = home.parent / f"{home.name}.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "scale.cli.main", "up", "--port", "0"],
            env=environment | {"SCALE_HOME": str(home), "SCALE_KILL_GRACE_S": "1"},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: READY_LINE in log.read_text() or process.poll() is not None, START_LIMIT_S)
        assert process.poll() is None, log.read_text()
        url = log.read_text().partition(READY_LINE)[2].split()[0]
        yield Stack(url, home, process.pid)
    finally:
        process.terminate()
        process.wait(20)
