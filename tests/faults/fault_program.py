"""One process after the other with the same command line, and the ports that they keep."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from scale.embedded.guard import Guard

AGENTS = 3
PYTHON = (sys.executable, "-P", "-m")


class Program:
    """One process after the other with the same command line; their output is one log."""

    def __init__(
        self,
        log: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        **variables: str,
    ) -> None:
        """Run with `environment` as it will be at each start, and `variables`."""
        self.log = log
        self.name = variables.get("PGAPPNAME", log.name)
        self._command = command
        self._environment = environment
        self._variables = variables
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.ended
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self._command,
                env={**self._environment, **self._variables},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                preexec_fn=Guard(signal.SIGKILL).preexec(),  # noqa: PLW1509  main thread only
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def send(self, number: int) -> None:
        if not self.ended:
            os.kill(self.pid, number)

    def end(self, number: int = signal.SIGKILL, within_s: float = 30) -> None:
        """Send a signal and wait for the end."""
        if self.process is not None:
            self.send(number)
            self.process.wait(within_s)


def free_ports() -> tuple[int, int, int, int]:
    """Return ports for web, the wire and the master; at the last begins a row for the agents."""
    while True:
        with closing(socket.create_server(("127.0.0.1", 0))) as first:
            base: int = first.getsockname()[1]
        # Below the range of which the kernel takes the ports of connections.
        base = 12_000 + base % 18_000
        if all(is_free(base + offset) for offset in range(AGENTS + 3)):
            return base, base + 1, base + 2, base + 3


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def wait_for(true: Any, what: str, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(0.02)
