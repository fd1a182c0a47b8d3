"""A Mesos agent: runs tasks as real processes and tells their fate until it is acknowledged."""

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from scale.localmesos import docker, status
from scale.localmesos.children import Children
from scale.localmesos.journal import Journal
from scale.localmesos.keeper import Keeper
from scale.localmesos.place import Home
from scale.localmesos.report import Report, TaskReport
from scale.localmesos.run import Run
from scale.localmesos.runner import AGENT, CLEAR_GIVE_UP_S, EXECUTOR, Runner
from scale.localmesos.status import Cause
from scale.localmesos.tasks import Launch, launch_record
from scale.localmesos.updates import Key, Update, UpdateStreams

COMPLETED_KEPT: Final = 150  # --max_completed_executors_per_framework
FRAMEWORKS_KEPT: Final = 50
SHUTDOWN_GRACE: Final = {"grace_period": {"nanoseconds": 5 * 10**9}}


class Master(Protocol):
    """What an agent tells its master; all of it may be dropped if there is none."""

    def forward(self, update: Update) -> None:
        """Pass an update on; the agent repeats it."""

    def release(self, launch: Launch) -> None:
        """Take back the resources of a task that has ended."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What an agent works with."""

    journal: Journal
    children: Children
    threads: Executor  # fetching and deleting, which may take long
    docker: docker.Engine
    ack_retry_s: float
    gc_delay_s: float


@dataclass(slots=True)
class History:
    """Executors of one framework that have ended, newest last."""

    info: Mapping[str, Any] = field(default_factory=dict)  # FrameworkInfo
    completed: deque[Run] = field(default_factory=lambda: deque(maxlen=COMPLETED_KEPT))
    used: float = 0.0


class Agent:
    """One agent; all methods run on the event loop."""

    def __init__(self, place: Home, tools: Tools, master: Master) -> None:
        self.place = place
        self.frameworks: dict[str, Mapping[str, Any]] = {}  # FrameworkInfo by id
        self.launches: dict[Key, Launch] = {}  # tasks whose end is not acknowledged
        self.runs: dict[Key, Run] = {}
        self.master_hostname = ""
        self._latest: dict[Key, Mapping[str, Any]] = {}  # the last status of a live task
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

    def introduce(self, framework_id: str, info: Mapping[str, Any], encoded: bytes) -> None:
        """Take note of a framework whose tasks will follow; `encoded` is `info`."""
        self.frameworks[framework_id] = info
        framework = orjson.dumps(framework_id)
        self._journal.append(b'{"k":"framework","id":%s,"info":%s}' % (framework, encoded))

    def launch(self, launch: Launch, encoded: bytes) -> None:
        """Start a task soon; what goes wrong comes back as an update. `encoded` is its record."""
        run = Run(launch, str(uuid.uuid4()))
        self.launches[launch.key] = launch
        self.runs[launch.key] = run
        self._journal.append(encoded)
        self._runner.start(run)

    def kill(self, key: Key, policy: Mapping[str, Any] | None) -> None:
        """Kill a task; one that has ended already has told so."""
        if run := self.runs.get(key):
            self._runner.kill(run, policy)

    def acknowledge(self, key: Key, uuid: str) -> None:
        """Send no more what `uuid` names, if it is what was sent last."""
        update = self.streams.acknowledge(key, uuid)
        if update is None:
            return
        if update.is_terminal:
            self.launches.pop(key, None)
        record = {"k": "ack", "framework": key[0], "task": key[1], "uuid": uuid}
        self._journal.append(orjson.dumps(record))

    def missing(self, key: Key, state: str) -> None:
        """Tell `state` of a task that the master launched and that did not come here."""
        if key in self.launches:
            return
        cause = Cause("Reconciliation: task unknown to the agent", "REASON_RECONCILIATION")
        self._record(self._update(key, state, AGENT, cause, {}))

    def discard(self, key: Key) -> None:
        """Kill and forget a task; nobody is told."""
        record = {"k": "forget", "framework": key[0], "task": key[1]}
        self._journal.append(orjson.dumps(record))
        self._forget(key)

    def remove_framework(self, framework_id: str) -> None:
        """Kill and forget everything of a framework; nobody is told."""
        info = self.frameworks.pop(framework_id, {})
        if history := self.history.get(framework_id):
            history.info = info
        self._journal.append(orjson.dumps({"k": "removed", "id": framework_id}))
        for key in {*self.launches, *self.runs, *self.streams.waiting()}:
            if key[0] == framework_id:
                self._forget(key)

    def _forget(self, key: Key) -> None:
        self.launches.pop(key, None)
        self.streams.forget(key)
        if run := self.runs.get(key):
            run.silent = True
            self._runner.kill(run, SHUTDOWN_GRACE)

    def report(self) -> Report:
        """Return what a master that may know nothing must know."""
        tasks = [TaskReport(each, self._status(key)) for key, each in self.launches.items()]
        holders = [run.launch for run in self.runs.values()]
        return Report(self.place.resources, self.frameworks, tasks, holders)

    def _status(self, key: Key) -> Mapping[str, Any]:
        """Return what the framework was told last, as far as it is known."""
        head = self.streams.head(key)
        status = head.status if head else self._latest.get(key)
        return status or {"state": "TASK_STAGING", "timestamp": self.started}

    def members(self, run: Run) -> list[int]:
        """Return the living processes of a task."""
        return self._runner.members(run)

    # --- recovery and the end ------------------------------------------------------------------

    def restore(
        self,
        frameworks: Mapping[str, Mapping[str, Any]],
        launches: Mapping[Key, Launch],
        updates: Iterable[Update],
    ) -> None:
        """Take up what an earlier process left; nothing is sent yet."""
        self.frameworks.update(frameworks)
        self.launches.update(launches)
        for update in updates:
            self.streams.append(update)

    def snapshot(self) -> Iterator[Mapping[str, Any]]:
        """Yield the journal's records that stand for everything that matters now."""
        yield {"k": "agent", "id": self.place.agent_id}
        for framework_id, info in self.frameworks.items():
            yield {"k": "framework", "id": framework_id, "info": info}
        for launch in self.launches.values():
            yield launch_record(launch)
        for update in self.streams.pending():
            yield {"k": "update", "framework": update.key[0], "status": update.status}

    def forget_all(self) -> None:
        """Drop every task, for the master has told that all are lost."""
        for key in {*self.launches, *self.streams.waiting()}:
            self.discard(key)

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
            update = self._update(
                run.launch.key, state, source, cause, self._container(run, source)
            )
            self._latest[update.key] = update.status
            run.statuses.append(status.brief(update.status))
            self._record(update)

    def ended(self, run: Run, state: str, source: str, cause: Cause) -> None:
        """Send the last update of a task and forget its run."""
        key = run.launch.key
        del self.runs[key]
        self._latest.pop(key, None)
        self.end_counts[state] += 1
        self._remember(run)
        if run.directory:
            self.keeper.ended(run.directory)
        if run.silent:
            self._master.release(run.launch)
        else:
            update = self._update(key, state, source, cause, self._container(run, source))
            run.statuses.append(status.brief(update.status))
            self._record(update, run.launch)

    def _container(self, run: Run, source: str) -> Mapping[str, Any]:
        if source != EXECUTOR:
            return {}
        return status.container_status(run.container_id, self.place.ip, run.pid)

    def _update(
        self, key: Key, state: str, source: str, cause: Cause, container: Mapping[str, Any]
    ) -> Update:
        told = status.from_agent(key[1], self.place.agent_id, state, source, cause, container)
        return Update(key, told, orjson.dumps(told))

    def _remember(self, run: Run) -> None:
        framework_id = run.launch.framework_id
        history = self.history.setdefault(framework_id, History())
        history.info = self.frameworks.get(framework_id, history.info)
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
