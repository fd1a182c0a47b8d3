"""Memory limits by sampling: the cgroup tree is not ours to write, and a limit is never silent.

A task is looked at only while it runs, the more often the closer it is to its limit: at 1 GiB/s,
faster than one core touches fresh pages here, it cannot get far past its limit between two looks.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from scale.localmesos import tree
from scale.localmesos.run import MEM_ALLOWANCE, Run

FIRST_S: Final = 0.1  # most short tasks end before their first look
SHORTEST_S: Final = 0.05
LONGEST_S: Final = 1.0
QUIET_S: Final = 0.5  # longest wait for a task near its limit that does not grow
GROWTH: Final = 1 << 30  # bytes per second

Members = Callable[[Run], Sequence[int]]


def watch(run: Run, members: Members, over: Callable[[Run, int], None]) -> None:
    """Look at the task until it ends; call `over` with the bytes it holds above its limit."""
    loop = asyncio.get_running_loop()
    run.memory_timer = loop.call_later(FIRST_S, _look, run, members, over, 0, SHORTEST_S)


def _look(
    run: Run, members: Members, over: Callable[[Run, int], None], before: int, waited_s: float
) -> None:
    pids = members(run)
    used = held(pids, run.mem_asked + MEM_ALLOWANCE)
    run.peak_bytes = max(run.peak_bytes, used)
    room = run.mem_asked + MEM_ALLOWANCE - used
    if room < 0:
        run.memory_timer = None
        over(run, used)
        return
    wait_s = next_look(room, grew=used > before, waited_s=waited_s)
    run.memory_timer = asyncio.get_running_loop().call_later(
        wait_s, _look, run, members, over, used, wait_s
    )


def held(pids: Sequence[int], limit: int) -> int:
    """Return the bytes of a task: resident pages; proportional ones where that decides.

    Processes that forked share pages, which `resident` counts once for each of them.
    """
    used = tree.resident(pids)
    if used > limit and len(pids) > 1:
        return min(used, tree.proportional(pids) or used)
    return used


def next_look(room: int, *, grew: bool, waited_s: float) -> float:
    """Return seconds until the next look, for `room` bytes below the limit."""
    wait_s = min(max(room / GROWTH, SHORTEST_S), LONGEST_S)
    return wait_s if grew else max(wait_s, min(waited_s * 2, QUIET_S))
