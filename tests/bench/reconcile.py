"""How long a new scheduler takes to learn of all running tasks: `python tests/bench/reconcile.py`.

PostgreSQL is real and has fsync; the cluster is played, and answers as the master of Mesos does:
one update without uuid for each task, as soon as it is asked. The aim is 10 s.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scale.core.cluster import Agent, TaskRef

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "integration")]

MILLICPUS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--agents", type=int, default=100)
    wanted = parser.parse_args()
    with database():
        running, machines = start_all(wanted.executions, wanted.agents)
        used = len(set(running.values()))
        print(f"{len(running)} executions run on {used} agents")
        took_s, rounds = take_over(running, machines)
    load = os.getloadavg()[0]
    print(f"reconciled in {took_s:.2f} s, {rounds} rounds (aim: 10 s); load {load:.1f}")


@contextmanager
def database() -> Iterator[None]:
    """Start PostgreSQL with our tables, for as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="scale-bench-") as folder:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "scale.settings",
            "SCALE_SECRET_KEY": "only for a benchmark",
            "DATABASE_URL": f"postgresql:///scale?host={folder}&user=scale",
            "SCALE_LOG_LEVEL": "ERROR",
        }
        import django

        django.setup()
        from django.core.management import call_command

        from scale.embedded.postgres import PostgresServer

        server = PostgresServer(Path(folder))
        server.start()
        try:
            call_command("migrate", verbosity=0)
            yield
        finally:
            server.stop()


def start_all(executions: int, agents: int) -> tuple[dict[str, str], "list[Agent]"]:
    """Bring so many executions to running; return task id -> agent id, and the agents."""
    from scheduled import Bench, make_type, submit_many

    from scale.core.cluster import Agent, TaskState, TaskUpdate, UpdateReceived
    from scale.core.resources import Resources
    from scale.scheduler.leader import Leadership

    quota = -(-executions // agents)
    room = Resources(quota * MILLICPUS, 1_000_000, 1_000_000)
    scheduler = Bench(leadership=Leadership("bench"))
    machines = [Agent(f"a{n}", f"host-{n}", "127.0.0.1", 5051, room) for n in range(agents)]
    scheduler.gateway.machines = machines
    scheduler.subscribe()
    job_type = make_type(timeout=0, cpus_required=MILLICPUS / 1000, mem_required=1.0)
    for begun in range(0, executions, 1000):
        submit_many(job_type, min(1000, executions - begun))
    running: dict[str, str] = {}
    while len(running) < executions:
        full = Counter(running.values())
        for each in machines:
            if left := quota - full[each.agent_id]:
                scheduler.offer(each.agent_id, cpus=left * MILLICPUS / 1000)
        scheduler.round(after_s=1)
        scheduler.loop._means.book.clear()
        tasks = scheduler.launched()
        running |= {task.task_id: task.agent_id for task in tasks}
        updates = (TaskUpdate(each.task_id, TaskState.RUNNING, each.agent_id) for each in tasks)
        scheduler.gateway.say(*map(UpdateReceived, updates))
    scheduler.round()
    scheduler.close()
    return running, machines


def take_over(running: dict[str, str], machines: "list[Agent]") -> tuple[float, int]:
    """Let another scheduler lead; return in how many seconds and rounds it had heard of all."""
    from django.utils import timezone
    from fake_gateway import FakeGateway

    from scale.core.cluster import Subscribed, TaskState, TaskUpdate, UpdateReceived
    from scale.scheduler.leader import Leadership
    from scale.scheduler.loop import SchedulerLoop

    class AnsweringGateway(FakeGateway):
        """A cluster in which every task runs."""

        def reconcile(self, tasks: "Sequence[TaskRef]") -> None:
            asked = [task.task_id for task in tasks] or list(running)
            updates = (
                TaskUpdate(each, TaskState.RUNNING, running[each], reason="REASON_RECONCILIATION")
                for each in asked
            )
            self.say(*map(UpdateReceived, updates))

    gateway = AnsweringGateway()
    gateway.machines = machines
    began = time.perf_counter()
    leadership = Leadership("next")
    leadership.acquire(now=timezone.now())
    loop = SchedulerLoop(gateway, leadership)
    loop.start()
    gateway.say(Subscribed("framework-1", "master:5050"))
    rounds = 0
    while not rounds or loop._reconciler._open:
        loop.round()
        rounds += 1
    took_s = time.perf_counter() - began
    leadership.release()
    gateway.close()
    return took_s, rounds


if __name__ == "__main__":
    main()
