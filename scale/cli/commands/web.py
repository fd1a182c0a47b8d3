"""`scale web`: one uvicorn process."""

import socket
import sys
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_FINISH_REQUESTS_WITHIN_S: Final = 2
_NO_HTTP: Final = b'{"detail":"The request is no valid HTTP.","code":"bad_request"}'


class _Http(HttpToolsProtocol):
    """Refuses what cannot be read in the form of all other errors, and hangs up."""

    def send_400_response(self, msg: str) -> None:
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(_NO_HTTP), _NO_HTTP)
        )
        self.transport.close()


def run(*, host: str, port: int, access_log: bool, descriptor: int | None) -> None:
    """Serve until SIGTERM or SIGINT; `descriptor` is a socket that listens already."""
    config = uvicorn.Config(
        "scale.asgi:application",
        host=host,
        port=port,
        access_log=access_log,
        log_config=None,  # Django's LOGGING has uvicorn's loggers, too
        server_header=False,
        http=_Http,
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
