"""`scale up` as its user meets it: one command, real processes, nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from test_up_stores import NEEDS_ROOT, servers_on, wait_for

from scale.embedded.postgres import PostgresServer

NOBODY = 65534
PARTS = ("postgres", "valkey", "mesos", "scheduler", "worker", "web")
OURS = ("SCALE_", "DATABASE_URL", "FORCE_COLOR", "NO_COLOR")


class Up:
    """A running `scale up` and its log."""

    def __init__(
        self, home: Path, *options: str, python: str = sys.executable, **others: str
    ) -> None:
        self.home = home
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  close() closes it
        clean = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
        user = others.pop("user", None)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [python, "-m", "scale.cli.main", "up", "--port", "0", *options],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**clean, "SCALE_HOME": str(home), **others},
            user=int(user) if user else None,
            group=int(user) if user else None,
            cwd="/",
        )

    def log(self) -> str:
        return os.pread(self._log.fileno(), 10_000_000, 0).decode()

    def said(self, pattern: str, within_s: float = 120) -> re.Match[str]:
        """Wait until the log has the pattern."""
        deadline = time.monotonic() + within_s
        while not (found := re.search(pattern, self.log(), re.MULTILINE)):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return found

    def ready(self) -> str:
        return self.said(r"^scale +\| ready: (http://\S+)")[1]

    def child(self, name: str) -> int:
        """Return the process id of a part."""
        marks = {
            "postgres": b"/bin/postgres",
            "valkey": b"valkey-server",
            "mesos": b"scale.localmesos",
        }
        mark = marks.get(name, b"scale.cli.main\0" + name.encode())
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in children.split():
            if mark in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        raise AssertionError(f"{name} does not run")

    def stop(self, number: int = signal.SIGINT) -> float:
        """Ask it to stop and wait; return how long it took, in seconds."""
        asked = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        return time.monotonic() - asked

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()
        try:
            wait_for(lambda: not servers_on(self.home))
        finally:
            for pid in servers_on(self.home):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="up-") as folder:
        yield Path(folder) / "home"


@pytest.fixture
def up(home: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*options: str, **others: str) -> Up:
        started.append(Up(home, *options, **others))
        return started[-1]

    yield start
    for each in started:
        each.close()


def answer(url: str, token: str = "") -> int:
    request = Request(url, headers={"Authorization": f"Token {token}"} if token else {})
    try:
        with urlopen(request, timeout=10) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code
    except (URLError, OSError):
        return 0


def manage(home: Path, *words: str) -> str:
    clean = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-m", "scale.cli.main", "manage", *words],
        env={**clean, "SCALE_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_from_the_first_start_to_the_second(up: Callable[..., Up], home: Path) -> None:
    first = up()
    url = first.ready()
    shown = re.findall(r"^│ (username|password|token) +(\S+) +│$", first.log(), re.MULTILINE)
    made = dict(shown)
    assert made["username"] == "admin"
    assert (home / "token").read_text().strip() == made["token"]
    assert (home / "token").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert answer(f"{url}/nodes/") == 401
    assert answer(f"{url}/nodes/", made["token"]) == 200
    right = f"User.objects.get(username='admin').check_password({made['password']!r})"
    check = f"from django.contrib.auth.models import User; print({right})"
    assert "True" in manage(home, "shell", "-v", "0", "-c", check)

    second_of_a_kind = up()
    assert second_of_a_kind.process.wait(timeout=60) == 1
    assert second_of_a_kind.log() == (
        f"scale up: {home} is in use by another `scale up` (process {first.process.pid})\n"
    )

    ports = json.loads((home / "ports.json").read_text())
    assert first.stop() < 10
    assert first.process.returncode == 0
    assert not servers_on(home)

    second = up()
    url = second.ready()
    assert "password" not in second.log()
    assert made["token"] not in second.log()
    assert json.loads((home / "ports.json").read_text()) == ports
    assert answer(f"{url}/nodes/", made["token"]) == 200
    assert second.stop(signal.SIGTERM) < 10
    assert second.process.returncode == 0


def test_every_part_that_is_killed_comes_back_and_a_killed_up_leaves_nothing(
    up: Callable[..., Up], home: Path
) -> None:
    running = up()
    url = running.ready()
    web = running.child("web")
    for name in PARTS:
        os.kill(running.child(name), signal.SIGKILL)
    for name in PARTS:
        running.said(rf"^scale +\| {name} was killed by signal SIGKILL; it starts again in 1 s$")
    wait_for(lambda: answer(f"{url}/readyz") == 200, within_s=90)
    assert running.child("web") != web

    os.kill(running.process.pid, signal.SIGKILL)
    wait_for(lambda: not servers_on(home))
    assert not list(home.glob("pg*/postmaster.pid")), "PostgreSQL did not shut down cleanly"

    again = up()
    again.ready()
    assert again.stop() < 10


def test_what_the_user_names_is_used_and_not_started(up: Callable[..., Up], home: Path) -> None:
    theirs = home.parent / "theirs"
    theirs.mkdir()
    server = PostgresServer(theirs, fsync=False)
    server.start()
    try:
        running = up(DATABASE_URL=server.url)
        url = running.ready()
        assert "DATABASE_URL is set: it is used, and none is started here" in running.log()
        assert not list(home.glob("pg*"))
        assert answer(f"{url}/readyz") == 200
        running.stop()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        ({"SCALE_OFFER_HOLD_S": "soon"}, ["SCALE_OFFER_HOLD_S: must be a number"]),
        (
            {"DATABASE_URL": "mysql://x", "SCALE_MESOS_MASTER": "nowhere"},
            ["DATABASE_URL: must be postgresql://", "SCALE_MESOS_MASTER: must be host:port"],
        ),
    ],
)
def test_bad_settings_stop_the_start_by_name_before_anything_runs(
    up: Callable[..., Up], home: Path, variables: dict[str, str], lines: Sequence[str]
) -> None:
    refused = up(**variables)
    assert refused.process.wait(timeout=60) == 1
    assert refused.log().startswith("scale up: Scale cannot start:\n")
    for line in lines:
        assert line in refused.log()
    assert not list(home.glob("pg*"))


def test_a_taken_port_is_refused_in_one_line_before_anything_runs(
    up: Callable[..., Up], home: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = up("--port", str(port))
        assert refused.process.wait(timeout=60) == 1
    assert refused.log() == (
        f"scale up: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "choose another with --port\n"
    )
    assert not list(home.glob("pg*"))


def test_a_part_that_cannot_start_stops_everything_with_its_own_words(
    up: Callable[..., Up], home: Path
) -> None:
    home.mkdir()
    PostgresServer(home, fsync=False).launch()
    with (home / "pg18" / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting = on\n")
    failing = up()
    assert failing.process.wait(timeout=60) == 1
    assert failing.log().count('unrecognized configuration parameter "no_such_setting"') == 3
    assert failing.log().endswith(
        "scale up: postgres ended with exit code 1, 3 times of 3; what it said is above\n"
    )
    assert not servers_on(home)


def interpreter_for_nobody() -> str | None:
    """Return a Python that an ordinary user may run and that finds our dependencies."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            tried = subprocess.run(
                [python, "-c", "import django, redis, scale.cli.main"],
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                user=NOBODY,
                group=NOBODY,
                cwd="/",
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return python
    return None


@NEEDS_ROOT
def test_an_ordinary_user_can_do_all_that(up: Callable[..., Up], home: Path) -> None:
    python = interpreter_for_nobody()
    if python is None:
        pytest.skip("no Python here that an ordinary user may run")
    os.chown(home.parent, NOBODY, NOBODY)
    path = os.pathsep.join(filter(None, sys.path))
    running = up(python=python, user=str(NOBODY), PYTHONPATH=path)
    url = running.ready()
    assert answer(f"{url}/nodes/", (home / "token").read_text().strip()) == 200
    assert home.stat().st_uid == NOBODY
    assert running.stop() < 10
