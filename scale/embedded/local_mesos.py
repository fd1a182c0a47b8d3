"""Local Mesos as a part: its command line, and what it announces of itself."""

import json
import signal
import sys
from typing import Any

from scale.embedded.guard import Guard
from scale.embedded.home import Home, is_free
from scale.embedded.surroundings import Mesos

_TASKS_END_WITHIN_S = 1


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
            *(sys.executable, "-P", "-m", "scale.localmesos"),
            *("--work-dir", str(self._home.mesos)),
            *("--credentials-file", str(self._credentials)),
            *("--announce-file", str(self._announced)),
            *("--port", str(master), "--agent-port", str(agent)),
            *("--shutdown-grace-s", str(_TASKS_END_WITHIN_S)),
            *self._options,
        ]

    async def missing(self, _pid: int) -> str | None:
        """Say what it still lacks to serve; None when it serves."""
        return None if self._announced.exists() else "it has not announced its ports"

    def found(self) -> Mesos:
        """Return where it is and who may call it, and keep its ports for every later start."""
        announced: dict[str, Any] = json.loads(self._announced.read_text())
        master, agent = announced["master"], announced["agents"][0]
        self._home.remember_ports((_port(master), _port(agent)))
        principal, secret = self._credentials.read_text().split()
        return Mesos(master, principal, secret)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
