"""SCALE_HOME: the one folder that outlives a run, and the lock that keeps a second run out."""

import fcntl
import json
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from scale.embedded.errors import CannotStart

# sun_path has 108 bytes on Linux and 104 elsewhere, with the ending zero.
_LONGEST_SOCKET_PATH = 103
_LONGEST_SOCKET_NAME = len("/.s.PGSQL.5432")
_LEFTOVERS_END_WITHIN_S = 15.0


def default_home(environ: Mapping[str, str]) -> Path:
    """Return SCALE_HOME, or where it is when nobody said so."""
    chosen = environ.get("SCALE_HOME")
    return Path(chosen).absolute() if chosen else Path.home() / ".local/share/scale"


class Home:
    """The folder of one embedded installation; nobody else may look into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mesos = path / "mesos"
        self.worker = path / "worker"
        self.token = path / "token"
        self.admin_pending = path / "admin-not-shown"
        self._environment = path / "environment.json"
        self._ports = path / "ports.json"

    def make(self) -> None:
        """Make the folder if there is none; raise CannotStart if it is not ours."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            for folder in (self.mesos, self.worker):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CannotStart(f"SCALE_HOME {self.path} cannot be used: {error.strerror}") from None

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the folder; yield the descriptor that every child inherits.

        The lock lasts until the last process that has the descriptor is gone. So whoever holds it
        knows that no process of an earlier, killed run still works on the data.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + _LEFTOVERS_END_WITHIN_S
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                if _alive(pid):
                    raise CannotStart(
                        f"{self.path} is in use by another `scale up` (process {pid})"
                    ) from None
                if time.monotonic() > deadline:
                    raise CannotStart(
                        f"{self.path} is still in use by what process {pid} started"
                    ) from None
                time.sleep(0.05)

    @contextmanager
    def sockets(self) -> Iterator[Path]:
        """Yield a private folder whose path is short enough for Unix sockets.

        Where SCALE_HOME is too deep it is a temporary one; its name is remembered, so that
        a killed run leaves one folder behind at most.
        """
        inside = self.path / "run"
        if len(os.fsencode(inside)) + _LONGEST_SOCKET_NAME <= _LONGEST_SOCKET_PATH:
            inside.mkdir(mode=0o700, exist_ok=True)
            yield inside
            return
        folder = self._remembered_folder() or self._temporary_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (self.path / "run-folder").unlink(missing_ok=True)

    def _remembered_folder(self) -> Path | None:
        with suppress(OSError):
            folder = Path((self.path / "run-folder").read_text())
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                folder.chmod(0o700)
                return folder
        return None

    def _temporary_folder(self) -> Path:
        parent = os.environ.get("XDG_RUNTIME_DIR", "")
        if not os.access(parent, os.W_OK | os.X_OK) or len(os.fsencode(parent)) > 60:
            parent = "/tmp"  # noqa: S108  mkdtemp makes a private folder in it
        folder = tempfile.mkdtemp(prefix="scale-", dir=parent)
        _write_private(self.path / "run-folder", folder)
        return Path(folder)

    def secret_key(self) -> str:
        """Return the key of this installation; made once, because it signs sessions."""
        path = self.path / "secret_key"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(50))
        return path.read_text().strip()

    def write_token(self, token: str) -> None:
        _write_private(self.token, token + "\n")

    def remember_ports(self, ports: tuple[int, int]) -> None:
        _write_private(self._ports, json.dumps(ports))

    def forget_ports(self) -> None:
        self._ports.unlink(missing_ok=True)

    def ports(self) -> tuple[int, int]:
        """Return local Mesos' last ports, master's first; 0 where the kernel is to choose."""
        with suppress(OSError, ValueError, TypeError):
            master, agent = json.loads(self._ports.read_text())
            return int(master), int(agent)
        return 0, 0

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Keep what the parts are told, so that `scale manage` in another shell can be told too."""
        ours = {n: t for n, t in variables.items() if n.startswith(("SCALE_", "DATABASE_URL"))}
        _write_private(self._environment, json.dumps(ours, indent=1))

    def environment(self) -> dict[str, str]:
        """Return what the parts were told by the last run; empty if there was none."""
        with suppress(OSError, ValueError):
            return {
                str(name): str(value)
                for name, value in json.loads(self._environment.read_text()).items()
            }
        return {}


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; only we may read it, at every moment."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
