"""What every fault needs: to wait while the work goes on, and to look at the leader."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fault_program import Program
from fault_world import World
from psycopg2 import Error as DatabaseProblem

LIMIT_S: Final = 40.0


class NotSeen(Exception):
    """What was to happen did not."""


@dataclass
class Injector:
    """Waits; `tick` keeps the work going meanwhile."""

    world: World
    dice: random.Random
    tick: Callable[[], None]

    def until(self, true: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            try:
                if true():
                    return
            except DatabaseProblem:
                pass
            if time.monotonic() > deadline:
                raise NotSeen(f"waited {limit_s:g} s for {what}")
            self.tick()
            time.sleep(0.02)

    def pause(self, least_s: float, most_s: float) -> None:
        """Let a random time go by."""
        end = time.monotonic() + self.dice.uniform(least_s, most_s)
        self.until(lambda: time.monotonic() >= end, "time")

    def leader(self) -> Program:
        self.until(self.world.leader, "a leader")
        leader = self.world.leader()
        assert leader is not None
        return leader
