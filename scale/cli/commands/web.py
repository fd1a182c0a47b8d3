"""`scale web`: one uvicorn process."""

import socket
import sys
from typing import Final

import uvicorn

_FINISH_REQUESTS_WITHIN_S: Final = 2


def run(*, host: str, port: int, access_log: bool, descriptor: int | None) -> None:
    """Serve until SIGTERM or SIGINT; `descriptor` is a socket that listens already."""
    config = uvicorn.Config(
        "scale.asgi:application",
        host=host,
        port=port,
        access_log=access_log,
        log_config=None,  # Django's LOGGING has uvicorn's loggers, too
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_FINISH_REQUESTS_WITHIN_S,
    )
    server = uvicorn.Server(config)
    # The family is looked up: uvicorn's own fd option would take it for a Unix socket and leave
    # Nagle's algorithm on.
    sockets = None if descriptor is None else [socket.socket(fileno=descriptor)]
    try:
        server.run(sockets)
    except KeyboardInterrupt:
        return
    if not server.started:
        sys.exit(1)
