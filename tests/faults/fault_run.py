"""One run: work and faults at the same time, then the end of all work, then the checks."""

import ctypes
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fault_checks import Findings, check
from fault_injector import NotSeen
from fault_kinds import ONCE, Faults, every_fault
from fault_watch import Watch
from fault_work import Work
from fault_world import World, new_home

RECOVERS_WITHIN_S = 60.0
SETTLES_WITHIN_S = 90.0
MANY = 1_000_000
#: For the data of PostgreSQL and its write-ahead log.
DISK_MIB = 512
_CLONE_NEWNS = 0x20000  # linux/sched.h


@dataclass
class Report:
    """What a run did and found; recovery is from the end of a fault to the next launch."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[float, str]] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    seconds: float = 0.0
    restarts: Counter[int] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        yield f"seed {self.seed}, {self.seconds:.0f} s, {sum(self.faults.values())} faults"
        for name, times in sorted(self.faults.items()):
            own = [seconds for seconds, what in self.recoveries if what == name]
            slowest = f"slowest recovery {max(own):.1f} s" if own else ""
            yield f"  {times:3} x {name:36} {slowest}".rstrip()
        found = self.findings
        yield f"jobs {found.jobs}, executions {found.executions}"
        yield f"attempts that were lost with their agent {found.lost_attempts}"
        yield f"lost {len(found.lost)}, doubled {len(found.doubled)}, stuck {len(found.stuck)}"
        if self.recoveries:
            seconds, what = max(self.recoveries)
            yield f"slowest recovery {seconds:.1f} s, after: {what}"
        yield f"failed attempts: {dict(found.errors)}"
        yield f"schedulers that ended by themselves, by exit code: {dict(self.restarts)}"
        yield from complaints(found.all)


def complaints(texts: list[str]) -> Iterator[str]:
    """Yield what is wrong, with one example for those that differ in numbers only."""
    alike: dict[str, list[str]] = {}
    for text in texts:
        alike.setdefault(re.sub(r"\b[0-9a-f-]*\d[0-9a-f-]*\b", "#", text), []).append(text)
    for same in alike.values():
        more = f" (and {len(same) - 1} more like this)" if len(same) > 1 else ""
        yield f"WRONG {same[0]}{more}"


class Run:
    """Injects `rounds` times each fault, in an order that the seed decides, or those of `only`.

    Goes on in the same way until `count` jobs were submitted.
    """

    def __init__(
        self,
        world: World,
        seed: int,
        count: int,
        *,
        only: tuple[str, ...] = (),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._world = world
        self._dice = random.Random(seed)
        # Dice of its own: how often the work asks depends on time.
        self._work = Work(world, random.Random(seed + 1))
        self._faults = Faults(world, self._dice, self._tick)
        self._count = count
        self._only = only
        self._say = say
        self._rounds = 0
        self._draining = False
        self._watch = Watch(world)
        self.report = Report(seed)

    def run(self) -> Report:
        began = time.monotonic()
        self._work.prepare()
        self._faults.until(lambda: self._launched_since(0), "a first launch")
        kinds = every_fault(long_run=True, small_disk=self._world.small_disk)
        while not self._rounds or self._submitted() < self._count:
            once = ONCE if self._rounds else frozenset()
            names = [name for name in self._only or kinds if name not in once] or list(self._only)
            self._dice.shuffle(names)
            for name in names:
                self._inject(name, kinds[name])
                if self._rounds and self._submitted() >= self._count:
                    break
            self._rounds += 1
        self._settle()
        self.report.findings = self._checked()
        self.report.restarts = Counter(self._world.scheduler_ends)
        self.report.seconds = time.monotonic() - began
        return self.report

    def _inject(self, name: str, fault: Callable[[Faults], None]) -> None:
        self._faults.pause(0.1, 0.5)
        self._say(name)
        try:
            fault(self._faults)
            since = self._faults_newest()
            began = time.monotonic()
            self._faults.until(lambda: self._launched_since(since), "a launch", RECOVERS_WITHIN_S)
        except NotSeen as problem:
            self.report.findings.stuck.append(f"{name}: {problem}")
            self._say(f"  {problem}")
        else:
            self.report.recoveries.append((time.monotonic() - began, name))
        self.report.faults[name] += 1

    def _settle(self) -> None:
        self._draining = True
        try:
            self._faults.until(self._work.settled, "the end of all work", SETTLES_WITHIN_S)
            self._faults.until(lambda: not list(self._world.tasks()), "the end of all processes", 5)
        except NotSeen as problem:
            self._say(str(problem))

    def _checked(self) -> Findings:
        before = self.report.findings.stuck
        found = check(self._world)
        found.stuck[:0] = before
        found.doubled += self._watch.twice.values()
        found.wrong += self._watch.strays.values()
        return found

    def _tick(self) -> None:
        self._world.tend()
        self._watch.look()
        # As long as faults are injected something must wait to start, be it more than is wanted.
        self._work.keep(0 if self._draining else MANY)

    def _submitted(self) -> int:
        return int(self._world.database.one("SELECT count(*) FROM job"))

    def _faults_newest(self) -> int:
        newest = 0

        def seen() -> bool:
            nonlocal newest
            newest = self._world.database.one("SELECT coalesce(max(id), 0) FROM execution_event")
            return True

        self._faults.until(seen, "the database")
        return newest

    def _launched_since(self, event_id: int) -> bool:
        query = "SELECT count(*) FROM execution_event WHERE event = 'launch' AND id > %s"
        return bool(self._world.database.one(query, event_id))


def mount_small_disk(folder: Path) -> bool:
    """Mount one that nobody else sees and that goes with this process; return whether it could."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    options = (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "db", folder])
    return all(
        subprocess.run(["mount", *each], capture_output=True).returncode == 0 for each in options
    )


@contextmanager
def world(*, keep: bool = False, small_disk: bool = False) -> Iterator[World]:
    """Start everything in a new folder; stop it, and remove the folder unless it is to be kept.

    `small_disk` gives PostgreSQL a file system of its own where that is allowed.
    """
    home: Path = new_home()
    (home / "db").mkdir()
    made = World(home, small_disk=small_disk and mount_small_disk(home / "db"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        if made.small_disk:
            subprocess.run(["umount", home / "db"], capture_output=True)
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
