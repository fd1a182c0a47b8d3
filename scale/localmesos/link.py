"""One connection between the master and an agent: messages in order, written in batches."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from scale.localmesos.messages import BadFrame, Decoder, Message, encode

logger = logging.getLogger(__name__)

MAX_BACKLOG: Final = 64 << 20  # bytes that the other side may lag behind before it is cut off


class Peer(Protocol):
    """Who is told what comes over a link."""

    def received(self, message: Message) -> None:
        """Take a message.

        Raises:
            BadFrame: it makes no sense here; the link is closed.
        """

    def lost(self) -> None:
        """Note that the link is closed, whoever closed it; called once."""


class Link(asyncio.Protocol):
    """A message that is sent goes out at the end of this turn of the loop, with all others."""

    def __init__(self, make_peer: Callable[["Link"], Peer]) -> None:
        self._peer = make_peer(self)
        self._decoder = Decoder()
        self._frames: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.is_open = True

    def send(self, message: Message) -> None:
        """Send a message; drop it if the link is closed."""
        if not self.is_open:
            return
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(encode(message))

    def close(self) -> None:
        """Close after what was sent has left."""
        self._flush()
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once: the other side does not read, or sends nonsense."""
        self.is_open = False
        self._frames.clear()
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._transport is None or not self._frames:
            return
        data = b"".join(self._frames)
        self._frames.clear()
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_BACKLOG:
            logger.warning("the other side of a link does not read and is cut off")
            self.abort()

    # --- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                if not self.is_open:
                    return
                self._peer.received(message)
        except BadFrame as error:
            logger.warning("a link is closed, for it brought nonsense: %s", error)
            self.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False
        self._frames.clear()
        self._peer.lost()
