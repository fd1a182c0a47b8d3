"""A Mesos agent: runs tasks as real processes and tells their fate until it is acknowledged."""

import asyncio
import logging
import os
import pwd
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from resource import struct_rusage
from typing import Any, Final, Protocol

import orjson

from scale.localmesos import docker, fetcher, memory, run as runs, sandbox, status, tree
from scale.localmesos.children import Children, Owner, Program
from scale.localmesos.journal import Journal
from scale.localmesos.resources import Resources
from scale.localmesos.run import Phase, Run
from scale.localmesos.status import Cause
from scale.localmesos.tasks import Launch, launch_record
from scale.localmesos.updates import Key, Update, UpdateStreams, make_update

logger = logging.getLogger(__name__)

COMPLETED_KEPT: Final = 150  # --max_completed_executors_per_framework
FRAMEWORKS_KEPT: Final = 50
SHUTDOWN_GRACE_S: Final = 5.0
CLEAR_RETRY_S: Final = 0.02
CLEAR_GIVE_UP_S: Final = 10.0
SWEEP_SHORTEST_S: Final = 1.0


class Master(Protocol):
    """What an agent tells its master."""

    def forward(self, update: Update) -> None:
        """Pass an update on; it may be dropped, the agent repeats it."""

    def release(self, launch: Launch) -> None:
        """Take back the resources of a task that has ended."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent is and what it has."""

    agent_id: str
    hostname: str
    ip: str
    port: int
    resources: Resources
    root: Path  # its part of the work folder

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the agents of this process share."""

    journal: Journal
    children: Children
    threads: Executor  # fetching and deleting, which may take long
    docker: "docker.Engine"
    ack_retry_s: float
    gc_delay_s: float


@dataclass(slots=True)
class History:
    """Executors of one framework that have ended, newest last."""

    completed: deque[Run] = field(default_factory=lambda: deque(maxlen=COMPLETED_KEPT))
    used: float = 0.0


class Agent:
    """One agent; all methods run on the event loop."""

    def __init__(self, place: Place, tools: Tools, master: Master) -> None:
        self.place = place
        self.runs: dict[Key, Run] = {}
        self.history: dict[str, History] = {}
        self.started = time.time()
        self._tools = tools
        self._master = master
        self.streams = UpdateStreams(master.forward, tools.ack_retry_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._sweep_due = float("inf")

    # --- calls of the master -------------------------------------------------------------------

    def launch(self, launch: Launch) -> None:
        """Start a task soon; what goes wrong comes back as an update."""
        run = Run(launch, str(uuid.uuid4()), "")
        run.is_docker = launch.info.get("container", {}).get("type") == "DOCKER"
        self.runs[launch.key] = run
        self._tools.journal.append(orjson.dumps(launch_record(launch)))
        if run.is_docker or launch.info.get("command", {}).get("uris"):
            task = asyncio.create_task(self._prepare(run))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            asyncio.get_running_loop().call_soon(self._start, run)

    def kill(self, key: Key, policy: Mapping[str, Any] | None) -> None:
        """Ask a task to end, for good after its grace; a later call can only shorten the grace."""
        run = self.runs.get(key)
        if run is None or run.phase is Phase.ENDED:
            return
        if run.phase is Phase.PREPARING:
            run.killed = True
            run.cancel_fetch.set()
            return
        if not run.killed:
            run.killed = True
            if run.launch.tells_killing:
                self._tell(run, "TASK_KILLING", "SOURCE_EXECUTOR", Cause())
            if run.phase is Phase.RUNNING:
                tree.signal_all(self._members(run), signal.SIGTERM)
                self._tools.docker.stop(run)
        self._kill_within(run, runs.grace_s(run, policy))

    def acknowledge(self, key: Key, uuid: str) -> Update | None:
        """Return the update that `uuid` acknowledges, None if it is not the one in flight."""
        update = self.streams.acknowledge(key, uuid)
        if update is not None:
            record = {"k": "ack", "framework": key[0], "task": key[1], "uuid": uuid}
            self._tools.journal.append(orjson.dumps(record))
        return update

    def remove_framework(self, framework_id: str) -> None:
        """Kill everything of a framework; nobody is told."""
        for run in list(self.runs.values()):
            if run.launch.framework_id == framework_id:
                run.silent = True
                run.launch = _without_killing(run.launch)
                self.kill(run.launch.key, {"grace_period": {"nanoseconds": SHUTDOWN_GRACE_S * 1e9}})
        self.streams.forget(framework_id)

    # --- recovery ------------------------------------------------------------------------------

    def recover(self, update: Update) -> None:
        """Take up an update of the journal that was never acknowledged."""
        self.streams.append(update)

    def report_lost(self, launch: Launch, state: str) -> None:
        """Tell that a task died with the process that ran it."""
        cause = Cause("Agent restarted: the task died with it", "REASON_AGENT_RESTARTED")
        self._record(
            make_update(
                launch.framework_id,
                status.from_agent(
                    launch.task_id, self.place.agent_id, state, "SOURCE_AGENT", cause, {}
                ),
            )
        )

    # --- starting ------------------------------------------------------------------------------

    async def _prepare(self, run: Run) -> None:
        """Fetch the URIs, then start; for tasks that need more than a process."""
        try:
            self._make_sandbox(run)
            output = sandbox.open_output(run.directory, self._owner(run))
            output.close()
            uris = run.launch.info.get("command", {}).get("uris", ())
            if uris:
                await asyncio.get_running_loop().run_in_executor(
                    self._tools.threads,
                    fetcher.fetch_all,
                    fetcher.Order(tuple(uris), run.directory, self._owner(run), run.cancel_fetch),
                )
            if run.is_docker and not run.killed:
                await self._tools.docker.require()
        except fetcher.FetchFailed as error:
            self._never_started(run, f"Failed to fetch all URIs for container: {error}")
            return
        except (OSError, docker.Unavailable, KeyError) as error:
            self._never_started(run, str(error))
            return
        if run.killed:
            self._finish(
                run,
                "TASK_KILLED",
                "SOURCE_AGENT",
                Cause("Killed before it was started", "REASON_TASK_KILLED_DURING_LAUNCH"),
            )
        else:
            self._start(run)

    def _make_sandbox(self, run: Run) -> None:
        launch = run.launch
        run.directory = sandbox.create(
            self.place.root, launch.framework_id, launch.task_id, run.container_id
        )

    def _owner(self, run: Run) -> Owner | None:
        """Return whom the task runs as, None for ourselves.

        Raises:
            KeyError: there is no such user on this machine.
        """
        name = run.launch.info.get("command", {}).get("user") or run.launch.user
        if os.geteuid() != 0 or name in ("", "root"):
            return None
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise KeyError(f"Failed to get user information for '{name}'") from None
        return Owner(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(name, entry.pw_gid)))

    def _start(self, run: Run) -> None:
        if run.killed:
            self._finish(
                run,
                "TASK_KILLED",
                "SOURCE_AGENT",
                Cause("Killed before it was started", "REASON_TASK_KILLED_DURING_LAUNCH"),
            )
            return
        try:
            owner = self._owner(run)
            if not run.directory:
                self._make_sandbox(run)
            output = sandbox.open_output(run.directory, owner)
        except (OSError, KeyError) as error:
            self._never_started(run, str(error))
            return
        try:
            run.pid = self._spawn(run, output, owner)
        except (OSError, ValueError) as error:
            os.write(output.stderr, f"{error}\n".encode())
            self._tell(run, "TASK_STARTING", "SOURCE_EXECUTOR", Cause())
            self._finish(run, "TASK_FAILED", "SOURCE_EXECUTOR", Cause(f"Failed to start: {error}"))
            return
        finally:
            output.close()
        self._started(run)

    def _spawn(self, run: Run, output: sandbox.Sandbox, owner: Owner | None) -> int:
        env = runs.environment(run, self.place.address)
        if run.is_docker:
            command, executable = self._tools.docker.argv(run, env), None
            env = dict(os.environ, MESOS_DIRECTORY=run.directory)
            owner = None
        else:
            command, executable = runs.argv(run.launch.info.get("command", {}))
        program = Program(
            command, executable, run.directory, env, output.stdout, output.stderr, owner
        )
        return self._tools.children.spawn(
            program, lambda wait_status, usage: self._exited(run, wait_status, usage)
        )

    def _started(self, run: Run) -> None:
        run.phase = Phase.RUNNING
        loop = asyncio.get_running_loop()
        lifetime = run.launch.info.get("max_completion_time")
        if lifetime is not None:
            seconds = max(0.0, lifetime["nanoseconds"] / 1e9)
            run.lifetime_timer = loop.call_later(seconds, self._too_long, run)
        if run.mem_asked and not run.is_docker:
            memory.watch(run, self._members, self._too_much_memory)
        self._tell(run, "TASK_STARTING", "SOURCE_EXECUTOR", Cause())
        if run.is_docker:
            task = asyncio.create_task(self._tell_when_docker_runs(run))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._tell(run, "TASK_RUNNING", "SOURCE_EXECUTOR", Cause())

    async def _tell_when_docker_runs(self, run: Run) -> None:
        if await self._tools.docker.wait_until_running(run) and run.phase is Phase.RUNNING:
            self._tell(run, "TASK_RUNNING", "SOURCE_EXECUTOR", Cause())

    # --- ending --------------------------------------------------------------------------------

    def _members(self, run: Run) -> list[int]:
        return self._tools.children.members(run.pid, run.mark) if run.pid else []

    def _too_long(self, run: Run) -> None:
        run.lifetime_timer = None
        self._end(run, Cause(None, "REASON_MAX_COMPLETION_TIME_REACHED"))

    def _too_much_memory(self, run: Run, used: int) -> None:
        self._end(run, runs.over_memory(run, used))

    def _end(self, run: Run, cause: Cause) -> None:
        """Kill a task for a reason of the agent's own."""
        if run.phase is not Phase.RUNNING:
            return
        if not run.killed:
            run.doom = cause
        self._tools.docker.kill(run)
        self._kill_within(run, 0.0)

    def _kill_within(self, run: Run, grace_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        if run.kill_at is not None and run.kill_at <= deadline:
            return
        run.kill_at = deadline
        if run.kill_timer is not None:
            run.kill_timer.cancel()
            run.kill_timer = None
        if grace_s <= 0:
            self._kill_now(run)
        else:
            run.kill_timer = loop.call_later(grace_s, self._kill_now, run)

    def _kill_now(self, run: Run) -> None:
        run.kill_timer = None
        if run.phase is Phase.RUNNING:
            tree.signal_all(self._members(run), signal.SIGKILL)
            self._tools.docker.kill(run)
        elif run.phase is Phase.CLEARING:
            self._clear(run, asyncio.get_running_loop().time())

    def _exited(self, run: Run, wait_status: int, usage: struct_rusage) -> None:
        run.wait_status = wait_status
        run.peak_bytes = max(run.peak_bytes, usage.ru_maxrss * 1024)
        run.phase = Phase.CLEARING
        for timer in (run.memory_timer, run.lifetime_timer):
            if timer is not None:
                timer.cancel()
        self._clear(run, asyncio.get_running_loop().time())

    def _clear(self, run: Run, since: float) -> None:
        """End what a task left behind, then tell its end; a killed task's rest keeps the grace."""
        if run.phase is not Phase.CLEARING:
            return
        left = self._members(run)
        loop = asyncio.get_running_loop()
        if not left or loop.time() > since + CLEAR_GIVE_UP_S:
            state, cause = runs.ending(run)
            by_agent = cause.reason in ("REASON_CONTAINER_LIMITATION_MEMORY",)
            self._finish(run, state, "SOURCE_AGENT" if by_agent else "SOURCE_EXECUTOR", cause)
            return
        if run.killed and run.kill_at is not None and loop.time() < run.kill_at:
            self._tools.children.when_orphans_end(lambda: self._clear(run, since))
            return
        tree.signal_all(left, signal.SIGKILL)
        loop.call_later(CLEAR_RETRY_S, self._clear, run, since)

    def _never_started(self, run: Run, why: str) -> None:
        if run.killed:
            cause = Cause(why, "REASON_TASK_KILLED_DURING_LAUNCH")
            self._finish(run, "TASK_KILLED", "SOURCE_AGENT", cause)
            return
        cause = Cause(f"Failed to launch container: {why}", "REASON_CONTAINER_LAUNCH_FAILED")
        self._finish(run, "TASK_FAILED", "SOURCE_AGENT", cause)

    def _finish(self, run: Run, state: str, source: str, cause: Cause) -> None:
        run.phase = Phase.ENDED
        run.stop_timers()
        self.runs.pop(run.launch.key, None)
        framework_id = run.launch.framework_id
        history = self.history.setdefault(framework_id, History())
        history.completed.append(run)
        history.used = time.time()
        if len(self.history) > FRAMEWORKS_KEPT:
            del self.history[min(self.history, key=lambda each: self.history[each].used)]
        self._touch(run)
        if run.silent:
            self._master.release(run.launch)
        else:
            self._tell(run, state, source, cause)

    def _tell(self, run: Run, state: str, source: str, cause: Cause) -> None:
        if run.silent:
            return
        container = (
            status.container_status(run.container_id, self.place.ip, run.pid)
            if source == "SOURCE_EXECUTOR"
            else {}
        )
        launch = run.launch
        told = status.from_agent(
            launch.task_id, self.place.agent_id, state, source, cause, container
        )
        self._record(
            make_update(launch.framework_id, told), launch if state in status.TERMINAL else None
        )

    def _record(self, update: Update, ended: Launch | None = None) -> None:
        """Make an update safe, then send it; the resources of an ended task are free then."""

        def safe() -> None:
            self.streams.append(update)
            if ended is not None:
                self._master.release(ended)

        record = b'{"k":"update","framework":%s,"status":%s}' % (
            orjson.dumps(update.key[0]),
            update.encoded,
        )
        self._tools.journal.append(record, safe)

    # --- sandboxes -----------------------------------------------------------------------------

    def _touch(self, run: Run) -> None:
        """Start the clock of a sandbox's deletion."""
        if run.directory:
            folder = Path(run.directory).parent.parent
            try:
                os.utime(folder)
            except OSError:
                logger.warning("cannot touch a sandbox", extra={"path": str(folder)})
        self._sweep_within(self._tools.gc_delay_s)

    def _sweep_within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + max(seconds, SWEEP_SHORTEST_S, self._tools.gc_delay_s / 100)
        if due < self._sweep_due:
            self._sweep_due = due
            if self._sweep_timer is not None:
                self._sweep_timer.cancel()
            self._sweep_timer = loop.call_at(due, self.sweep)

    def sweep(self) -> None:
        """Delete old sandboxes in a thread, and come back when the next one is old enough."""
        self._sweep_due = float("inf")
        self._sweep_timer = None

        def is_live(framework_id: str, task_id: str) -> bool:
            return (framework_id, task_id) in self.runs

        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(
            self._tools.threads, sandbox.collect, self.place.root, self._tools.gc_delay_s, is_live
        )
        work.add_done_callback(self._swept)

    def _swept(self, work: "asyncio.Future[float | None]") -> None:
        if work.cancelled():
            return
        if work.exception() is not None:
            logger.error("sandboxes could not be deleted", exc_info=work.exception())
        elif (soonest := work.result()) is not None:
            self._sweep_within(soonest)

    # --- the end -------------------------------------------------------------------------------

    async def shut_down(self, grace_s: float) -> None:
        """End every task: SIGTERM, SIGKILL after `grace_s`; their updates go to the journal."""
        policy = {"grace_period": {"nanoseconds": grace_s * 1e9}}
        for key in list(self.runs):
            self.kill(key, policy)
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        deadline = asyncio.get_running_loop().time() + grace_s + CLEAR_GIVE_UP_S
        while self.runs and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)


def _without_killing(launch: Launch) -> Launch:
    return Launch(
        launch.framework_id,
        launch.agent_id,
        launch.info,
        launch.role,
        launch.user,
        launch.checkpoint,
        False,
        launch.resources,
    )


def agent_releases(agents: Iterable[Agent]) -> Callable[[str], None]:
    """Return a function that makes every agent forget a framework."""

    def remove(framework_id: str) -> None:
        for agent in agents:
            agent.remove_framework(framework_id)

    return remove
