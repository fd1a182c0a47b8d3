"""How a process without a port says that it is ready: it makes the file that it was told."""

import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "SCALE_READY_FILE"


def announce() -> None:
    """Say that this process is ready, if somebody waits for that."""
    told = os.environ.get(VARIABLE)
    if told:
        Path(told).touch()


class ReadyFile:
    """The supervisor's side of it."""

    def __init__(self, path: Path, lacks: str) -> None:
        self._path = path
        self._lacks = lacks

    def environment(self) -> dict[str, str]:
        """Return what the process must be told."""
        return {VARIABLE: str(self._path)}

    def forget(self) -> None:
        """Take away what an earlier process said; before each start."""
        self._path.unlink(missing_ok=True)

    async def missing(self, _pid: int) -> str | None:
        return None if self._path.exists() else self._lacks
