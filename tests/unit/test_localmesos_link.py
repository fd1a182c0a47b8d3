"""What master and agents tell each other: the codec, and a link that bears any bytes."""

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale.localmesos import link as links
from scale.localmesos.link import Link
from scale.localmesos.messages import (
    Acknowledge,
    BadFrame,
    Decoder,
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
    decode,
    encode,
)

ALL: tuple[Message, ...] = (
    Register("a", "host", "127.0.0.1", 5051, b'{"tasks":[]}'),
    Told("f", b'{"state":"TASK_RUNNING"}'),
    Released("f", "t"),
    Pong(),
    Leave(),
    Welcome("master"),
    Introduce("f", b"{}"),
    Start(b'{"k":"task"}'),
    Kill("f", "t", {"grace_period": {"nanoseconds": 1}}),
    Acknowledge("f", "t", "uuid"),
    Resend("f"),
    Discard("f", "t\u00e4sk \u2603"),
    Missing("f", "t", "TASK_DROPPED"),
    RemoveFramework("f"),
    Ping(),
    Farewell(gone=True),
)


@given(st.lists(st.sampled_from(ALL), max_size=20), st.integers(1, 50))
def test_messages_arrive_as_they_were_sent_however_they_are_cut(
    messages: list[Message], step: int
) -> None:
    data = b"".join(map(encode, messages))
    decoder = Decoder()
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    assert [message for piece in pieces for message in decoder.feed(piece)] == messages


def test_every_kind_of_message_is_in_the_list() -> None:
    assert {type(message) for message in ALL} == set(Message.__args__)


def test_what_was_encoded_elsewhere_is_passed_on_untouched() -> None:
    odd = b'{ "spaces" : 1 }\xff'
    assert encode(Told("f", odd)).endswith(odd)
    assert list(Decoder().feed(encode(Told("f", odd)))) == [Told("f", odd)]


def frame(kind: int, head: bytes, tail: bytes = b"") -> bytes:
    return struct.pack("!BI", kind, len(head)) + head + tail


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\0\0\0",
        frame(200, b"[]"),
        frame(3, b"[]", b"tail"),
        frame(3, b"[1]"),
        frame(3, b"{}"),
        frame(3, b"["),
        frame(2, b'["f"]'),
        frame(2, b'["f",1]'),
        frame(2, b'["f",null]'),
        frame(8, b'["f","t",[]]'),
        frame(15, b"[1]"),
        frame(0, b'["a","h","ip",true]'),
        struct.pack("!BI", 3, 99) + b"[]",
    ],
)
def test_a_frame_that_is_no_message_is_refused(bad: bytes) -> None:
    with pytest.raises(BadFrame):
        decode(memoryview(bad))


def test_a_frame_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadFrame, match="a frame of"):
        list(Decoder().feed(struct.pack("!I", (64 << 20) + 1)))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    decoder = Decoder()
    with suppress(BadFrame):
        for message in decoder.feed(data):
            assert encode(message)


# --- a link ---


class Transport(asyncio.Transport):
    """Remembers what was written; `backlog` is what the other side has not read."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.backlog = 0
        self.ended = ""

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class Peer:
    def __init__(self) -> None:
        self.got: list[Message] = []
        self.losses = 0

    def received(self, message: Message) -> None:
        if isinstance(message, Leave):
            raise BadFrame("not now")
        self.got.append(message)

    def lost(self) -> None:
        self.losses += 1


def on_a_link(work: Callable[[Link, Transport, Peer], Any]) -> None:
    async def run() -> None:
        peer, transport = Peer(), Transport()
        link = Link(lambda _: peer)
        link.connection_made(transport)
        result = work(link, transport, peer)
        if result is not None:
            await result

    asyncio.run(run())


def test_what_is_sent_in_one_turn_is_one_write() -> None:
    async def work(link: Link, transport: Transport, _: Peer) -> None:
        for message in ALL:
            link.send(message)
        assert transport.written == []
        await asyncio.sleep(0)
        assert transport.written == [b"".join(map(encode, ALL))]

    on_a_link(work)


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\n\r\n", encode(Leave()), b"\0\0\0\0", b"\0\0\0\5\xff\0\0\0\0"]
)
def test_nonsense_closes_the_link_and_nothing_after_it_is_heard(nonsense: bytes) -> None:
    def work(link: Link, transport: Transport, peer: Peer) -> None:
        link.data_received(encode(Ping()) + nonsense + encode(Pong()))
        assert peer.got == [Ping()]
        assert transport.ended == "aborted"
        link.send(Ping())
        link.connection_lost(None)
        assert peer.losses == 1

    on_a_link(work)


def test_a_side_that_does_not_read_is_cut_off() -> None:
    async def work(link: Link, transport: Transport, _: Peer) -> None:
        transport.backlog = links.MAX_BACKLOG + 1
        link.send(Ping())
        await asyncio.sleep(0)
        assert (transport.ended, link.is_open) == ("aborted", False)

    on_a_link(work)


def test_a_link_that_is_closed_says_its_last_words_first() -> None:
    def work(link: Link, transport: Transport, _: Peer) -> None:
        link.send(Farewell(gone=False))
        link.close()
        assert transport.written == [encode(Farewell(gone=False))]
        assert transport.ended == "closed"
        link.send(Ping())
        assert len(transport.written) == 1

    on_a_link(work)
