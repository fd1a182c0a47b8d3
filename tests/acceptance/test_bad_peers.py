"""Servers and jobs that misbehave: each gets a clear error, and a good job beside them none."""

import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, until

TRIES = 2
FILE_IN = {"input_data": [{"name": "text", "type": "file"}]}
#: Not a prefix of anything that a redirect or a path could add.
SECRET = "signature-3f9c"


class BadServer(http.server.BaseHTTPRequestHandler):
    """Answers by path; what is unusual is written to the socket as it is."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/hangs":
            self.server.asked.set()  # type: ignore[attr-defined]
            self.server.release.wait(50)  # type: ignore[attr-defined]
        elif path in ANSWERS:
            self.wfile.write(ANSWERS[path].replace(b"\n", b"\r\n"))
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


ANSWERS = {
    "/gone": b"HTTP/1.0 404 Not Found\n\n",
    "/broken": b"HTTP/1.0 500 Internal Server Error\n\n",
    "/refused": b"HTTP/1.0 403 Forbidden\n\n",
    "/loop": b"HTTP/1.0 302 Found\nLocation: /loop\n\n",
    "/cloud": b"HTTP/1.0 302 Found\nLocation: http://169.254.169.254/latest/meta-data/\n\n",
    "/elsewhere": b"HTTP/1.0 302 Found\nLocation: file:///etc/passwd\n\n",
    "/short": b"HTTP/1.1 200 OK\nContent-Length: 100\n\nonly this",
    "/long": b"HTTP/1.1 200 OK\nContent-Length: 4\n\nmuch more than four bytes",
    "/nonsense": b"\x16\x03\x01\x02\x00 this is no HTTP at all\n\n",
    "/good": b"HTTP/1.0 200 OK\nContent-Length: 5\n\nhello",
}


@pytest.fixture(scope="module")
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BadServer)
    server.daemon_threads = True
    server.asked = threading.Event()  # type: ignore[attr-defined]
    server.release = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.release.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Case:
    """A bad thing, the error that it must get, a word of its sentence, and the attempts made."""

    error: str | None
    says: str
    attempts: int = 1
    uri: str = ""
    command: str = ""
    pattern: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def peer(error: str, says: str, uri: str, attempts: int = 1) -> Case:
    return Case(error, says, attempts, uri=uri)


def output(error: str, says: str, command: str, pattern: str | None = "*.txt") -> Case:
    return Case(error, says, command=f'cd "$SCALE_OUTPUT_DIR"; {command}', pattern=pattern)


DEEP = """python3 -c 'import os
for _ in range(20): os.mkdir("x" * 250); os.chdir("x" * 250)
open("out.txt", "w").write("deep")'"""
MANIFEST = "> results_manifest.json"


def names(path: str) -> str:
    document = f'{{"output_data": [{{"name": "out", "file": {{"path": "{path}"}}}}]}}'
    quoted = document.replace('"', '\\"')
    return f'printf %s "{quoted}" {MANIFEST}'


INVALID = "invalid-results-manifest"
CASES = {
    "answers 404": peer("missing-file", "404", "/gone"),
    "answers 500": peer("pull", "500", "/broken", TRIES),
    "answers 403": peer("pull", "403", "/refused", TRIES),
    "redirects in a loop": peer("pull", "loop", "/loop", TRIES),
    "redirects to where clouds keep credentials": peer(
        "forbidden-input", "169.254.169.254 is in a network", "/cloud"
    ),
    "redirects to a file": peer("forbidden-input", "not http or https", "/elsewhere"),
    "sends less than promised": peer("pull", "100 bytes were promised, 9", "/short", TRIES),
    "sends more than promised": peer("pull", "more than the promised 4", "/long", TRIES),
    "does not speak HTTP": peer("pull", "HTTP", "/nonsense", TRIES),
    "is where clouds keep credentials": peer(
        "forbidden-input", "network that inputs", "http://169.254.169.254/latest/meta-data/"
    ),
    "is that in hexadecimal": peer(
        "forbidden-input", "network that inputs", "http://0xa9fea9fe/latest/"
    ),
    "is that as IPv6": peer("forbidden-input", "network that", "http://[::ffff:169.254.169.254]/"),
    "is where AWS keeps them for IPv6": peer(
        "forbidden-input", "network that", "http://[fd00:ec2::254]/"
    ),
    "is a file of the agent": peer("forbidden-input", "that folder", "file:///etc/passwd"),
    "output is a link out of its folder": output(
        INVALID, "leaves the outputs folder", "ln -s /etc/passwd out.txt"
    ),
    "output is a pipe": output(INVALID, "device, pipe or socket", "mkfifo out.txt"),
    "output has a newline in its name": output(INVALID, "newline", "printf x > 'a\nb.txt'"),
    "output is 5,000 characters deep": output(INVALID, "too deeply", DEEP, "**/*.txt"),
    "output is larger than all disks": output(INVALID, "are allowed", "truncate -s 1T out.txt"),
    "manifest is not JSON": output(INVALID, "is not JSON", f"echo '{{\"output' {MANIFEST}"),
    "manifest is 50 MB": output(INVALID, "larger than", f"head -c 50000000 /dev/zero {MANIFEST}"),
    "manifest is a link": output(
        INVALID, "symbolic link", "ln -s /etc/hostname results_manifest.json"
    ),
    "manifest names a file above": output(INVALID, "'..'", names("../inputs/text/good")),
    "manifest names a file elsewhere": output(INVALID, "outside", names("/etc/passwd")),
    "manifest names 5,000 characters": output(
        INVALID, "longer than", names("y").replace("y", "$(printf %05000d 0)")
    ),
    "outputs folder is removed": output(INVALID, "removed its outputs", 'cd /; rm -r -- "$OLDPWD"'),
    "fills more than a file may have": Case(
        "algorithm-unknown", "", command="ulimit -f 8; exec head -c 10000000 /dev/zero > big"
    ),
    "is good": Case(None, "", uri="/good", command="cat", pattern=None),
}


def submit(stack: Stack, server: http.server.ThreadingHTTPServer, case: Case) -> int:
    interface: dict[str, Any] = {}
    if case.uri:
        interface |= FILE_IN
    if case.pattern:
        interface["output_data"] = [{"name": "out", "type": "file", "pattern": case.pattern}]
    script = case.command or "true"
    quoted = script.replace("'", "'\\''")
    arguments = "${text}" if case.command == "cat" else f"-c '{quoted}'"
    command = "cat" if case.command == "cat" else "sh"
    job_type = stack.job_type(
        command, arguments, interface=interface, max_tries=TRIES, **case.fields
    )
    if not case.uri:
        return stack.submit(job_type)
    base = f"http://127.0.0.1:{server.server_port}" if case.uri.startswith("/") else ""
    query = f"?key={SECRET}" if base else ""
    return stack.submit(job_type, text={"uri": f"{base}{case.uri}{query}"})


@pytest.fixture(scope="module")
def jobs(stack: Stack, server: http.server.ThreadingHTTPServer) -> dict[str, int]:
    """All at once: none of them may disturb another."""
    return {name: submit(stack, server, case) for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_what_is_bad_gets_its_error_and_nothing_else_does(
    stack: Stack, jobs: dict[str, int], name: str
) -> None:
    case = CASES[name]
    details = stack.ended(jobs[name], limit_s=55)
    named = details["error"] and details["error"]["name"]
    assert (named, details["exe_num"]) == (case.error, case.attempts), details["error_message"]
    message = details["error_message"]
    assert case.says in message
    assert message.isprintable()
    assert len(message) <= 1000
    assert SECRET not in message
    log = stack.get(f"/job-executions/{details['id']}/logs/")
    assert SECRET not in log["stdout"] + log["stderr"]
    assert "root:" not in log["stdout"] + message
    until(lambda: not stack.work_folder(details).exists())


def test_an_input_that_hangs_can_be_canceled_and_leaves_nothing(
    stack: Stack, server: http.server.ThreadingHTTPServer
) -> None:
    job_id = submit(stack, server, Case(None, "", uri="/hangs"))
    assert server.asked.wait(30)  # type: ignore[attr-defined]
    assert stack.call("PATCH", f"/jobs/{job_id}/", {"status": "CANCELED"}).status == 200
    began = time.monotonic()
    details = stack.ended(job_id)
    assert details["status"] == "CANCELED"
    assert time.monotonic() - began < 10
    until(lambda: not stack.work_folder(details).exists())


def is_alive(pid: int) -> bool:
    """A zombie is not: it waits only to be looked at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def printed_pids(stack: Stack, execution: dict[str, Any]) -> list[int]:
    log = stack.call("GET", f"/job-executions/{execution['id']}/logs/stdout/")
    return [int(word) for word in log.text.split()]


def test_what_a_job_leaves_running_ends_with_it(stack: Stack) -> None:
    forks = (
        "import os, sys, time\n"
        "for _ in range(2):\n"
        "    if os.fork(): time.sleep(0.5); os._exit(0)\n"
        "    os.setsid()\n"
        "print(os.getpid(), flush=True)\n"
        "for fd in range(3): os.close(fd)\n"
        "time.sleep(300)\n"
    )
    quoted = forks.replace("'", "'\\''")
    job_type = stack.job_type("python3", f"-c '{quoted}'")
    details = stack.ended(stack.submit(job_type))
    assert details["status"] == "COMPLETED"
    [pid] = printed_pids(stack, details)
    until(lambda: not is_alive(pid))


def test_a_job_that_ignores_sigterm_is_ended_all_the_same(stack: Stack) -> None:
    script = 'trap "" TERM; echo $$; while :; do sleep 1; done'
    job_type = stack.job_type("sh", f"-c '{script}'", timeout=1)
    details = stack.ended(stack.submit(job_type))
    assert (details["status"], details["error"]["name"]) == ("FAILED", "timeout")
    assert details["exe_num"] == 1
    [pid] = printed_pids(stack, details)
    until(lambda: not is_alive(pid))
