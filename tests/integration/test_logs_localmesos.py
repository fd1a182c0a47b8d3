"""The whole way: a process on local Mesos writes, a follower reads, the archive keeps it."""

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from knox.models import AuthToken
from log_world import NOON, ONE_PHASE, Web, running_web, wait_until

from scale.api.logs import close_log_reader
from scale.core.cluster import (
    Offer,
    OffersReceived,
    Subscribed,
    TaskSpec,
    TaskState,
    UpdateReceived,
)
from scale.core.lifecycle import Event
from scale.core.resources import Resources
from scale.job.models import ArchivedLog, JobExecution
from scale.job.services import Move, Placed, move_executions
from scale.job.submission import JobRequest, create_job_type, submit_job
from scale.job.tasks import archive_logs
from scale.mesos.gateway import MesosGateway
from scale.node.models import Node

pytestmark = pytest.mark.django_db(transaction=True)

T = TypeVar("T")
NEEDS = Resources(millicpus=100, mem_mib=32, disk_mib=1)
# It writes a part whenever the test has made the file that it waits for.
COMMAND = """
printf 'one\\n'; until [ -e "{go}.2" ]; do sleep 0.02; done
printf 'two \\303\\251\\377\\n'; echo oops >&2; until [ -e "{go}.3" ]; do sleep 0.02; done
printf 'three'
"""


@dataclass
class Cluster:
    """Local Mesos and a framework on it."""

    gateway: MesosGateway
    waiting: list[Any]

    def wait_for(self, kind: type[T], timeout_s: float = 15) -> T:
        """Return the next event of a kind; others are kept for later."""
        deadline = monotonic() + timeout_s
        while True:
            for event in self.waiting:
                if isinstance(event, kind):
                    self.waiting.remove(event)
                    return event
            assert select.select([self.gateway.fileno()], [], [], deadline - monotonic())[0]
            self.waiting += self.gateway.drain()

    def wait_for_state(self, state: TaskState) -> None:
        while True:
            update = self.wait_for(UpdateReceived).update
            self.gateway.acknowledge([update])
            if update.state is state:
                return


@pytest.fixture
def cluster(tmp_path: Path, settings: Any) -> Iterator[Cluster]:
    announced = tmp_path / "announced"
    options = ["--work-dir", str(tmp_path / "mesos"), "--announce-file", str(announced)]
    (tmp_path / "mesos").mkdir()
    process = subprocess.Popen([sys.executable, "-m", "scale.localmesos", *options])
    try:
        wait_until(announced.exists)
        known = (tmp_path / "mesos" / "credentials").read_text().split()
        settings.SCALE_MESOS_PRINCIPAL, settings.SCALE_MESOS_SECRET = known
        close_log_reader()  # one that another test left has other credentials
        gateway = MesosGateway(
            json.loads(announced.read_text())["master"],
            principal=known[0],
            secret=known[1],
            user="root",
            name="logs",
            failover_timeout_s=60,
            hostname="localhost",
            webui_url="",
        )
        gateway.start(None)
        yield Cluster(gateway, [])
        gateway.stop()
    finally:
        process.terminate()
        process.wait(15)


def launch(cluster: Cluster, framework_id: str, offer: Offer, go: Path) -> JobExecution:
    """Store an execution and launch its task, in the order in which the scheduler does."""
    node = Node.objects.create(
        hostname=offer.hostname, slave_id=offer.agent_id, address=offer.address, port=offer.port
    )
    job_type = create_job_type({"name": "writes", "version": "1", "interface": dict(ONE_PHASE)})
    _, row = submit_job(JobRequest(job_type), user="ada", at=NOON)
    task_id = f"{row.uuid}.job.1"
    placed = Placed(node.pk, offer.agent_id, framework_id, task_id, NEEDS, "", {})
    move_executions([Move(row.pk, Event.LAUNCH, placed=placed)], at=NOON)
    task = TaskSpec(task_id, offer.agent_id, "writes", COMMAND.format(go=go), NEEDS)
    cluster.gateway.launch([offer.offer_id], [task], refuse_s=600)
    return row


def test_a_log_of_a_real_task_is_followed_read_and_archived(
    cluster: Cluster, tmp_path: Path, make_user: Callable[..., Any]
) -> None:
    subscribed = cluster.wait_for(Subscribed)
    go = tmp_path / f"go-{uuid4()}"
    offer = cluster.wait_for(OffersReceived).offers[0]
    row = launch(cluster, subscribed.framework_id, offer, go)
    logs = f"/job-executions/{row.pk}/logs"
    token = AuthToken.objects.create(make_user(role="viewer"))[1]
    with running_web() as (port, _), Web(port, token).stream(f"{logs}/stream/") as events:
        web = Web(port, token)
        assert events.text(4) == "one\n"
        cluster.wait_for_state(TaskState.RUNNING)
        move_executions([Move(row.pk, Event.START)], at=NOON)
        Path(f"{go}.2").touch()
        assert events.text(12) == "two é\ufffd\n"
        Path(f"{go}.3").touch()
        cluster.wait_for_state(TaskState.FINISHED)
        move_executions([Move(row.pk, Event.FINISH, exit_code=0)], at=NOON)
        assert events.text(17) == "three"
        assert events.next()["event"] == "end"
        live = [web.get(f"{logs}/{name}/").body for name in ("stdout", "stderr")]
        assert live == [b"one\ntwo \xc3\xa9\xff\nthree", b"oops\n"]
        archive_logs()
        archived = ArchivedLog.objects.filter(execution=row)
        assert {log.stream: log.size for log in archived} == {"stdout": 17, "stderr": 5}
    with running_web() as (port, _):  # another process, which remembers nothing
        again = [Web(port, token).get(f"{logs}/{name}/").body for name in ("stdout", "stderr")]
    assert again == live
