"""A database of so many executions and a web process over it, for `rest`."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from scale.embedded.postgres import PostgresServer

#: For the build: what is filled in the transaction that emptied it takes no write-ahead log.
_BUILDING: Final = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "autovacuum": "off",
}


@dataclass(frozen=True, slots=True)
class Served:
    """A web process, a token for it, and the server of its database."""

    port: int
    token: str
    web: int
    postmaster: int


@contextmanager
def running(size: int) -> Iterator[Served]:
    """Build a database of so many executions and serve it, for as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="scale-bench-") as folder, ExitStack() as stack:
        os.environ["DATABASE_URL"] = f"postgresql:///scale?host={quote(folder)}&user=scale"
        os.environ["SCALE_STORAGE_DIR"] = f"{folder}/files"
        use_database(os.environ["DATABASE_URL"])
        from scale.embedded.postgres import PostgresServer

        server = PostgresServer(Path(folder))
        server.start()
        stack.callback(server.stop)
        build(size, server)
        stack.enter_context(signs_of_life())
        port, web = stack.enter_context(web_process())
        postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
        yield Served(port, make_token(), web.pid, postmaster)


def use_database(url: str) -> None:
    """Point Django, which is set up with the first database only, at this one."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scale.settings")
    django.setup()
    from django.db import connection

    from scale.env import database_url

    connection.close()
    connection.settings_dict["HOST"] = database_url(url)["HOST"]


def build(size: int, server: "PostgresServer") -> None:
    import dataset
    from django.core.management import call_command
    from django.db import connection

    for setting, value in _BUILDING.items():
        execute(f"ALTER SYSTEM SET {setting} = '{value}'")
    restart(server)
    call_command("migrate", verbosity=0)
    dataset.build(size, lambda text: print(text, flush=True))
    for setting in _BUILDING:
        execute(f"ALTER SYSTEM RESET {setting}")
    execute("CHECKPOINT")
    restart(server)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_size_pretty(pg_database_size(current_database()))")
        print(f"        the database has {cursor.fetchone()[0]}", flush=True)


def restart(server: "PostgresServer") -> None:
    from django.db import connection

    connection.close()
    server.stop()
    server.start()


def execute(statement: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def signs_of_life() -> Iterator[None]:
    """Do what a paused scheduler and the worker do all the time: a heartbeat, the folding."""
    from django.db import connection
    from django.utils import timezone

    from scale.job.tallies import fold
    from scale.scheduler.models import SchedulerState

    ended = threading.Event()

    def live() -> None:
        while not ended.wait(2.0):
            SchedulerState.objects.update_or_create(
                id=SchedulerState.ONLY,
                defaults={
                    "heartbeat": timezone.now(),
                    "is_connected": True,
                    "is_paused": True,
                    "leader": "bench",
                    "master": "127.0.0.1:5050",
                },
            )
            fold(10_000)
        connection.close()

    thread = threading.Thread(target=live)
    thread.start()
    time.sleep(2.5)
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def web_process() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        web = subprocess.Popen(
            [sys.executable, "-P", "-m", "scale.cli.main", "web", "--fd", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env={**os.environ, "SCALE_LOG_LEVEL": "WARNING"},
        )
    try:
        yield port, web
    finally:
        web.terminate()
        web.wait(30)


def make_token() -> str:
    from django.contrib.auth.models import User
    from knox.models import AuthToken

    _, token = AuthToken.objects.create(User.objects.create_superuser("bench"), expiry=None)
    return str(token)
