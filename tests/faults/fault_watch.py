"""Looks at what runs while the faults go on: nothing twice, nothing that nobody wants."""

import time
from dataclasses import dataclass, field
from typing import Final

from fault_world import World
from psycopg2 import Error as DatabaseProblem

EVERY_S: Final = 0.5
#: A task that no row knows must be killed within this time, whatever else fails meanwhile.
STRAY_S: Final = 30.0


@dataclass
class Watch:
    """What was seen that must not be, by job and by task."""

    world: World
    twice: dict[str, str] = field(default_factory=dict)
    strays: dict[str, str] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _looked: float = 0.0

    def look(self) -> None:
        """Look now and then; what runs on an agent that cannot be told is left out."""
        if time.monotonic() - self._looked < EVERY_S:
            return
        self._looked = time.monotonic()
        places: dict[str, set[str]] = {}
        living = set()
        for task in self.world.tasks():
            sandbox = task["MESOS_SANDBOX"]
            if any(f"/slaves/{agent_id}/" in sandbox for agent_id in self.world.mesos.cut_off):
                continue
            living.add(task["MESOS_EXECUTOR_ID"])
            if job := task.get("SCALE_JOB_ID"):
                places.setdefault(job, set()).add(sandbox)
        for job, sandboxes in places.items():
            if len(sandboxes) > 1:
                self.twice[job] = f"job {job} ran in {len(sandboxes)} places: {sorted(sandboxes)}"
        self._look_for_strays(living)

    def _look_for_strays(self, living: set[str]) -> None:
        try:
            strays = living - self.world.wanted_tasks()
        except DatabaseProblem:
            return
        now = time.monotonic()
        self._since = {task: self._since.get(task, now) for task in strays}
        for task, since in self._since.items():
            if now - since > STRAY_S:
                self.strays[task] = f"task {task} lives, and no row knows it"
