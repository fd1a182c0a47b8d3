"""The faults. Each injects itself, removes its cause, and returns; then recovery is timed."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from fault_injector import NotSeen
from fault_kinds_mesos import MesosFaults, mesos_faults
from fault_mesos import Loss
from fault_program import Program

from scale.failpoints import POINTS


@dataclass
class Faults(MesosFaults):
    """Injects; the faults of Mesos are those of the base."""

    # The scheduler.

    def scheduler_killed(self) -> None:
        self._kill_scheduler()
        self.world.tend()

    def scheduler_killed_again_and_again(self) -> None:
        for _ in range(self.dice.randint(3, 6)):
            self._kill_scheduler()
            self.world.tend()
            self.pause(0.3, 1.5)

    def scheduler_stopped(self) -> None:
        self.leader().end(signal.SIGTERM)
        self.world.tend()

    def at_point(self, point: str) -> None:
        """Kill the scheduler, have the next one end at a fail point, and start a third."""
        # The first are about what the last scheduler has left, the later ones about new work.
        nth = 1 if point == "in-recovery" else self.dice.randint(1, 8)
        self._kill_scheduler()
        doomed = self.world.start_scheduler(SCALE_FAIL_POINT=f"{point}:{nth}")
        self.world.down.add(doomed)
        try:
            self.until(lambda: doomed.ended, f"the end at {point}:{nth}")
        finally:
            self.world.down.discard(doomed)
            self.world.drop_scheduler(doomed)
        assert doomed.process is not None
        if doomed.process.returncode != -signal.SIGKILL:
            raise NotSeen(
                f"a scheduler that ends at {point}, it exited with {doomed.process.returncode}"
            )
        self.world.tend()

    def standby_takes_over(self) -> None:
        leader = self.leader()
        self._standby()
        self.world.drop_scheduler(leader)

    def leader_frozen(self) -> None:
        leader = self.leader()
        leader.send(signal.SIGSTOP)
        self.pause(1, 3)
        leader.send(signal.SIGCONT)

    def leader_paused(self) -> None:
        self._depose(self.leader(), lambda leader: leader.send(signal.SIGSTOP))

    def leader_silent(self) -> None:
        """The same, but nobody helps: the standby sees that the leader shows no sign of life."""
        self._depose(self.leader(), lambda leader: leader.send(signal.SIGSTOP), cut=False)

    def leader_paused_in_transaction(self) -> None:
        self._depose(self.leader(), self._stop_in_transaction)

    # What it depends on.

    def postgres_restarted_fast(self) -> None:
        self.world.restart_postgres(signal.SIGINT)

    def postgres_restarted_immediately(self) -> None:
        self.world.restart_postgres(signal.SIGQUIT)

    def postgres_disk_full(self) -> None:
        """Leave no room until it was wanted; the server may end by itself, and is started again."""
        refused = self.world.said("postgres", NO_ROOM)
        with self.world.disk_full():
            self.pause(1, 4)
            self.until(lambda: self.world.said("postgres", NO_ROOM) > refused, NO_ROOM)
        self.world.revive_postgres()

    def connections_cut(self) -> None:
        for _ in range(self.dice.randint(1, 3)):
            self.world.database.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname IS NOT NULL AND pid <> pg_backend_pid()"
            )
            self.pause(0, 0.5)

    def web_away_during(self, phase: str, least_s: float = 0.5, most_s: float = 3) -> None:
        self.until(lambda: self._someone_in(phase), f"an execution in {phase}")
        began = time.time()
        self.world.down.add(self.world.web)
        self.world.web.end(self.dice.choice([signal.SIGKILL, signal.SIGTERM]))
        self.pause(least_s, most_s)
        self.world.down.discard(self.world.web)
        self.world.tend()
        self.until(lambda: self.world.call("GET", "/healthz")[0] == 200, "web")
        if most_s > PRE_WAITS_S:
            self.world.web_away.append(Loss(began, time.time()))

    def worker_and_valkey_killed(self) -> None:
        self.world.worker.end()
        self.world.valkey.end()
        self.world.tend()

    def everything_killed(self) -> None:
        """As when the machine loses power, but for what the kernel still writes."""
        for program in (*self.world.schedulers, self.world.web, self.world.worker):
            program.send(signal.SIGKILL)
        self.world.mesos.kill()
        self.world.valkey.end()
        self.world.restart_postgres(signal.SIGQUIT)
        self.world.mesos.start()
        for program in (*self.world.schedulers, self.world.web, self.world.worker):
            program.end()
        self.world.tend()

    # Parts of them.

    def _kill_scheduler(self) -> None:
        for program in list(self.world.schedulers):
            self.world.drop_scheduler(program)

    def _standby(self) -> Program:
        standby = self.world.start_scheduler()
        self.until(self.world.waiting_schedulers, "a standby")
        return standby

    def _depose(
        self, leader: Program, stop: Callable[[Program], None], *, cut: bool = True
    ) -> None:
        """Stop the leader, perhaps end its lock's session, and let it go on when another leads."""
        self._standby()
        epoch = self._epoch()
        stop(leader)
        try:
            if cut:
                self._end_lock(leader)
            self.until(lambda: self._epoch() > epoch, "a new epoch")
            launches = self._launches()
            self.until(lambda: self._launches() > launches, "a launch by the new leader")
        finally:
            leader.send(signal.SIGCONT)
        self.until(lambda: leader.ended, "the end of the old leader")

    def _end_lock(self, leader: Program) -> None:
        self.world.database.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_locks"
            " WHERE locktype = 'advisory' AND granted AND pid IN"
            " (SELECT pid FROM pg_stat_activity WHERE application_name = %s)",
            leader.name,
        )

    def _stop_in_transaction(self, leader: Program) -> None:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = %s AND state = 'idle in transaction'"
        )

        def caught() -> bool:
            leader.send(signal.SIGSTOP)
            if self.world.database.one(query, leader.name):
                return True
            leader.send(signal.SIGCONT)
            return False

        self.until(caught, "a transaction of the leader")

    def _someone_in(self, phase: str) -> int:
        return int(
            self.world.database.one(
                "SELECT count(*) FROM job_execution WHERE phase = %s"
                " AND state IN ('starting', 'running')",
                phase,
            )
        )

    def _epoch(self) -> int:
        return int(self.world.database.one("SELECT epoch FROM scheduler_state"))

    def _launches(self) -> int:
        return int(
            self.world.database.one("SELECT count(*) FROM execution_event WHERE event = 'launch'")
        )


NO_ROOM: Final = "No space left on device"
#: What was not begun gives up then, and is tried again; post does not.
PRE_WAITS_S: Final = 25.0
#: Take long: only in a long run, and there once.
ONCE: Final = frozenset({"web away for long during pre", "web away for long during post"})


def every_fault(
    *, long_run: bool = False, small_disk: bool = False
) -> dict[str, Callable[[Faults], None]]:
    """Return the faults by name; some are for long runs, one needs a disk that can be filled."""
    plain = (
        Faults.scheduler_killed,
        Faults.scheduler_killed_again_and_again,
        Faults.scheduler_stopped,
        Faults.standby_takes_over,
        Faults.leader_frozen,
        Faults.leader_paused,
        Faults.leader_paused_in_transaction,
        Faults.postgres_restarted_fast,
        Faults.postgres_restarted_immediately,
        Faults.connections_cut,
        Faults.worker_and_valkey_killed,
        Faults.everything_killed,
    )
    found: dict[str, Callable[[Faults], None]] = {
        each.__name__.replace("_", " "): each for each in plain
    }
    found |= mesos_faults()
    for point in POINTS:
        found[f"scheduler killed {point}"] = partial(Faults.at_point, point=point)
    for phase in ("pre", "post"):
        found[f"web away during {phase}"] = partial(Faults.web_away_during, phase=phase)
    if small_disk:
        found["postgres disk full"] = Faults.postgres_disk_full
    if long_run:
        found["leader silent"] = Faults.leader_silent
        for phase in ("pre", "post"):
            found[f"web away for long during {phase}"] = partial(
                Faults.web_away_during, phase=phase, least_s=31, most_s=36
            )
    return found
