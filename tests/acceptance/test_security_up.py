"""What `scale up` shows to whom: its sockets, its files, its log, its tasks' environments."""

import http.client
import http.server
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import psycopg2
import pytest
from stack import OURS, READY_LINE, START_LIMIT_S, Stack, until

LISTEN, LOOPBACK = "0A", {"0100007F", "0" * 24 + "01000000"}
PASSWORD_GUESS = "a-wrong-guess-4711"


def environment(home: Path) -> dict[str, str]:
    """Return what the parts were told; the file is the owner's alone."""
    told: dict[str, str] = json.loads((home / "environment.json").read_text())
    return told


def members(home: Path) -> dict[int, list[str]]:
    """Return command lines of all processes that belong to a stack, by id."""
    parents, lines, roots = {}, {}, set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[pid] = (folder / "cmdline").read_bytes().decode().split("\0")
            mine = f"SCALE_HOME={home}\0".encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
        if mine and "up" in lines[pid]:
            roots.add(pid)
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: lines[pid] for pid in found if pid in lines}


def secrets_of(stack: Stack) -> dict[str, str]:
    told = environment(stack.home)
    return {
        "key": told["SCALE_SECRET_KEY"],
        "Mesos secret": told["SCALE_MESOS_SECRET"],
        "token": stack.token,
    }


def test_all_listen_on_loopback_only(stack: Stack) -> None:
    mine = set()
    for pid in members(stack.home):
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                link = str(descriptor.readlink())
            except OSError:
                continue
            if link.startswith("socket:["):
                mine.add(link[8:-1])
    addresses = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in mine and (words[3] == LISTEN or "udp" in table):
                addresses.append(words[1].partition(":")[0])
    assert len(addresses) >= 3, "web, the master and the agent listen"
    assert set(addresses) <= LOOPBACK


def test_no_command_line_holds_a_secret(stack: Stack) -> None:
    lines = members(stack.home)
    assert len(lines) > 5
    everything = json.dumps(lines)
    for name, secret in secrets_of(stack).items():
        assert secret not in everything, name


def test_what_is_private_can_be_read_by_its_owner_only(stack: Stack) -> None:
    stack.ended(stack.submit(stack.job_type("true")))
    stack.upload("a.txt", b"private")
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700
    sockets = environment(stack.home)["DATABASE_URL"]
    folder = Path(parse_qs(urlsplit(sockets).query)["host"][0])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_database_holds_no_token_and_no_password(stack: Stack) -> None:
    dumped = []
    with psycopg2.connect(environment(stack.home)["DATABASE_URL"]) as session:
        cursor = session.cursor()
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            dumped += [text for (text,) in cursor.fetchall()]
        cursor.execute("SELECT password FROM auth_user")
        assert all(text.startswith(("pbkdf2_", "!")) for (text,) in cursor.fetchall())
    session.close()
    everything = "\n".join(dumped)
    assert "knox" in everything
    for name, secret in secrets_of(stack).items():
        assert secret not in everything, name


def test_a_job_gets_no_secret_and_no_open_file_of_ours(stack: Stack) -> None:
    script = "env; ls -l /proc/self/fd; cat /proc/self/cgroup 2>/dev/null; true"
    details = stack.ended(stack.submit(stack.job_type("sh", f"-c '{script}'")))
    log = stack.call("GET", f"/job-executions/{details['id']}/logs/stdout/").text
    for name, secret in secrets_of(stack).items():
        assert secret not in log, name
    assert not re.search(r"^(DATABASE_URL|SCALE_(SECRET|MESOS|BROKER|EXECUTION_TOKEN))", log, re.M)
    opened = re.findall(r" (\d+) -> (.*)", log)
    strange = [
        target
        for number, target in opened
        if int(number) > 2 and not target.startswith(("/proc/", "pipe:"))
    ]
    assert strange == []


class Slow(http.server.BaseHTTPRequestHandler):
    """Keeps the pre phase waiting until the test says go."""

    def do_GET(self) -> None:
        self.server.release.wait(30)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"text")

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def slow() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    server.release = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.release.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def token_of_the_task(uuid: str) -> str:
    """Return the token from the environment of the steps program, as root of the agent could."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        told = dict(line.partition("=")[::2] for line in lines)
        if told.get("SCALE_EXECUTION_UUID") == uuid:
            return told["SCALE_EXECUTION_TOKEN"]
    return ""


def with_files(stack: Stack) -> dict[str, Any]:
    interface = {
        "input_data": [{"name": "text", "type": "file"}],
        "output_data": [{"name": "out", "type": "file", "pattern": "out.txt", "required": False}],
    }
    return stack.job_type("sh", "-c 'until [ -e go ]; do sleep 0.05; done'", interface=interface)


def test_a_tasks_token_opens_one_execution_and_dies_with_the_task(
    stack: Stack, slow: http.server.ThreadingHTTPServer
) -> None:
    job_type = with_files(stack)
    uri = {"uri": f"http://127.0.0.1:{slow.server_port}/"}
    first, other = (stack.submit(job_type, text=uri) for _ in range(2))
    uuid = stack.last_execution(first)["uuid"]
    token = until(lambda: token_of_the_task(uuid))

    def ask(uuid: str, path: str = "orders/", method: str = "GET") -> int:
        where = f"/agent/executions/{uuid}/{path}"
        given = {"Authorization": f"Bearer {token}"}
        return stack.call(method, where, headers=given).status

    assert ask(uuid) == 200
    assert ask(stack.last_execution(other)["uuid"]) == 401
    assert stack.call("GET", "/jobs/", headers={"Authorization": f"Bearer {token}"}).status == 401
    assert stack.call("GET", "/jobs/", headers={"Authorization": f"Token {token}"}).status == 401
    shown = json.dumps([stack.last_execution(first), stack.get(f"/jobs/{first}/")])
    assert token not in shown
    slow.release.set()  # type: ignore[attr-defined]
    until(lambda: stack.last_execution(first)["job_started"])
    assert ask(uuid) == 401, "the job phase has begun"
    for job_id in (first, other):
        until(lambda job_id=job_id: stack.last_execution(job_id)["job_started"])
        (stack.work_folder(stack.last_execution(job_id)) / "go").touch()
    assert stack.ended(first)["status"] == "COMPLETED"
    assert ask(uuid) == 401
    assert ask(uuid, "outputs/?output=out&name=out.txt", "PUT") == 401
    stack.ended(other)


def test_logs_and_files_are_for_those_who_may_read_them(stack: Stack) -> None:
    """The paths that do not go through Django, too."""
    file_id = stack.upload("page.html", b"<script>alert(1)</script>", "text/html")
    details = stack.ended(stack.submit(stack.job_type("echo", "classified")))
    logs = f"/job-executions/{details['id']}/logs"
    paths = [
        f"{prefix}{path}"
        for prefix in ("", "/v3")
        for path in (
            f"{logs}/",
            f"{logs}/stdout/",
            f"{logs}/combined/",
            f"{logs}/stream/?stream=stdout",
            f"/files/{file_id}/content/",
        )
    ]
    for path in paths:
        for given in ("", "Token " + "0" * 64, "Bearer x", "Basic YWRtaW46YWRtaW4="):
            answer = stack.call("GET", path, headers={"Authorization": given})
            assert answer.status == 401, path
            assert b"classified" not in answer.body
            assert b"script" not in answer.body
    served = stack.call("GET", f"/files/{file_id}/content/")
    assert served.headers["content-type"] == "application/octet-stream"
    assert served.headers["content-disposition"].startswith("attachment")
    assert served.headers["x-content-type-options"] == "nosniff"


def test_local_mesos_tells_strangers_nothing(stack: Stack) -> None:
    """Else each user of the machine could read the logs from the agent, and launch tasks."""
    [node] = stack.get("/nodes/")["results"]
    told = environment(stack.home)
    for address in (told["SCALE_MESOS_MASTER"], f"127.0.0.1:{node['port']}"):
        assert asked(address, "GET", "/state") == 401
        for path in ("/tasks", "/flags", "/files/browse?path=/", "/files/read?path=/"):
            assert asked(address, "GET", path) in (401, 404), (address, path)
        assert asked(address, "POST", "/api/v1", b'{"type": "GET_STATE"}') == 401
        assert asked(address, "POST", "/api/v1/scheduler", b'{"type": "SUBSCRIBE"}') in (401, 404)


def asked(address: str, method: str, path: str, body: bytes | None = None) -> int:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_no_path_leads_out_of_the_files_that_are_served(stack: Stack) -> None:
    for path in (
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd",
        "/files/../../etc/passwd",
        "/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd/content/",
    ):
        connection = http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=10)
        connection.request("GET", path, headers={"Authorization": f"Token {stack.token}"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status in (400, 404), path
        assert b"root:" not in body


def dribbling(stack: Stack, path: str) -> http.client.HTTPConnection:
    """Begin a request whose body never comes."""
    connection = http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=10)
    connection.putrequest("POST", path)
    connection.putheader("Content-Type", "application/x-www-form-urlencoded")
    connection.putheader("Content-Length", "1000")
    connection.putheader("Cookie", "csrftoken=" + "a" * 32)
    connection.endheaders()
    connection.send(b"username=")
    return connection


@pytest.mark.parametrize("path", ["/admin/login/", "/jobs/", "/files/", "/agent/steps.pyz"])
def test_peers_that_send_slowly_keep_nobody_else_waiting(stack: Stack, path: str) -> None:
    file_id = stack.upload("a.txt", b"quick")
    slow = [dribbling(stack, path) for _ in range(20)]
    try:
        time.sleep(0.2)  # for the bodies to be waited for
        for quick in ("/jobs/?page_size=1", f"/files/{file_id}/content/"):
            connection = http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=20)
            connection.request("GET", quick, headers={"Authorization": f"Token {stack.token}"})
            assert connection.getresponse().status == 200
            connection.close()
    finally:
        for connection in slow:
            connection.close()


@pytest.fixture
def run_of_its_own(tmp_path: Path) -> Iterator[Path]:
    """A `scale up` that says all it can say; its folder, with the log beside it."""
    home = tmp_path / "home"
    told = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    told |= {"SCALE_HOME": str(home), "SCALE_LOG_LEVEL": "DEBUG", "SCALE_KILL_GRACE_S": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scale.cli.main", "up", "--port", "0"],
            env=told,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: READY_LINE in (tmp_path / "log").read_text(), START_LIMIT_S)
        yield home
    finally:
        process.terminate()
        process.wait(20)


def form(stack: Stack, username: str, password: str) -> int:
    """Log in at the admin as a browser does; return the status."""
    page = stack.call("GET", "/admin/login/", headers={"Authorization": ""})
    cookie = page.headers["set-cookie"].partition(";")[0]
    [field] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[:1]
    fields = {"username": username, "password": password, "csrfmiddlewaretoken": field}
    given = {"Cookie": cookie, "Authorization": "", "Referer": f"{stack.url}/admin/login/"}
    given["Content-Type"] = "application/x-www-form-urlencoded"
    sent = urlencode(fields | {"next": "/healthz"}).encode()
    return stack.call("POST", "/admin/login/", raw=sent, headers=given).status


def test_no_secret_is_in_the_log_of_a_run_with_trouble(
    run_of_its_own: Path, slow: http.server.ThreadingHTTPServer
) -> None:
    home, log = run_of_its_own, run_of_its_own.parent / "log"
    url = log.read_text().partition(READY_LINE)[2].split()[0]
    stack = Stack(url, home)
    [password] = re.findall(r"password\s+(\S+)", log.read_text())
    secrets = secrets_of(stack)
    assert [form(stack, "admin", PASSWORD_GUESS) for _ in range(2)] == [200, 200]
    assert form(stack, "admin", password) == 200
    wrong = {"Authorization": "Token wrong-token-81"}
    assert stack.call("GET", "/jobs/", headers=wrong).status == 401
    uri = {"uri": f"http://127.0.0.1:{slow.server_port}/?signature=signed-93"}
    job_id = stack.submit(with_files(stack), text=uri)
    uuid = stack.last_execution(job_id)["uuid"]
    secrets["execution's token"] = until(lambda: token_of_the_task(uuid))
    crashed = {name: pid for pid, line in members(home).items() if (name := part(line))}
    assert set(crashed) == {"web", "scheduler", "worker"}
    for pid in crashed.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: is_ready(url), 90)
    slow.release.set()  # type: ignore[attr-defined]
    until(lambda: stack.last_execution(job_id)["job_started"])
    (stack.work_folder(stack.last_execution(job_id)) / "go").touch()
    details = stack.ended(job_id)
    text = log.read_text()
    assert "SIGKILL" in text or "-9" in text or "signal 9" in text
    times = {name: text.count(secret) for name, secret in secrets.items()}
    # The first start shows its owner what it made, once.
    assert times == {"key": 0, "Mesos secret": 0, "execution's token": 0, "token": 1}
    assert text.count(password) == 1
    for secret in (PASSWORD_GUESS, "wrong-token-81", "signed-93"):
        assert secret not in text
    logs = stack.get(f"/job-executions/{details['id']}/logs/")
    everything = logs["stdout"] + logs["stderr"] + json.dumps(details["error_message"])
    assert "signed-93" not in everything
    assert not [name for name, secret in secrets.items() if secret in everything]


def part(line: list[str]) -> str:
    """Return which of our programs a command line starts, if it is one that may be killed."""
    found = [word for word in line if word in {"web", "scheduler", "worker"}]
    return found[0] if found and "scale.cli.main" in line else ""


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
