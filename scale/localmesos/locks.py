"""Lock files: one process per part of a work folder, and none before what it left is gone."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from scale.localmesos.guard import lock

LONGEST_S: Final = 20.0
RETRY_S: Final = 0.02


def wait_for_lock(path: Path) -> int:
    """Return a descriptor that holds a lock, when whoever holds it has ended.

    Raises:
        RuntimeError: it does not end.
    """
    deadline = time.monotonic() + LONGEST_S
    while True:
        try:
            return lock(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"what an earlier run left still holds {path}") from None
            time.sleep(RETRY_S)


def wait_until_free(paths: Iterable[Path]) -> None:
    """Return when nobody holds any of the locks; see `wait_for_lock`."""
    for path in paths:
        os.close(wait_for_lock(path))
