"""A Mesos agent: runs tasks as real processes and tells their fate until it is acknowledged."""

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from scale.localmesos import docker, status
from scale.localmesos.children import Children
from scale.localmesos.journal import Journal
from scale.localmesos.keeper import Keeper
from scale.localmesos.place import Place
from scale.localmesos.run import Run
from scale.localmesos.runner import CLEAR_GIVE_UP_S, EXECUTOR, Runner
from scale.localmesos.status import Cause
from scale.localmesos.tasks import Launch, launch_record
from scale.localmesos.updates import Key, Update, UpdateStreams, make_update

COMPLETED_KEPT: Final = 150  # --max_completed_executors_per_framework
FRAMEWORKS_KEPT: Final = 50
SHUTDOWN_GRACE: Final = {"grace_period": {"nanoseconds": 5 * 10**9}}


class Master(Protocol):
    """What an agent tells its master."""

    def forward(self, update: Update) -> None:
        """Pass an update on; it may be dropped, the agent repeats it."""

    def release(self, launch: Launch) -> None:
        """Take back the resources of a task that has ended."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the agents of this process share."""

    journal: Journal
    children: Children
    threads: Executor  # fetching and deleting, which may take long
    docker: docker.Engine
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
        self.end_counts: Counter[str] = Counter()
        self.started = time.time()
        self.streams = UpdateStreams(master.forward, tools.ack_retry_s)
        self._journal = tools.journal
        self._master = master
        self._runner = Runner(place, tools.children, tools.threads, tools.docker, self)
        self.keeper = Keeper(
            place.root,
            tools.gc_delay_s,
            tools.threads,
            lambda framework_id, task_id: (framework_id, task_id) in self.runs,
        )

    # --- calls of the master -------------------------------------------------------------------

    def launch(self, launch: Launch) -> None:
        """Start a task soon; what goes wrong comes back as an update."""
        run = Run(launch, str(uuid.uuid4()))
        self.runs[launch.key] = run
        self._journal.append(orjson.dumps(launch_record(launch)))
        self._runner.start(run)

    def kill(self, key: Key, policy: Mapping[str, Any] | None) -> None:
        """Kill a task; one that has ended already has told so."""
        if run := self.runs.get(key):
            self._runner.kill(run, policy)

    def acknowledge(self, key: Key, uuid: str) -> Update | None:
        """Return the update that `uuid` acknowledges, None if it is not the one in flight."""
        update = self.streams.acknowledge(key, uuid)
        if update is not None:
            record = {"k": "ack", "framework": key[0], "task": key[1], "uuid": uuid}
            self._journal.append(orjson.dumps(record))
        return update

    def remove_framework(self, framework_id: str) -> None:
        """Kill everything of a framework; nobody is told."""
        for run in list(self.runs.values()):
            if run.launch.framework_id == framework_id:
                run.silent = True
                self._runner.kill(run, SHUTDOWN_GRACE)
        self.streams.forget(framework_id)

    def members(self, run: Run) -> list[int]:
        """Return the living processes of a task."""
        return self._runner.members(run)

    # --- recovery and the end ------------------------------------------------------------------

    def report_lost(self, launch: Launch, state: str) -> None:
        """Tell that a task died with the process that ran it."""
        cause = Cause("Agent restarted: the task died with it", "REASON_AGENT_RESTARTED")
        self._record(self._update(launch, state, "SOURCE_AGENT", cause, {}))

    async def shut_down(self, grace_s: float) -> None:
        """End every task: SIGTERM, SIGKILL after `grace_s`.

        How they end is not told, for it is our doing: the next start reports them as lost.
        """
        self.keeper.stop()
        policy = {"grace_period": {"nanoseconds": grace_s * 1e9}}
        for run in list(self.runs.values()):
            run.silent = True
            self._runner.kill(run, policy)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s + CLEAR_GIVE_UP_S
        while any(run.pid for run in self.runs.values()) and loop.time() < deadline:
            await asyncio.sleep(0.02)

    # --- what the runner tells -----------------------------------------------------------------

    def tell(self, run: Run, state: str, source: str, cause: Cause) -> None:
        """Send an update of a live task."""
        if not run.silent:
            self._record(
                self._update(run.launch, state, source, cause, self._container(run, source))
            )

    def ended(self, run: Run, state: str, source: str, cause: Cause) -> None:
        """Send the last update of a task and forget its run."""
        del self.runs[run.launch.key]
        self.end_counts[state] += 1
        self._remember(run)
        if run.directory:
            self.keeper.ended(run.directory)
        if run.silent:
            self._master.release(run.launch)
        else:
            update = self._update(run.launch, state, source, cause, self._container(run, source))
            self._record(update, run.launch)

    def _container(self, run: Run, source: str) -> Mapping[str, Any]:
        if source != EXECUTOR:
            return {}
        return status.container_status(run.container_id, self.place.ip, run.pid)

    def _update(
        self, launch: Launch, state: str, source: str, cause: Cause, container: Mapping[str, Any]
    ) -> Update:
        told = status.from_agent(
            launch.task_id, self.place.agent_id, state, source, cause, container
        )
        return make_update(launch.framework_id, told)

    def _remember(self, run: Run) -> None:
        history = self.history.setdefault(run.launch.framework_id, History())
        history.completed.append(run)
        history.used = time.time()
        if len(self.history) > FRAMEWORKS_KEPT:
            del self.history[min(self.history, key=lambda each: self.history[each].used)]

    def _record(self, update: Update, ended: Launch | None = None) -> None:
        """Make an update safe, then send it; the resources of an ended task are free then."""

        def safe() -> None:
            self.streams.append(update)
            if ended is not None:
                self._master.release(ended)

        framework_id = orjson.dumps(update.key[0])
        self._journal.append(
            b'{"k":"update","framework":%s,"status":%s}' % (framework_id, update.encoded), safe
        )
