"""The keeper of local Mesos: starts a process per part, and again whichever ends.

It holds the sockets, so that a part that is started again has the address that it had; while a part
is away its port refuses connections. Parts are forked from this process, which has one thread and
no event loop, and has imported everything: a part is back within milliseconds. They are killed by
the kernel if the keeper dies.
"""

import ctypes
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from scale.localmesos.http import Credentials
from scale.localmesos.locks import wait_until_free
from scale.localmesos.options import Options
from scale.localmesos.parts import AgentPart, MasterPart, Surroundings, folder_of, run_part
from scale.localmesos.serving import await_threads

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
CALM_S: Final = 1.0  # a part that was ready and lived that long has not failed to start
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
MASTER_ENDS_S: Final = 3.0
AGENT_ENDS_S: Final = 12.0  # beyond the tasks' grace


class CannotStart(Exception):
    """A part ended before everything was ready; it has said why."""


@dataclass(slots=True)
class Part:
    """One process after the other, on one socket."""

    name: str
    http: socket.socket
    make: Callable[[Surroundings], MasterPart | AgentPart]
    pause_s: float  # before a restart
    pid: int = 0
    ready: bool = False
    started: float = 0.0
    failures: int = 0  # in a row, soon after the start
    start_at: float | None = None
    report: int = -1  # read end of the pipe on which it says that it is ready

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.http.getsockname())

    @property
    def wait_s(self) -> float:
        """Return how long to wait before the next start: twice as long after each failure."""
        if not self.failures:
            return self.pause_s
        doubled = max(self.pause_s, FIRST_PAUSE_S) * 2.0 ** min(self.failures - 1, 16)
        return min(doubled, max(LONGEST_PAUSE_S, self.pause_s))


def bound(ip: str, port: int) -> socket.socket:
    """Return a socket bound to a port of ours, also while nobody listens on it.

    A port that the kernel chose would be given back when listening ends (SOCK_BINDPORT_LOCK in
    Linux), hence the second bind.
    """
    first = _bind(ip, port)
    if port:
        return first
    with first:
        return _bind(ip, first.getsockname()[1])


def _bind(ip: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((ip, port))
    except OSError:
        made.close()
        raise
    return made


def _links_socket(folder: int) -> socket.socket:
    """Return the socket to which agents connect; only this user may.

    It is bound through the folder's descriptor, for a path in it may be too long (108 bytes).
    """
    path = _links_path(folder)
    Path(path).unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(path)
    finally:
        os.umask(before)
    made.listen(1024)
    return made


def _links_path(folder: int) -> str:
    return f"/proc/self/fd/{folder}/links"


class Supervisor:
    """Keeps the parts until SIGTERM."""

    def __init__(self, given: Options, known: Credentials, locked: int) -> None:
        """Prepare; `locked` is the lock of the work folder."""
        self.options = given
        self.parts: list[Part] = []
        self._credentials = known
        self._lock = locked
        self._selector = selectors.DefaultSelector()
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stop = False
        self._announced = False

    def run(self) -> None:
        """Keep everything running until SIGTERM, then end everything.

        Raises:
            OSError: a port is taken.
            RuntimeError: what an earlier run left does not end.
            CannotStart: a part could not start the first time.
        """
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of an agent that dies stay within reach
        meta = self.options.work_dir / "meta"
        meta.mkdir(mode=0o700, exist_ok=True)
        # Those of an earlier run die with their keeper, but not at the same moment.
        wait_until_free([*meta.glob("*/lock"), *meta.glob("*/guard.lock")])
        self._folder = os.open(meta, os.O_RDONLY | os.O_CLOEXEC)
        self._links = _links_socket(self._folder)
        self._listen()
        self._make_parts()
        try:
            for part in self.parts:
                self._start(part)
            while not self._stop:
                self._turn()
        finally:
            self._end_all()

    def _make_parts(self) -> None:
        given = self.options
        http = bound(given.ip, given.port)
        folder = _made(folder_of(given.work_dir, "master"))
        self.parts = [Part("master", http, lambda around: MasterPart(around, http, folder), 0.0)]
        for number in range(given.agents):
            self.parts.append(self._agent(number))

    def _agent(self, number: int) -> Part:
        given, name = self.options, f"agent-{number + 1}"
        http = bound(given.ip, given.agent_port + number if given.agent_port else 0)
        folder = _made(folder_of(given.work_dir, name))
        return Part(
            name,
            http,
            lambda around: AgentPart(around, http, folder, number),
            given.agent_restart_s,
        )

    # --- waiting -------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Have signals wake us by a pipe, as they may come at any moment."""
        signal.set_wakeup_fd(self._wakeup[1])
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ)

    def _turn(self) -> None:
        """Wait for a signal, a part that is ready or one that is due, and act on it."""
        due = [part.start_at for part in self.parts if part.start_at is not None]
        wait_s = max(0.0, min(due) - time.monotonic()) if due else None
        for key, _ in self._selector.select(wait_s):
            if key.fileobj == self._wakeup[0]:
                self._take_signals()
            elif isinstance(key.data, Part) and key.data.report == key.fd:  # else it ended just now
                self._take_report(key.data)
        if self._stop:
            return
        now = time.monotonic()
        for part in self.parts:
            if part.start_at is not None and part.start_at <= now:
                self._start(part)

    def _take_signals(self) -> None:
        numbers = os.read(self._wakeup[0], 4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop = True
        self._reap()

    def _take_report(self, part: Part) -> None:
        part.ready = bool(os.read(part.report, 1))
        self._forget_report(part)
        if all(each.ready for each in self.parts) or (self._announced and part.ready):
            self._announce()

    def _forget_report(self, part: Part) -> None:
        if part.report >= 0:
            self._selector.unregister(part.report)
            os.close(part.report)
            part.report = -1

    # --- parts ---------------------------------------------------------------------------------

    def _start(self, part: Part) -> None:
        part.start_at, part.ready = None, False
        part.started = time.monotonic()
        try:
            self._fork(part)
        except OSError as error:  # too many processes, or no memory
            if not self._announced:
                raise
            logger.warning("%s cannot be started: %s", part.name, error)
            part.failures += 1
            part.start_at = time.monotonic() + part.wait_s

    def _fork(self, part: Part) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        family = (os.getpid(), os.getppid())
        # A signal for the child must not end up in our wakeup pipe, which it still has.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(part, family, writing)
        except OSError:
            os.close(reading)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            os.close(writing)
        part.pid, part.report = pid, reading
        self._selector.register(reading, selectors.EVENT_READ, part)

    def _become(self, part: Part, family: tuple[int, int], report: int) -> None:
        """Be the part's process from here on; does not return."""
        status = 1
        try:
            self._separate(part, family[0])
            around = Surroundings(
                self.options,
                self._credentials,
                self._links,
                _links_path(self._folder),
                lambda: os.close(report) if os.write(report, b"x") else None,
                (1, *family),
            )
            run_part(part.make(around))
            status = 0
        except (OSError, RuntimeError, ValueError) as error:
            sys.stderr.write(f"{part.name} of local Mesos cannot run: {error}\n")
        except BaseException:
            logger.exception("%s failed", part.name)
        finally:
            try:
                sys.stderr.flush()  # which fails where nothing can be written
                await_threads()
            finally:
                os._exit(status)

    def _separate(self, part: Part, keeper: int) -> None:
        """Give up what is the keeper's, and die with it."""
        os.setsid()  # Ctrl-C is for the keeper: agents that got it would take leave
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_NAME, f"mesos-{part.name}".encode(), 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(self._lock)
        self._selector.close()
        for descriptor in self._wakeup:
            os.close(descriptor)
        for other in self.parts:
            if other is not part:
                other.http.close()
                if other.report >= 0:
                    os.close(other.report)
        if part.name != "master":
            self._links.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for part in self.parts:  # others are guards, and orphans of a part that died
                if part.pid == pid:
                    self._ended(part, status)

    def _ended(self, part: Part, status: int) -> None:
        was_ready, lived_s = part.ready, time.monotonic() - part.started
        part.pid, part.ready = 0, False
        self._forget_report(part)
        _refuse_connections(part.http)
        if self._stop:
            return
        if status != 0 and not self._announced:
            raise CannotStart(f"{part.name} did not start")
        part.failures = 0 if was_ready and lived_s > CALM_S else part.failures + 1
        logger.warning("%s ended with %s", part.name, os.waitstatus_to_exitcode(status))
        part.start_at = time.monotonic() + part.wait_s

    def _announce(self) -> None:
        addresses = [part.address for part in self.parts]
        pids = [part.pid for part in self.parts]
        ready = {
            "master": addresses[0],
            "agents": addresses[1:],
            "pid": os.getpid(),
            "pids": {"master": pids[0], "agents": pids[1:]},
        }
        try:
            self._write_announcement(orjson.dumps(ready))
        except OSError as error:
            if not self._announced:
                raise
            logger.warning("the announcement cannot be written: %s", error)
        if not self._announced:
            self._announced = True
            sys.stdout.write(
                f"local Mesos is ready: master {addresses[0]}, agents {addresses[1:]}\n"
            )
            sys.stdout.flush()

    def _write_announcement(self, ready: bytes) -> None:
        if (path := self.options.announce_file) is not None:
            new = path.with_name(path.name + ".new")
            new.write_bytes(ready)
            new.replace(path)

    # --- the end -------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """End the master, then the agents: so they take leave of nobody."""
        self._stop = True
        self._end(self.parts[:1], MASTER_ENDS_S)
        self._end(self.parts[1:], self.options.shutdown_grace_s + AGENT_ENDS_S)
        signal.set_wakeup_fd(-1)

    def _end(self, parts: Sequence[Part], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        for number in (signal.SIGTERM, signal.SIGCONT):
            _signal(parts, number)
        while any(part.pid for part in parts):
            if time.monotonic() > deadline:
                _signal(parts, signal.SIGKILL)
            for key, _ in self._selector.select(max(0.01, deadline - time.monotonic())):
                if key.fileobj == self._wakeup[0]:
                    self._take_signals()
                elif isinstance(key.data, Part):
                    self._forget_report(key.data)


def _refuse_connections(listening: socket.socket) -> None:
    """Stop to listen, until somebody listens again.

    To a socket that does not listen the same call would stick: all connections that it accepts
    later are shut down at birth (Linux, inet_shutdown).
    """
    if listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listening.shutdown(socket.SHUT_RDWR)


def _signal(parts: Sequence[Part], number: int) -> None:
    for part in parts:
        if part.pid:
            os.kill(part.pid, number)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        logger.warning("prctl(%d) is refused: %s", option, os.strerror(ctypes.get_errno()))
