"""What every implementation of the scheduler's `Gateway` promises, on a cluster that runs tasks.

`CLUSTERS` names how to get one; a fake that is held to these tests is added there.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scale.core.cluster import (
    ClusterEvent,
    Deposed,
    Offer,
    OffersReceived,
    Subscribed,
    TaskRef,
    TaskSpec,
    TaskState,
    TaskUpdate,
    UpdateReceived,
    Uri,
)
from scale.core.errors import GatewayError
from scale.core.resources import Resources
from scale.mesos.files import AgentFiles, FileGone
from scale.mesos.gateway import MesosGateway
from scale.scheduler.gateway import Gateway

DEADLINE_S = 20
FRACTION = Resources(millicpus=100, mem_mib=32)


class Cluster:
    """A running cluster: makes gateways to it, and knows how its files are read."""

    def __init__(self, make_gateway: Callable[[], Gateway], files: AgentFiles) -> None:
        self.make_gateway = make_gateway
        self.files = files


@contextmanager
def local_mesos(folder: Path) -> Iterator[Cluster]:
    announcement = folder / "announcement"
    command = [sys.executable, "-m", "scale.localmesos", "--work-dir", str(folder / "work")]
    command += ["--cpus", "2", "--mem", "1024", "--disk", "1024", "--shutdown-grace-s", "0.2"]
    command += ["--announce-file", str(announcement)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], DEADLINE_S)[0], "it never got ready"
        process.stdout.readline()
        assert announcement.exists(), (folder / "log").read_text()
        principal, secret = (folder / "work" / "credentials").read_text().split()
        files = AgentFiles(principal, secret, timeout_s=DEADLINE_S)
        master = json.loads(announcement.read_text())["master"]
        yield Cluster(lambda: mesos_gateway(master, principal, secret), files)
        files.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)
        process.stdout.close()  # type: ignore[union-attr]


def mesos_gateway(master: str, principal: str, secret: str) -> MesosGateway:
    return MesosGateway(
        master,
        principal=principal,
        secret=secret,
        user="root" if os.getuid() == 0 else os.environ.get("USER", "nobody"),
        name="conformance",
        failover_timeout_s=3600,
        hostname="localhost",
        webui_url="",
    )


CLUSTERS = {"local Mesos": local_mesos}


@pytest.fixture(scope="module", params=CLUSTERS)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with CLUSTERS[request.param](tmp_path_factory.mktemp("cluster")) as started:
        yield started


class Scheduler:
    """A gateway with what it told so far."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.waiting: list[ClusterEvent] = []
        self.framework_id = ""

    def subscribe(self, framework_id: str | None = None) -> "Scheduler":
        self.gateway.start(framework_id)
        self.framework_id = self.next(Subscribed).framework_id
        return self

    def next(self, kind: type, wanted: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the next such event; the others before it are forgotten."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            while self.waiting:
                event = self.waiting.pop(0)
                if isinstance(event, kind) and wanted(event):
                    return event
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind.__name__} came"
            if select.select([self.gateway], [], [], left)[0]:
                self.waiting = self.gateway.drain()

    def offer(self) -> Offer:
        return self.next(OffersReceived).offers[0]  # type: ignore[no-any-return]

    def update(self, task_id: str) -> TaskUpdate:
        received = self.next(UpdateReceived, lambda event: event.update.task_id == task_id)
        return received.update  # type: ignore[no-any-return]

    def launch(self, task_id: str, command: str, **more: Any) -> Offer:
        offer = self.offer()
        task = TaskSpec(task_id, offer.agent_id, "a task", command, FRACTION, **more)
        self.gateway.launch([offer.offer_id], [task], refuse_s=0)
        return offer

    def until(self, task_id: str, state: TaskState) -> TaskUpdate:
        """Acknowledge the task's updates up to the one with this state, and return it."""
        while True:
            update = self.update(task_id)
            self.gateway.acknowledge([update])
            if update.state is state:
                return update


@pytest.fixture
def scheduler(cluster: Cluster) -> Iterator[Scheduler]:
    made = Scheduler(cluster.make_gateway())
    made.subscribe()
    yield made
    made.gateway.stop()


def test_offers_come_with_the_agents_address_and_fit_its_total(scheduler: Scheduler) -> None:
    offer = scheduler.offer()
    (agent,) = scheduler.gateway.agents()
    assert (agent.agent_id, agent.address, agent.port) == (
        offer.agent_id,
        offer.address,
        offer.port,
    )
    assert agent.total == Resources(2000, 1024, 1024)
    assert offer.free.fits_in(agent.total)


def test_a_task_runs_and_each_update_follows_the_acknowledgement_of_the_one_before(
    scheduler: Scheduler,
) -> None:
    scheduler.launch("simple", "true")
    states = []
    while not states or states[-1] is not TaskState.FINISHED:
        update = scheduler.update("simple")
        assert update.uuid is not None
        states.append(update.state)
        scheduler.gateway.acknowledge([update])
    assert states == [TaskState.STARTING, TaskState.RUNNING, TaskState.FINISHED]


def test_a_task_sees_its_environment_and_files_and_its_output_is_read_back(
    cluster: Cluster, scheduler: Scheduler, tmp_path: Path
) -> None:
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\nprintf "%s é" "$1"\n')
    offer = scheduler.launch(
        "output",
        './tool "$WORD"; printf "\\377" >&2',
        environment={"WORD": "two  words"},
        uris=(Uri(str(tool), executable=True),),
    )
    scheduler.until("output", TaskState.FINISHED)
    folder = f"/frameworks/{scheduler.framework_id}/executors/output/runs/latest"
    agent = (offer.address, offer.port)
    assert cluster.files.read(*agent, f"{folder}/stdout", 0, 100).data == "two  words é".encode()
    assert cluster.files.read(*agent, f"{folder}/stdout", 5, 5).data == b"words"
    assert cluster.files.size(*agent, f"{folder}/stdout") == 13
    assert cluster.files.read(*agent, f"{folder}/stderr", 0, 100).data.endswith(b"\xff")
    with pytest.raises(FileGone):
        cluster.files.read(*agent, f"{folder}/nothing", 0, 1)


def test_a_task_that_fails_says_with_which_code(scheduler: Scheduler) -> None:
    scheduler.launch("failing", "exit 3")
    update = scheduler.until("failing", TaskState.FAILED)
    assert update.message == "Command exited with status 3"
    assert update.reason is None


def test_several_tasks_start_with_one_launch(scheduler: Scheduler) -> None:
    offer = scheduler.offer()
    names = [f"batch-{number}" for number in range(10)]
    tasks = [TaskSpec(name, offer.agent_id, name, "true", FRACTION) for name in names]
    scheduler.gateway.launch([offer.offer_id], tasks, refuse_s=0)
    finished: set[str] = set()
    while finished != set(names):
        update = scheduler.next(UpdateReceived).update
        scheduler.gateway.acknowledge([update])
        if update.state is TaskState.FINISHED:
            finished.add(update.task_id)


def test_a_killed_task_ends_as_killed(scheduler: Scheduler) -> None:
    offer = scheduler.launch("killed", "trap '' TERM; while :; do sleep 0.1; done")
    scheduler.until("killed", TaskState.RUNNING)
    scheduler.gateway.kill(TaskRef("killed", offer.agent_id), grace_s=0)
    assert scheduler.until("killed", TaskState.KILLED).uuid is not None


def test_a_task_on_an_offer_that_is_gone_is_dropped(scheduler: Scheduler) -> None:
    offer = scheduler.offer()
    scheduler.gateway.decline([offer.offer_id], refuse_s=0)
    task = TaskSpec("late", offer.agent_id, "late", "true", FRACTION)
    scheduler.gateway.launch([offer.offer_id], [task], refuse_s=0)
    update = scheduler.update("late")
    assert (update.state, update.reason) == (TaskState.DROPPED, "REASON_INVALID_OFFERS")
    scheduler.gateway.acknowledge([update])  # the master's own: passed over


def test_a_declined_offer_comes_again_at_once_after_revive(scheduler: Scheduler) -> None:
    offer = scheduler.offer()
    scheduler.gateway.decline([offer.offer_id], refuse_s=3600)
    scheduler.gateway.revive()
    assert scheduler.offer().agent_id == offer.agent_id


def test_reconciliation_tells_what_the_cluster_knows(scheduler: Scheduler) -> None:
    offer = scheduler.launch("known", "sleep 60")
    scheduler.until("known", TaskState.RUNNING)
    known, unknown = TaskRef("known", offer.agent_id), TaskRef("unknown", offer.agent_id)
    scheduler.gateway.reconcile([known, unknown])
    answers = [scheduler.next(UpdateReceived).update for _ in range(2)]
    assert {(one.task_id, one.state, one.reason, one.uuid) for one in answers} == {
        ("known", TaskState.RUNNING, "REASON_RECONCILIATION", None),
        ("unknown", TaskState.GONE, "REASON_RECONCILIATION", None),
    }
    scheduler.gateway.reconcile([])
    assert scheduler.next(UpdateReceived).update.task_id == "known"
    scheduler.gateway.kill(known, grace_s=0)
    scheduler.until("known", TaskState.KILLED)


def test_tasks_run_on_while_the_scheduler_is_away(cluster: Cluster) -> None:
    before = Scheduler(cluster.make_gateway()).subscribe()
    offer = before.launch("lasting", "sleep 60")
    before.until("lasting", TaskState.RUNNING)
    before.gateway.stop()
    after = Scheduler(cluster.make_gateway()).subscribe(before.framework_id)
    assert after.framework_id == before.framework_id
    task = TaskRef("lasting", offer.agent_id)
    after.gateway.reconcile([task])
    assert after.update("lasting").state is TaskState.RUNNING
    after.gateway.kill(task, grace_s=0)
    after.until("lasting", TaskState.KILLED)
    after.gateway.stop()


def test_a_second_scheduler_deposes_the_first_for_good(cluster: Cluster) -> None:
    first = Scheduler(cluster.make_gateway()).subscribe()
    second = Scheduler(cluster.make_gateway()).subscribe(first.framework_id)
    first.next(Deposed)
    with pytest.raises(GatewayError):
        first.gateway.revive()
    second.gateway.revive()
    first.gateway.stop()
    second.gateway.stop()


def test_calls_without_a_cluster_raise(cluster: Cluster) -> None:
    gateway = cluster.make_gateway()
    with pytest.raises(GatewayError):
        gateway.revive()
    assert gateway.drain() == []
    gateway.stop()
