"""Puts local Mesos together, runs it until SIGTERM, and leaves no process behind."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import orjson
import uvicorn

from scale.localmesos import docker, options, recovery, routes, sandbox, tree
from scale.localmesos.agent import Agent, Tools
from scale.localmesos.children import Children
from scale.localmesos.guard import Guard, lock
from scale.localmesos.http import Application, Credentials
from scale.localmesos.journal import Journal
from scale.localmesos.master import Address, Master, Periods
from scale.localmesos.options import Options
from scale.localmesos.place import Place

logger = logging.getLogger(__name__)

THREAD_NAME: Final = "localmesos"
THREADS: Final = 8  # fetches and deletions at a time
KEEP_ALIVE_S: Final = 86400  # Mesos never closes an idle connection
LAST_WORDS_S: Final = 1
GUARD_S: Final = 20.0


class Listener(uvicorn.Server):
    """A server that sleeps until it is stopped: uvicorn's own loop wakes ten times a second."""

    def __init__(self, app: Application) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=LAST_WORDS_S,
            )
        )
        self._stopped = asyncio.Event()

    async def main_loop(self) -> None:
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`."""
        yield

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()


def listen(ip: str, port: int) -> socket.socket:
    """Return a listening socket."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((ip, port))
    except OSError:
        made.close()
        raise
    made.listen(1024)
    return made


def credentials(path: Path) -> Credentials:
    """Return the principal and secret of `path`; make them up, for us alone to read, if absent."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"local-{secrets.token_hex(4)}\n{secrets.token_urlsafe(32)}\n"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
    principal, secret = path.read_text().split("\n")[:2]
    if not principal or not secret or ":" in principal:
        raise ValueError(f"{path} must hold a principal without colon and a secret, a line each")
    return Credentials(principal, secret)


def take_over(work_dir: Path) -> int:
    """Keep a second process out of the work folder; return the lock, which ends with this process.

    Waits for the guard of a predecessor that was killed, until that has killed what was left.

    Raises:
        RuntimeError: another process uses the folder.
    """
    try:
        fd = lock(work_dir / "lock")
    except BlockingIOError:
        raise RuntimeError(f"another local Mesos uses {work_dir}") from None
    deadline = time.monotonic() + GUARD_S
    while True:
        try:
            os.close(lock(work_dir / "guard.lock"))
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the tasks of an earlier run in {work_dir} still live"
                ) from None
            time.sleep(0.02)
        else:
            return fd


class Cluster:
    """A master and its agents, with their sockets and servers."""

    def __init__(self, given: Options, known: Credentials, stop: asyncio.Event) -> None:
        """Listen, and read the journal; nothing runs before `run`, which `stop` ends."""
        self._stop = stop
        self._options = given
        self._credentials = known
        label = f"scale.localmesos={given.work_dir}"
        self._threads = ThreadPoolExecutor(THREADS, THREAD_NAME)
        engine = docker.Engine(self._threads, label)
        self._sockets = [listen(given.ip, given.port)]
        for number in range(given.agents):
            port = given.agent_port + number if given.agent_port else 0
            self._sockets.append(listen(given.ip, port))
        path = given.work_dir / "journal"
        self._found = recovery.read(path, given.agents)
        self._journal = Journal(path, self._snapshot, given.journal_limit, stop.set)
        self._guard = Guard(given.work_dir, engine.program, label)
        self.children = Children(self._guard)
        port = self._sockets[0].getsockname()[1]
        self.master = Master(
            Address(given.ip, given.ip, port),
            self._journal,
            Periods(given.heartbeat_s, given.allocation_interval_s, given.offer_timeout_s),
        )
        tools = Tools(
            self._journal, self.children, self._threads, engine, given.ack_retry_s, given.gc_delay_s
        )
        self.agents = [Agent(self._place(i), tools, self.master) for i in range(given.agents)]
        self._listeners = [Listener(self._application(None))]
        self._listeners += [Listener(self._application(agent)) for agent in self.agents]

    def _place(self, number: int) -> Place:
        given, agent_id = self._options, self._found.agent_ids[number]
        root = sandbox.agent_root(given.work_dir, agent_id)
        (root / "frameworks").mkdir(parents=True, exist_ok=True)
        return Place(
            agent_id,
            given.hostname if number == 0 else f"{given.hostname}-{number + 1}",
            given.ip,
            self._sockets[number + 1].getsockname()[1],
            options.agent_resources(given, number),
            root,
        )

    def _application(self, agent: Agent | None) -> Application:
        if agent is None:
            return Application("master", routes.of_master(self.master), self._credentials)
        return Application("slave(1)", routes.of_agent(agent, self.master), self._credentials)

    def _snapshot(self) -> Iterator[object]:
        yield from recovery.snapshot(self.master)

    async def run(self) -> None:
        """Serve until told to stop; then end all tasks.

        Raises:
            OSError: the journal could not be written.
        """
        self.children.start()
        recovery.restore(self._found, self.master, self.agents)
        self._journal.compact()
        recovery.report_lost(self._found, self.master, self.agents)
        serving = [
            asyncio.create_task(listener.serve([sock]))
            for listener, sock in zip(self._listeners, self._sockets, strict=True)
        ]
        for agent in self.agents:
            agent.keeper.sweep()
        self._announce()
        await self._stop.wait()
        await self._shut_down(serving)
        if self._journal.error is not None:
            raise self._journal.error

    def _announce(self) -> None:
        addresses = ["{}:{}".format(*sock.getsockname()) for sock in self._sockets]
        ready = {"master": addresses[0], "agents": addresses[1:], "pid": os.getpid()}
        path = self._options.announce_file
        if path is not None:
            new = path.with_name(path.name + ".new")
            new.write_bytes(orjson.dumps(ready))
            new.replace(path)
        sys.stdout.write(f"local Mesos is ready: master {addresses[0]}, agents {addresses[1:]}\n")
        sys.stdout.flush()

    async def _shut_down(self, serving: Sequence["asyncio.Task[None]"]) -> None:
        grace_s = self._options.shutdown_grace_s
        await asyncio.gather(*(agent.shut_down(grace_s) for agent in self.agents))
        tree.signal_all(self.children.strangers(), signal.SIGKILL)
        for framework in self.master.frameworks.values():
            if framework.stream is not None:
                framework.stream.end()
        for listener in self._listeners:
            listener.stop()
        await asyncio.gather(*serving)
        self._journal.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._guard.close()


async def _run(given: Options, known: Credentials) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Cluster(given, known, stop).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run local Mesos; return the exit status."""
    given = options.parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        # Tasks of other users pass through it; they cannot list it.
        given.work_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        locked = take_over(given.work_dir)
        known = credentials(given.credentials_file)
        asyncio.run(_run(given, known))
    except (OSError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"local Mesos cannot run: {error}\n")
        return 1
    os.close(locked)
    _leave_stuck_threads()
    return 0


def _leave_stuck_threads() -> None:
    """End at once if a fetch hangs, for which Python would wait."""
    mine = [each for each in threading.enumerate() if each.name.startswith(THREAD_NAME)]
    for each in mine:
        each.join(LAST_WORDS_S / len(mine))
    if any(each.is_alive() for each in mine):
        os._exit(0)
