"""HTTP on a socket that the keeper holds, and threads that must not hold up the end."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scale.localmesos.http import Application

KEEP_ALIVE_S: Final = 86400  # Mesos never closes an idle connection
LAST_WORDS_S: Final = 1
BACKLOG: Final = 1024
THREAD_NAME: Final = "localmesos"


class Listener(uvicorn.Server):
    """A server that sleeps until it is stopped: uvicorn's own loop wakes ten times a second."""

    def __init__(self, app: Application) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpToolsProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=LAST_WORDS_S,
                backlog=BACKLOG,
            )
        )
        self._stopped = asyncio.Event()
        self.serves = asyncio.Event()

    async def main_loop(self) -> None:
        self.serves.set()
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the part."""
        yield

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()


def await_threads() -> None:
    """Give what fetches, deletes or calls docker a moment to end; the process then ends anyway."""
    mine = [each for each in threading.enumerate() if each.name.startswith(THREAD_NAME)]
    for each in mine:
        each.join(LAST_WORDS_S / len(mine))
