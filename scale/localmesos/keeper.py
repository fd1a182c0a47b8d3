"""When the sandboxes of one agent are deleted: a timer for the oldest, no tick."""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from scale.localmesos import sandbox

logger = logging.getLogger(__name__)

SHORTEST_S: Final = 0.2
PARTS: Final = 100  # of the delay: sweeps are no closer than that, so that one deletes many


class Keeper:
    """Sweeps old sandboxes in a thread and wakes again when the next one is old enough."""

    def __init__(
        self, root: Path, gc_delay_s: float, threads: Executor, is_live: Callable[[str, str], bool]
    ) -> None:
        """Keep `root`; `is_live` tells by framework and task id which sandboxes are in use."""
        self._root = root
        self._gc_delay_s = gc_delay_s
        self._threads = threads
        self._is_live = is_live
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def ended(self, directory: str) -> None:
        """Start the clock of a sandbox: its age counts from now."""
        folder = Path(directory).parent.parent
        try:
            os.utime(folder)
        except OSError as error:
            logger.warning("cannot touch a sandbox: %s", error)
        self._sweep_within(sandbox.allowed_age_s(self._gc_delay_s, self._root))

    def _sweep_within(self, seconds: float) -> None:
        if self._timer is None and not self._stopped:
            wait_s = max(seconds, SHORTEST_S, self._gc_delay_s / PARTS)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.sweep)

    def sweep(self) -> None:
        """Delete what is old enough."""
        self._timer = None
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(
            self._threads, sandbox.collect, self._root, self._gc_delay_s, self._is_live
        )
        work.add_done_callback(self._swept)

    def _swept(self, work: "asyncio.Future[float | None]") -> None:
        if work.cancelled():
            return
        if (error := work.exception()) is not None:
            logger.error("sandboxes could not be deleted", exc_info=error)
        elif (soonest := work.result()) is not None:
            self._sweep_within(soonest)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
