"""The two kinds of parts: the master's process and an agent's, each with its own event loop."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scale.localmesos import docker, options, recovery, routes, sandbox, tree
from scale.localmesos.agent import Agent, Tools
from scale.localmesos.children import Children
from scale.localmesos.guard import Guard, end_left_behind
from scale.localmesos.http import Application, Credentials
from scale.localmesos.journal import Journal
from scale.localmesos.link import Link
from scale.localmesos.locks import wait_for_lock, wait_until_free
from scale.localmesos.master import Address, Master, Periods
from scale.localmesos.members import Members
from scale.localmesos.options import Options
from scale.localmesos.place import Home
from scale.localmesos.serving import THREAD_NAME, Listener
from scale.localmesos.upstream import Upstream

THREADS: Final = 8  # fetches and deletions of an agent at a time


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the keeper gives to each part; the sockets are bound already."""

    options: Options
    credentials: Credentials
    links: socket.socket  # Unix, listening: agents come to the master by it
    links_path: str
    ready: Callable[[], None]
    heirs: tuple[int, ...]  # who gets the orphans of a part that dies


def folder_of(work_dir: Path, part: str) -> Path:
    """Return where a part keeps its journal and its locks."""
    return work_dir / "meta" / part


def _on_sigterm(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


class MasterPart:
    """The master with its journal, its HTTP and the links to its agents."""

    def __init__(self, around: Surroundings, http: socket.socket, folder: Path) -> None:
        """Take over `folder`; read the journal."""
        self._lock = wait_for_lock(folder / "lock")
        given, path = around.options, folder / "journal"
        self._around = around
        self._http = http
        self._registry = recovery.read_registry(path)
        self._stop = asyncio.Event()
        self._journal = Journal(path, given.journal_limit, self._stop.set)
        address = Address(given.ip, given.ip, http.getsockname()[1])
        self._master = Master(address, self._journal, _periods(given))
        self._members = Members(self._master)

    async def run(self) -> None:
        """Serve until SIGTERM.

        Raises:
            OSError: the journal could not be written.
        """
        _on_sigterm(self._stop)
        master, members, around = self._master, self._members, self._around
        recovery.restore_master(self._registry, master)
        self._journal.begin(master.snapshot)
        members.await_recovered()
        loop = asyncio.get_running_loop()
        links = await loop.create_unix_server(lambda: Link(members.attach), sock=around.links)
        listener = Listener(
            Application("master", routes.of_master(master, members), around.credentials)
        )
        serving = asyncio.create_task(listener.serve([self._http]))
        await listener.serves.wait()
        around.ready()
        await self._stop.wait()
        for framework in master.frameworks.values():
            if framework.stream is not None:
                framework.stream.end()
        listener.stop()
        await serving
        links.close()
        _close(self._journal)


def _periods(given: Options) -> Periods:
    return Periods(
        given.heartbeat_s,
        given.allocation_interval_s,
        given.offer_timeout_s,
        given.ping_s,
        given.max_missed_pings,
        given.reregister_s,
    )


def _close(journal: Journal) -> None:
    journal.close()
    if journal.error is not None:
        raise journal.error


class AgentPart:
    """An agent with its tasks, its journal, its HTTP and its guard."""

    def __init__(
        self, around: Surroundings, http: socket.socket, folder: Path, number: int
    ) -> None:
        """Take over `folder` when the tasks of a predecessor are gone; read the journal."""
        self._lock = wait_for_lock(folder / "lock")
        wait_until_free([folder / "guard.lock"])
        given = around.options
        self._around = around
        self._http = http
        self._path = folder / "journal"
        self._found = recovery.read_agent(self._path, number)
        self._stop = asyncio.Event()
        self._threads = ThreadPoolExecutor(THREADS, THREAD_NAME)
        place = self._place(number)
        end_left_behind(place.root, os.getppid())
        label = f"scale.localmesos={place.root}"
        engine = docker.Engine(self._threads, label)
        self._guard = Guard(place.root, folder, engine.program, label, around.heirs)
        self._children = Children(self._guard)
        self._journal = Journal(self._path, given.journal_limit, self._stop.set)
        self._upstream = Upstream(around.links_path)
        tools = Tools(
            self._journal,
            self._children,
            self._threads,
            engine,
            given.ack_retry_s,
            given.gc_delay_s,
        )
        self._agent = Agent(place, tools, self._upstream)

    async def run(self) -> None:
        """Serve until SIGTERM, or until the master wants to see no more of us; end all tasks.

        Raises:
            OSError: the journal could not be written.
        """
        _on_sigterm(self._stop)
        self._children.start()
        recovery.restore_agent(self._found, self._agent)
        self._journal.begin(self._agent.snapshot)
        listener = Listener(
            Application("slave(1)", routes.of_agent(self._agent), self._around.credentials)
        )
        serving = asyncio.create_task(listener.serve([self._http]))
        await listener.serves.wait()
        self._agent.keeper.sweep()
        upstream = self._upstream
        await upstream.connect(self._agent)
        await _first(upstream.welcomed, upstream.dismissed, self._stop)
        if upstream.welcomed.is_set():
            self._around.ready()
        await _first(upstream.dismissed, self._stop)
        await self._end_tasks()
        listener.stop()
        await serving
        _close(self._journal)
        if upstream.is_gone:
            self._path.unlink()  # the next process is another agent
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._guard.close()

    async def _end_tasks(self) -> None:
        """Say farewell if there is a master, end all tasks, and forget them if it knows."""
        known = self._upstream.dismissed.is_set() or await self._upstream.leave()
        await self._agent.shut_down(self._around.options.shutdown_grace_s)
        tree.signal_all(self._children.strangers(), signal.SIGKILL)
        if known and self._journal.error is None:
            self._agent.forget_all()

    def _place(self, number: int) -> Home:
        given, agent_id = self._around.options, self._found.agent_id
        root = sandbox.agent_root(given.work_dir, agent_id)
        (root / "frameworks").mkdir(parents=True, exist_ok=True)
        return Home(
            agent_id,
            given.hostname if number == 0 else f"{given.hostname}-{number + 1}",
            given.ip,
            self._http.getsockname()[1],
            options.agent_resources(given, number),
            root,
            given.disk_watch_s,
        )


async def _first(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waiting = [asyncio.ensure_future(each.wait()) for each in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()


def run_part(part: MasterPart | AgentPart) -> None:
    """Run a part to its end in this process; see `run` of the parts."""
    asyncio.run(part.run())
