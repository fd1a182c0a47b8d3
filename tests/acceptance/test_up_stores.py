"""The embedded PostgreSQL and Valkey as real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from scale.embedded import postgres
from scale.embedded.guard import Identity, identity_for_postgres
from scale.embedded.postgres import Binaries, PostgresServer, available
from scale.embedded.valkey import Valkey

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes who it is")


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        yield Path(folder)


def ask(server: PostgresServer, question: str) -> object:
    connection = psycopg2.connect(server.url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(question)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def wait_for(condition: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def servers_on(home: Path) -> list[int]:
    """Return the processes whose command line or working folder is below `home`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            folder = (entry / "cwd").readlink()
        except OSError:
            continue
        if os.fsencode(home) in words or folder.is_relative_to(home):
            found.append(int(entry.name))
    return found


def test_the_database_is_utf8_and_survives_a_restart(home: Path) -> None:
    server = PostgresServer(home)
    server.start()
    try:
        ask(server, "create table kept as select 'straße' as word")
        assert ask(server, "show server_encoding") == "UTF8"
        assert ask(server, "show fsync") == "on"
        assert ask(server, "show listen_addresses") == ""
        assert ask(server, "select current_database() || current_user") == "scalescale"
        server.stop()
        server.start()
        assert ask(server, "select word from kept") == "straße"
    finally:
        server.stop()
    assert servers_on(home) == []
    assert (home / "pg18").stat().st_mode & 0o777 == 0o700


def test_a_killed_server_comes_back_with_everything_that_was_committed(home: Path) -> None:
    server = PostgresServer(home)
    server.start()
    ask(server, "create table kept as select 1 as n")
    pid = int((server.data / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    server.stop()
    wait_for(lambda: not servers_on(home))
    server.start()
    try:
        assert ask(server, "select n from kept") == 1
    finally:
        server.stop()


def test_a_half_made_data_folder_is_made_anew(home: Path) -> None:
    (home / "pg18.new").mkdir()
    (home / "pg18.new" / "PG_VERSION").write_text("18\n")
    server = PostgresServer(home, fsync=False)
    server.start()
    try:
        assert ask(server, "show fsync") == "off"
    finally:
        server.stop()
    assert not (home / "pg18.new").exists()


@pytest.mark.parametrize(
    "identity", [None, pytest.param(Identity.NOBODY, marks=NEEDS_ROOT)], ids=["usual", "nobody"]
)
def test_the_server_ends_with_a_parent_that_was_killed(
    home: Path, identity: Identity | None
) -> None:
    script = (
        "import os, sys; from pathlib import Path; from scale.embedded import postgres\n"
        "from scale.embedded.guard import Identity\n"
        "if sys.argv[2]: postgres.identity_for_postgres = lambda: Identity[sys.argv[2]]\n"
        "postgres.PostgresServer(Path(sys.argv[1]), fsync=False).start()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-c", script, str(home), identity.name if identity else ""]
    done = subprocess.run(words, stderr=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    wait_for(lambda: not servers_on(home))
    assert not list(home.glob("pg*/postmaster.pid")), "the shutdown was not a clean one"


@NEEDS_ROOT
def test_root_may_change_between_a_user_namespace_and_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for identity in (identity_for_postgres(), Identity.NOBODY, identity_for_postgres()):
        monkeypatch.setattr(postgres, "identity_for_postgres", lambda who=identity: who)
        server = PostgresServer(home, fsync=False)
        server.start()
        try:
            ask(server, "create table if not exists kept as select 1")
        finally:
            server.stop()


def test_the_systems_own_server_serves_where_the_wheel_has_none(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems: list[Binaries] = [each for each in available() if "/usr/lib" in str(each.folder)]
    if not systems:
        pytest.skip("no PostgreSQL is installed on this machine")
    monkeypatch.setattr(postgres, "available", lambda: systems)
    server = PostgresServer(home, fsync=False)
    server.start()
    try:
        assert ask(server, "show server_version_num").startswith(str(systems[0].major))
    finally:
        server.stop()


def test_valkey_answers_and_keeps_what_it_was_given(home: Path) -> None:
    valkey = Valkey(home / "valkey", sockets=home)

    async def until_ready() -> None:
        async with asyncio.timeout(30):
            while await valkey.missing(0):
                await asyncio.sleep(0.01)

    import redis

    for round_trip in (lambda r: r.set("kept", "yes"), lambda r: r.get("kept") == b"yes"):
        process = subprocess.Popen(valkey.launch(), stdout=subprocess.DEVNULL)
        try:
            asyncio.run(until_ready())
            with redis.Redis(unix_socket_path=str(home / "valkey.sock")) as client:
                assert round_trip(client)
        finally:
            process.terminate()
            process.wait()
