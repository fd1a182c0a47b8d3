"""An agent's way to its master: it registers, again whenever the link breaks."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import Any, Final

import orjson

from scale.localmesos.agent import Agent
from scale.localmesos.link import Link
from scale.localmesos.messages import (
    Acknowledge,
    BadFrame,
    Discard,
    Farewell,
    Introduce,
    Kill,
    Leave,
    Message,
    Missing,
    Ping,
    Pong,
    Register,
    Released,
    RemoveFramework,
    Resend,
    Start,
    Told,
    Welcome,
)
from scale.localmesos.report import encode_report
from scale.localmesos.tasks import Launch, launch_from
from scale.localmesos.updates import Update

logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0
FAREWELL_S: Final = 1.0


class Upstream:
    """What the agent calls its master, and the peer at this end of the link."""

    def __init__(self, path: str) -> None:
        """Speak to the master behind the Unix socket `path`."""
        self._path = path
        self._agent: Agent | None = None
        self._link: Link | None = None
        self._pause_s = FIRST_PAUSE_S
        self.welcomed = asyncio.Event()
        self.dismissed = asyncio.Event()  # the master has taken leave of us
        self.is_gone = False  # and never wants to see this agent id again

    @property
    def agent(self) -> Agent:
        assert self._agent is not None
        return self._agent

    async def connect(self, agent: Agent | None = None) -> None:
        """Register, for `agent` the first time; the keeper holds the socket, so it is there.

        Raises:
            OSError: there is no such socket.
        """
        self._agent = agent or self._agent
        loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self._path)
        connection.setblocking(False)
        _, link = await loop.create_unix_connection(lambda: Link(self._attach), sock=connection)
        self._link = link
        place = self.agent.place
        report = encode_report(self.agent.report())
        link.send(Register(place.agent_id, place.hostname, place.ip, place.port, report))

    def _attach(self, _: Link) -> "Upstream":
        return self

    def lost(self) -> None:
        """Connect again soon, unless it was to be."""
        self._link = None
        self.welcomed.clear()
        if not self.dismissed.is_set():
            asyncio.get_running_loop().call_later(self._pause_s, self._again)
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def _again(self) -> None:
        self._connecting = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        try:
            await self.connect()
        except OSError as error:
            logger.warning("there is no way to the master: %s", error)
            self.lost()

    async def leave(self) -> bool:
        """Say that the agent ends; return whether the master has taken note of it."""
        if self._link is None or not self.welcomed.is_set():
            return False
        self._link.send(Leave())
        try:
            await asyncio.wait_for(self.dismissed.wait(), FAREWELL_S)
        except TimeoutError:
            return False
        return True

    # --- what the agent tells ------------------------------------------------------------------

    def forward(self, update: Update) -> None:
        self._send(Told(update.key[0], update.encoded))

    def release(self, launch: Launch) -> None:
        self._send(Released(*launch.key))

    def _send(self, message: Message) -> None:
        if self._link is not None:
            self._link.send(message)

    # --- what the master tells -----------------------------------------------------------------

    def received(self, message: Message) -> None:
        """Carry out what the master wants."""
        agent = self.agent
        match message:
            case Start():
                agent.launch(_launch(message.encoded), message.encoded)
            case Acknowledge():
                agent.acknowledge((message.framework_id, message.task_id), message.uuid)
            case Ping():
                self._send(Pong())
            case Introduce():
                agent.introduce(message.framework_id, _info(message.encoded), message.encoded)
            case Kill():
                policy: Mapping[str, Any] | None = message.policy or None
                agent.kill((message.framework_id, message.task_id), policy)
            case Resend():
                agent.streams.resend(message.framework_id)
            case _:
                self._received_rarer(message)

    def _received_rarer(self, message: Message) -> None:
        agent = self.agent
        match message:
            case Welcome():
                agent.master_hostname = message.master_hostname
                self._pause_s = FIRST_PAUSE_S
                self.welcomed.set()
                agent.streams.resend()
            case RemoveFramework():
                agent.remove_framework(message.framework_id)
            case Discard():
                agent.discard((message.framework_id, message.task_id))
            case Missing():
                agent.missing((message.framework_id, message.task_id), message.state)
            case Farewell():
                self.is_gone = message.gone
                self.dismissed.set()
            case _:
                raise BadFrame(f"{type(message).__name__} from the master")


def _launch(encoded: bytes) -> Launch:
    try:
        return launch_from(orjson.loads(encoded))
    except (ValueError, LookupError, TypeError) as error:
        raise BadFrame(f"a task that cannot be read: {error!r}") from None


def _info(encoded: bytes) -> dict[str, Any]:
    try:
        return dict(orjson.loads(encoded))
    except (ValueError, TypeError) as error:
        raise BadFrame(f"a framework that cannot be read: {error!r}") from None
