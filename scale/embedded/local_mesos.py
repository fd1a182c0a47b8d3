"""Local Mesos as a part: its command line, and what it announces of itself."""

import json
import signal
import sys
from contextlib import suppress
from typing import Any

from scale.embedded.errors import CannotStart
from scale.embedded.guard import Guard
from scale.embedded.home import Home, is_free
from scale.embedded.surroundings import Mesos


class LocalMesos:
    """The cluster of this one machine. It keeps its ports, so that a restart is found again."""

    guard = Guard(signal.SIGTERM)

    def __init__(self, home: Home, options: list[str]) -> None:
        """Use the ports of the last run if they are still free; `options` go to it as such."""
        self._home = home
        self._options = options
        self._announced = home.mesos / "announced.json"
        self._credentials = home.mesos / "credentials"
        if not all(is_free(port) for port in home.ports()):
            home.forget_ports()

    def launch(self) -> list[str]:
        """Forget what the last run announced and return the command line."""
        self._announced.unlink(missing_ok=True)
        master, agent = self._home.ports()
        return [
            *(sys.executable, "-m", "scale.localmesos"),
            *("--work-dir", str(self._home.mesos)),
            *("--credentials-file", str(self._credentials)),
            *("--announce-file", str(self._announced)),
            *("--port", str(master), "--agent-port", str(agent)),
            *self._options,
        ]

    async def missing(self, _pid: int) -> str | None:
        """Say what it still lacks to serve; None when it serves."""
        return None if self._announcement() else "it has not announced its ports"

    def found(self) -> Mesos:
        """Return where it is, once it is ready, and remember that."""
        announcement = self._announcement()
        return Mesos(announcement["master"], *self._login())

    def _announcement(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads(self._announced.read_text())
            assert isinstance(found, dict)
            return found
        return {}

    def _login(self) -> tuple[str, str]:
        raise CannotStart("TODO")
