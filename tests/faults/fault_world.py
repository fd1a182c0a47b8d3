"""The real processes of one installation, each of which can be killed and started again."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg2
from fault_mesos import LocalMesos, Loss
from fault_program import PYTHON, Program, free_ports, wait_for

from scale.embedded.postgres import PostgresServer
from scale.embedded.valkey import Valkey

#: What the developer's own environment may hold and the processes must not see.
OURS: Final = ("DATABASE_URL", "SCALE_", "DJANGO_SETTINGS_MODULE", "PG")

#: A leader that is stopped in a transaction is not waited for as long as elsewhere (settings.py).
IMPATIENT: Final = "options=-c%20idle_in_transaction_session_timeout%3D3s"

#: For how long the tasks of an agent that is out of reach are waited for.
UNREACHABLE_GRACE_S: Final = 4


class Database:
    """Reads with a session of its own, which is opened anew when the server was restarted."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: Any = None

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        for _ in range(3):
            try:
                return self._ask(query, values)
            except psycopg2.OperationalError:
                self.close()
                time.sleep(0.1)
        return self._ask(query, values)

    def one(self, query: str, *values: Any) -> Any:
        return self.rows(query, *values)[0][0]

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _ask(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._session is None:
            self._session = psycopg2.connect(self._url, application_name="harness")
            self._session.autocommit = True
        with self._session.cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())


class World:
    """PostgreSQL, Valkey, local Mesos with several agents, schedulers, web and worker."""

    def __init__(self, home: Path, *, small_disk: bool = False) -> None:
        """Live in `home`; `small_disk` means that `home/db` is a file system to be filled."""
        self.home = home
        self.small_disk = small_disk
        self.witness = home / "witness"
        self.work = home / "work"
        self.files = home / "files"
        for folder in (self.work, self.files, home / "log", home / "mesos"):
            folder.mkdir()
        self.witness.touch()
        self.postgres = PostgresServer(home / "db", sockets=home)  # fsync on
        self.database = Database(self.postgres.url)
        self.clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        self._web_port, self._wire_port, master_port, agent_port = free_ports()
        self.url = f"http://127.0.0.1:{self._web_port}"
        self.token = ""
        valkey = Valkey(home / "valkey", sockets=home)
        self.environment = self.clean | {
            "SCALE_HOME": str(home),
            "SCALE_SECRET_KEY": "only for the fault harness",
            "SCALE_API_URL": self.url,
            "SCALE_STORAGE_DIR": str(self.files),
            "DATABASE_URL": f"{self.postgres.url}&{IMPATIENT}",
            "SCALE_BROKER_URL": valkey.url,
            "SCALE_AGENT_WORK_DIR": str(self.work),
            "SCALE_AGENT_PYTHON": sys.executable,
            "SCALE_KILL_GRACE_S": "1",
            "SCALE_LEASE_S": "10",
            "SCALE_UNREACHABLE_GRACE_S": str(UNREACHABLE_GRACE_S),
            "SCALE_TESTING": "true",
        }
        self.valkey = Program(home / "log/valkey", valkey.launch(), self.clean)
        self.mesos = LocalMesos(home, self.clean, master_port, agent_port)
        self.mood = home / "mood"
        ports = (str(self._wire_port), str(master_port))
        wire = (
            sys.executable,
            str(Path(__file__).with_name("bad_wire.py")),
            *ports,
            str(self.mood),
        )
        self.wire = Program(home / "log/wire", wire, self.clean)
        self.web = self._ours("web", "--port", str(self._web_port))
        self.worker = self._ours("worker", "--schedule", str(home / "schedule"))
        self.schedulers: list[Program] = []
        #: What is not to be started again for the moment.
        self.down: set[Program] = set()
        self.scheduler_ends: list[int] = []
        #: When web was away for longer than pre waits for it.
        self.web_away: list[Loss] = []
        self._started = 0

    # Starting and stopping.

    def start(self) -> None:
        self._start_postgres()
        self.valkey.start()
        self.mesos.start()
        principal, secret = self.mesos.credentials()
        self.environment |= {
            "SCALE_MESOS_MASTER": f"127.0.0.1:{self._wire_port}",
            "SCALE_MESOS_PRINCIPAL": principal,
            "SCALE_MESOS_SECRET": secret,
        }
        self.wire.start()
        self._first_start()
        self.start_scheduler()
        self.web.start()
        self.worker.start()
        wait_for(lambda: self.call("GET", "/readyz")[0] == 200, "the installation", 60)

    def stop(self) -> None:
        for program in (self.worker, self.web, self.wire, *self.schedulers):
            program.send(signal.SIGCONT)
            program.end()
        self.mesos.stop()
        self.valkey.end()
        self.database.close()
        self.postgres.stop()

    def start_scheduler(self, **variables: str) -> Program:
        """Start one more scheduler, whose sessions in PostgreSQL have a name of their own."""
        self._started += 1
        name = f"scheduler-{self._started}"
        made = self._ours("scheduler", **{"PGAPPNAME": name, **variables})
        made.start()
        self.schedulers.append(made)
        return made

    def drop_scheduler(self, program: Program) -> None:
        """End a scheduler at once; nobody starts it again."""
        self.schedulers.remove(program)
        program.end()

    def restart_postgres(self, number: int) -> None:
        """Stop it by SIGINT (fast) or SIGQUIT (immediate), and start it again."""
        with suppress(OSError):  # it may have ended by itself
            os.kill(int((self.postgres.data / "postmaster.pid").read_text().split()[0]), number)
        self.postgres.stop()
        self._start_postgres()

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """Fill the disk of PostgreSQL, and make room again."""
        ballast = self.home / "db/ballast"
        try:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                for size in (1 << 20, 1 << 12):
                    with suppress(OSError):
                        while file.write(bytes(size)):
                            pass
            yield
        finally:
            ballast.unlink()

    def revive_postgres(self) -> None:
        """Start the server again if it ended, or could not."""
        try:
            self.database.one("SELECT 1")
        except psycopg2.OperationalError:
            self.restart_postgres(signal.SIGQUIT)

    def tend(self) -> None:
        """Start again what has ended, as a supervisor would; at least one scheduler there is."""
        for program in list(self.schedulers):
            if program.ended and program not in self.down:
                assert program.process is not None
                self.scheduler_ends.append(program.process.returncode)
                self.schedulers.remove(program)
        if not self.schedulers:
            self.start_scheduler()
        for program in (self.web, self.worker, self.valkey):
            if program.ended and program not in self.down:
                program.start()

    def _start_postgres(self) -> None:
        """Start the server, which writes its log to what is our standard error then."""
        ours = os.dup(2)
        with (self.home / "log/postgres").open("ab") as sink:
            os.dup2(sink.fileno(), 2)
        try:
            self.postgres.start()
        finally:
            os.dup2(ours, 2)
            os.close(ours)

    def _ours(self, name: str, *arguments: str, **variables: str) -> Program:
        command = (*PYTHON, "scale.cli.main", name, *arguments)
        named = {"PGAPPNAME": name, **variables}
        return Program(self.home / "log" / name, command, self.environment, **named)

    def _first_start(self) -> None:
        reading, writing = os.pipe()
        try:
            subprocess.run(
                [*PYTHON, "scale.embedded.first_start", str(writing), "alone"],
                env=self.environment,
                pass_fds=[writing],
                stdout=subprocess.DEVNULL,
                check=True,
            )
        finally:
            os.close(writing)
        with os.fdopen(reading) as report:
            self.token = json.load(report)["token"]

    # Asking.

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and JSON; 0 if web does not answer."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Token {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, ValueError):
            return 0, None

    def upload(self, source: Path) -> tuple[int, Any]:
        boundary = uuid4().hex
        head = (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="file"; filename="{source.name}"\r\nContent-Type: text/plain\r\n\r\n'
        )
        request = urllib.request.Request(
            self.url + "/files/",
            head.encode() + source.read_bytes() + f"\r\n--{boundary}--\r\n".encode(),
            {
                "Authorization": f"Token {self.token}",
                "Content-Type": f"multipart/form-data; boundary={boundary}",
            },
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)

    def text(self, path: str) -> str:
        headers = {"Authorization": f"Token {self.token}"}
        with urllib.request.urlopen(
            urllib.request.Request(self.url + path, headers=headers), timeout=10
        ) as answer:
            text: str = answer.read().decode()
            return text

    def log(self, name: str) -> str:
        """Return what the processes of this name have written."""
        return (self.home / "log" / name).read_text(errors="replace")

    def said(self, name: str, words: str) -> int:
        """Return how often they have said this."""
        return self.log(name).count(words)

    def leader(self) -> Program | None:
        """Return the scheduler that holds the lock."""
        named = self.database.rows(
            "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted"
        )
        names = {name for (name,) in named}
        return next((one for one in self.schedulers if one.name in names), None)

    def waiting_schedulers(self) -> int:
        return int(
            self.database.one(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            )
        )

    def tasks(self) -> Iterator[dict[str, str]]:
        """Yield the environment, as local Mesos gave it, of each living process of a task."""
        mark = b"MESOS_SANDBOX=" + os.fsencode(self.home)
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and mark in (found := (folder / "environ").read_bytes()):
                    words = found.decode(errors="replace").split("\0")
                    yield {name: text for name, _, text in (word.partition("=") for word in words)}

    def wanted_tasks(self) -> set[str]:
        """Return the tasks that some row knows and waits for."""
        rows = self.database.rows(
            "SELECT task_id FROM job_execution WHERE state IN ('starting', 'running')"
            " UNION SELECT cleanup_task_id FROM job_execution WHERE cleanup_owed"
            " UNION SELECT probe_task_id FROM node"
        )
        return {task_id for (task_id,) in rows}


def new_home() -> Path:
    """Make a folder whose sockets have short paths."""
    return Path(tempfile.mkdtemp(prefix="scale-faults-"))
