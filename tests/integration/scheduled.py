"""What tests of the scheduler stand on: a loop with a played cluster and clocks that they turn."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from fake_gateway import (
    Acknowledged,
    Declined,
    FakeGateway,
    Killed,
    Launched,
    Listed,
    Reconciled,
    Revived,
)

from scale.core.cluster import (
    Agent,
    Offer,
    OffersReceived,
    Subscribed,
    TaskSpec,
    TaskState,
    TaskUpdate,
    UpdateReceived,
)
from scale.core.resources import Resources
from scale.job import bulk
from scale.job.models import ExecutionEvent, Job, JobExecution, JobType
from scale.job.submission import JobRequest, create_job_type, submit_job, submit_jobs
from scale.scheduler.leader import Leadership
from scale.scheduler.loop import SchedulerLoop

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
FRAMEWORK = "framework-1"
ONE_PHASE: Mapping[str, Any] = {"command": "true"}
THREE_PHASES: Mapping[str, Any] = {
    "command": "sh",
    "output_data": [{"name": "out", "type": "file", "pattern": "out.txt"}],
}


def make_type(interface: Mapping[str, Any] = ONE_PHASE, **fields: Any) -> JobType:
    """Return a stored job type of 1 cpu and 100 MiB; other fields as given."""
    defaults = {
        "name": f"type-{uuid4()}",
        "version": "1.0",
        "cpus_required": 1.0,
        "mem_required": 100.0,
        "disk_out_const_required": 10.0,
    }
    return create_job_type({**defaults, "interface": dict(interface), **fields})


def submit(
    job_type: JobType | None = None,
    inputs: Mapping[str, Any] | None = None,
    *,
    at: datetime = NOON,
    **wanted: Any,
) -> JobExecution:
    """Submit one job; return its execution, which waits in the queue."""
    request = JobRequest(job_type or make_type(), inputs or {}, **wanted)
    return submit_job(request, user="ada", at=at)[1]


def submit_many(job_type: JobType, count: int, *, at: datetime = NOON) -> list[JobExecution]:
    jobs = submit_jobs([JobRequest(job_type)] * count, user="ada", at=at)
    return list(JobExecution.objects.filter(job__in=jobs).order_by("id"))


def history(execution: JobExecution) -> list[str]:
    return list(
        ExecutionEvent.objects.filter(execution=execution)
        .order_by("id")
        .values_list("event", flat=True)
    )


def newest(job: Job) -> JobExecution:
    """Return the latest attempt of a job as it is stored now."""
    return JobExecution.objects.filter(job=job).select_related("error", "job").latest("exe_num")


class HintedLeadership(Leadership):
    """Hears of new work as NOTIFY would tell it, which a test's open transaction holds back."""

    hint = False

    def heard(self) -> bool:
        hinted, self.hint = self.hint, False
        return super().heard() or hinted


class Bench:
    """One scheduler, its played cluster, and its clocks, which stand still until turned."""

    def __init__(self, *, name: str = "one", leadership: Leadership | None = None) -> None:
        self.elapsed_s = self.clock_step_s = 0.0
        self.leadership = leadership or HintedLeadership(name)
        self.leadership.acquire(now=self.now())
        self.gateway = FakeGateway()
        self.loop = self._new_loop()
        self._offers = Counter[str]()

    def _new_loop(self) -> SchedulerLoop:
        return SchedulerLoop(
            self.gateway, self.leadership, now=self.now, monotonic=lambda: 5000 + self.elapsed_s
        )

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.elapsed_s + self.clock_step_s)

    def close(self) -> None:
        self.leadership.release()
        self.gateway.close()

    def restart(self) -> None:
        """Let the scheduler die and another one take over, subscribed and reconciled."""
        machines = self.gateway.machines
        self.gateway.close()
        self.gateway = FakeGateway()
        self.gateway.machines = machines
        self.leadership.acquire(now=self.now())
        self.loop = self._new_loop()

    # What happens.

    def subscribe(self, framework_id: str = FRAMEWORK) -> list[Reconciled]:
        """Start the loop and let the master confirm; return what was asked about."""
        self.loop.start()
        self.gateway.say(Subscribed(framework_id, "master:5050"))
        self.loop.round()
        assert self.gateway.take(Listed) == [Listed()]
        return self.gateway.take(Reconciled)

    def round(self, *, after_s: float = 0.0, hint: bool = False) -> float:
        """Let time pass, perhaps tell of new work, and do one round; return the pause after it."""
        self.elapsed_s += after_s
        if hint:
            assert isinstance(self.leadership, HintedLeadership)
            self.leadership.hint = True
        return self.loop.round()

    def machine(
        self, agent: str = "a1", *, cpus: float = 8, mem: int = 8000, hostname: str | None = None
    ) -> Agent:
        """Let the cluster have this machine from now on."""
        total = Resources(int(cpus * 1000), mem, 100_000)
        made = Agent(agent, hostname or f"host-{agent}", "127.0.0.1", 5051, total)
        others = [each for each in self.gateway.machines if each.agent_id != agent]
        self.gateway.machines = [*others, made]
        return made

    def offer(self, agent: str = "a1", *, cpus: float = 8, mem: int = 8000) -> Offer:
        """Let an offer of a machine arrive, without a round; the machine is added if need be."""
        machines = {each.agent_id: each for each in self.gateway.machines}
        machine = machines.get(agent) or self.machine(agent)
        self._offers[agent] += 1
        free = Resources(int(cpus * 1000), mem, 100_000)
        made = Offer(
            f"{agent}-o{self._offers[agent]}", agent, machine.hostname, "127.0.0.1", 5051, free
        )
        self.gateway.say(OffersReceived((made,)))
        return made

    def tell(
        self, task_id: str, state: TaskState, *, agent: str | None = "a1", **rest: Any
    ) -> TaskUpdate:
        """Let an update arrive and be handled; check that it, and it alone, is acknowledged."""
        update = TaskUpdate(task_id, state, agent_id=agent, **{"uuid": uuid4().hex, **rest})
        self.gateway.say(UpdateReceived(update))
        self.loop.round()
        assert self.gateway.take(Acknowledged) == [Acknowledged((update,))]
        return update

    # What it did.

    def launched(self) -> list[TaskSpec]:
        """Take the launches; return their tasks."""
        return [task for call in self.gateway.take(Launched) for task in call.tasks]

    def killed(self) -> list[str]:
        return [call.task.task_id for call in self.gateway.take(Killed)]

    def declined(self) -> list[str]:
        return [offer_id for call in self.gateway.take(Declined) for offer_id in call.offer_ids]

    def revived(self) -> int:
        return len(self.gateway.take(Revived))

    # Whole stories.

    def launch(self, execution: JobExecution, agent: str = "a1") -> TaskSpec:
        """Offer a machine and let exactly this execution's current phase be launched there."""
        self.offer(agent)
        if not self._knows(agent):
            self.round(hint=True)
            self.gateway.take(Listed)
        else:
            self.round(hint=True)
        [task] = self.launched()
        assert task.task_id.startswith(str(execution.uuid))
        return task

    def _knows(self, agent: str) -> bool:
        return self._offers[agent] > 1

    def run_to(self, execution: JobExecution, state: str, agent: str = "a1") -> TaskSpec:
        """Bring a waiting execution to starting or running on a machine; return its task."""
        task = self.launch(execution, agent)
        if state == "running":
            self.tell(task.task_id, TaskState.RUNNING, agent=agent)
        execution.refresh_from_db()
        assert execution.state == state
        return task


@contextmanager
def bench(**options: Any) -> Iterator[Bench]:
    """Give a subscribed scheduler; check afterwards that it made no call that was not expected."""
    made = Bench(**options)
    try:
        made.subscribe()
        yield made
        made.gateway.assert_all_taken()
    finally:
        made.close()


class Statements:
    """How many statements were sent, those of `bulk` included, which Django does not see."""

    count = 0


@contextmanager
def statements() -> Iterator[Statements]:
    counted = Statements()
    with (
        CaptureQueriesContext(connection) as queries,
        patch("scale.job.bulk.execute_values", wraps=bulk.execute_values) as bulks,
    ):
        yield counted
    counted.count = len(queries) + bulks.call_count


def ended_well(task_ids: Sequence[str], at: datetime | None = None) -> list[UpdateReceived]:
    """Return the updates of tasks that ran and ended well."""
    stamp = (at or timezone.now()).timestamp()
    return [
        UpdateReceived(
            TaskUpdate(
                task_id,
                TaskState.FINISHED,
                agent_id="a1",
                uuid=uuid4().hex,
                message="Command exited with status 0",
                timestamp_s=stamp,
            )
        )
        for task_id in task_ids
    ]
