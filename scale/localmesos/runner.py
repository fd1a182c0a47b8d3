"""How a task's processes start and end on an agent; `Listener` is told."""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine, Mapping
from concurrent.futures import Executor
from resource import struct_rusage
from typing import Any, Final, Protocol

from scale.localmesos import disk, docker, fetcher, launching, memory, sandbox, tree
from scale.localmesos import run as runs
from scale.localmesos.children import Children
from scale.localmesos.place import Home
from scale.localmesos.run import Phase, Run
from scale.localmesos.status import Cause

logger = logging.getLogger(__name__)

CLEAR_RETRY_S: Final = 0.02
CLEAR_GIVE_UP_S: Final = 10.0
AGENT: Final = "SOURCE_AGENT"
EXECUTOR: Final = "SOURCE_EXECUTOR"


class Listener(Protocol):
    """Who is told what becomes of a run."""

    def tell(self, run: Run, state: str, source: str, cause: Cause) -> None:
        """Pass on a state that is not the last."""

    def ended(self, run: Run, state: str, source: str, cause: Cause) -> None:
        """Pass on the last state; no process of the run is left."""


class Runner:
    """Starts, watches and kills the processes of one agent's tasks."""

    def __init__(
        self,
        place: Home,
        children: Children,
        threads: Executor,
        engine: docker.Engine,
        listener: Listener,
    ) -> None:
        self._place = place
        self._children = children
        self._threads = threads
        self._docker = engine
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, run: Run) -> None:
        """Start a task soon; most need nothing but a process and get no task of the loop."""
        if run.is_docker or run.launch.info.get("command", {}).get("uris"):
            self._in_background(self._prepare(run))
        else:
            asyncio.get_running_loop().call_soon(self._start, run)

    def kill(self, run: Run, policy: Mapping[str, Any] | None) -> None:
        """Ask a task to end, for good after its grace; a later call can only shorten the grace."""
        if run.phase is Phase.PREPARING:
            run.killed = True
            run.cancel_fetch.set()
            if run.fetching is not None:
                run.fetching.cancel()  # its thread ends when its server says or does something
            return
        if not run.killed:
            run.killed = True
            if run.launch.tells_killing:
                self._listener.tell(run, "TASK_KILLING", EXECUTOR, Cause())
            if run.phase is Phase.RUNNING:
                tree.signal_all(self.members(run), signal.SIGTERM)
                self._docker.stop(run)
        self._kill_within(run, runs.grace_s(run, policy))

    def members(self, run: Run) -> list[int]:
        """Return the living processes of a task."""
        return self._children.members(run.pid, run.directory) if run.pid else []

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- starting ------------------------------------------------------------------------------

    async def _prepare(self, run: Run) -> None:
        """Fetch the URIs and look for the docker engine, then start."""
        try:
            launching.make_sandbox(self._place, run)
            uris = run.launch.info.get("command", {}).get("uris", ())
            if uris:
                order = fetcher.Order(
                    tuple(uris), run.directory, launching.owner_of(run), run.cancel_fetch
                )
                loop = asyncio.get_running_loop()
                run.fetching = loop.run_in_executor(self._threads, fetcher.fetch_all, order)
                await run.fetching
            if run.is_docker:
                await self._docker.require()
        except asyncio.CancelledError:
            if not run.killed:
                raise
            self._never_started(run, "Killed while its URIs were fetched")
        except fetcher.FetchFailed as error:
            self._never_started(run, f"Failed to fetch all URIs for container: {error}")
        except (OSError, docker.Unavailable, LookupError) as error:
            self._never_started(run, str(error))
        else:
            self._start(run)

    def _start(self, run: Run) -> None:
        if run.killed:
            self._never_started(run, "Killed before it was started")
            return
        try:
            if not run.directory:
                launching.make_sandbox(self._place, run)
            output = sandbox.open_output(run.directory, launching.owner_of(run))
        except (OSError, LookupError) as error:
            self._never_started(run, str(error))
            return
        try:
            program = launching.program(self._place, self._docker, run, output)
            run.pid = self._children.spawn(
                program, lambda wait_status, usage: self._exited(run, wait_status, usage)
            )
        except (OSError, ValueError) as error:
            os.write(output.stderr, f"{error}\n".encode())
            self._listener.tell(run, "TASK_STARTING", EXECUTOR, Cause())
            self._end(run, "TASK_FAILED", EXECUTOR, Cause(f"Failed to start: {error}"))
        else:
            self._started(run)
        finally:
            output.close()

    def _started(self, run: Run) -> None:
        run.phase = Phase.RUNNING
        loop = asyncio.get_running_loop()
        lifetime = run.launch.info.get("max_completion_time")
        if lifetime is not None:
            seconds = lifetime["nanoseconds"] / 1e9
            run.lifetime_timer = loop.call_later(seconds, self._too_long, run)
        if run.mem_asked and not run.is_docker:
            memory.watch(run, self.members, self._too_much_memory)
        if run.disk_asked and self._place.disk_watch_s:
            disk.watch(run, self._place.disk_watch_s, self._too_much_disk)
        self._listener.tell(run, "TASK_STARTING", EXECUTOR, Cause())
        if run.is_docker:
            self._in_background(self._tell_when_docker_runs(run))
        else:
            self._listener.tell(run, "TASK_RUNNING", EXECUTOR, Cause())

    async def _tell_when_docker_runs(self, run: Run) -> None:
        if await self._docker.wait_until_running(run) and run.phase is Phase.RUNNING:
            self._listener.tell(run, "TASK_RUNNING", EXECUTOR, Cause())

    def _never_started(self, run: Run, why: str) -> None:
        if run.killed:
            cause = Cause(why, "REASON_TASK_KILLED_DURING_LAUNCH")
            self._end(run, "TASK_KILLED", AGENT, cause)
        else:
            cause = Cause(f"Failed to launch container: {why}", "REASON_CONTAINER_LAUNCH_FAILED")
            self._end(run, "TASK_FAILED", AGENT, cause)

    # --- ending --------------------------------------------------------------------------------

    def _too_long(self, run: Run) -> None:
        """Kill without grace, which begins with SIGTERM all the same: most end by that."""
        run.lifetime_timer = None
        tree.signal_all(self.members(run), signal.SIGTERM)
        self._condemn(run, Cause(None, "REASON_MAX_COMPLETION_TIME_REACHED"))

    def _too_much_memory(self, run: Run, used: int) -> None:
        self._condemn(run, runs.over_memory(run, used))

    def _too_much_disk(self, run: Run, used: int) -> None:
        self._condemn(run, runs.over_disk(run, used))

    def _condemn(self, run: Run, cause: Cause) -> None:
        """Kill a task for a reason of the agent's own."""
        if run.phase is Phase.RUNNING:
            if not run.killed:
                run.doom = cause
            self._kill_within(run, 0.0)

    def _kill_within(self, run: Run, grace_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        if run.kill_at is not None and run.kill_at <= deadline:
            return
        run.kill_at = deadline
        if run.kill_timer is not None:
            run.kill_timer.cancel()
        if grace_s > 0:
            run.kill_timer = loop.call_at(deadline, self._kill_now, run)
        else:
            self._kill_now(run)

    def _kill_now(self, run: Run) -> None:
        run.kill_timer = None
        if run.phase is Phase.RUNNING:
            self._docker.kill(run)
            tree.signal_all(self.members(run), signal.SIGKILL)
        elif run.phase is Phase.CLEARING:
            self._clear(run, asyncio.get_running_loop().time())

    def _exited(self, run: Run, wait_status: int, usage: struct_rusage) -> None:
        run.wait_status = wait_status
        run.peak_bytes = max(run.peak_bytes, usage.ru_maxrss * 1024)
        run.phase = Phase.CLEARING
        run.stop_watching()
        if run.is_docker:
            self._in_background(self._docker_exited(run))
        else:
            self._clear(run, asyncio.get_running_loop().time())

    async def _docker_exited(self, run: Run) -> None:
        if await self._docker.take_away(run) and run.doom is None:
            run.doom = runs.over_memory(run, run.mem_asked)
        self._clear(run, asyncio.get_running_loop().time())

    def _clear(self, run: Run, since: float) -> None:
        """End what a task left behind, then tell its end; a killed task's rest keeps the grace."""
        if run.phase is not Phase.CLEARING:
            return
        left = self.members(run)
        loop = asyncio.get_running_loop()
        if not left or loop.time() > since + CLEAR_GIVE_UP_S:
            state, cause = runs.ending(run)
            source = AGENT if cause.limitation else EXECUTOR
            self._end(run, state, source, cause)
        elif run.killed and run.kill_at is not None and loop.time() < run.kill_at:
            self._children.when_orphans_end(lambda: self._clear(run, since))
        else:
            tree.signal_all(left, signal.SIGKILL)
            loop.call_later(CLEAR_RETRY_S, self._clear, run, since)

    def _end(self, run: Run, state: str, source: str, cause: Cause) -> None:
        run.phase = Phase.ENDED
        run.end_state = state
        run.stop_timers()
        self._listener.ended(run, state, source, cause)
