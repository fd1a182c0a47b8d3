"""One log of many processes: prefixes, colours, long and binary lines, a reader that waits."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from scale.embedded import console as module
from scale.embedded.console import Console, boxed, each_line, readable, wants_color


def lines_of(*chunks: bytes) -> list[bytes]:
    async def read() -> list[bytes]:
        reader, got = asyncio.StreamReader(), []

        async def take(line: bytes) -> None:
            got.append(line)

        for chunk in chunks:
            reader.feed_data(chunk)
        reader.feed_eof()
        await each_line(reader, take)
        return got

    return asyncio.run(read())


def test_every_line_has_the_name_of_who_said_it(tmp_path: Path) -> None:
    async def write(descriptor: int) -> None:
        console = Console(descriptor)
        await console.line("web", b"hello")
        await console.line("scheduler", b"")
        await console.say("all is well")

    with (tmp_path / "log").open("wb") as log:
        asyncio.run(write(log.fileno()))
    expected = "web       | hello\nscheduler | \nscale     | all is well\n"
    assert (tmp_path / "log").read_text() == expected


def test_each_part_keeps_a_colour_of_its_own(tmp_path: Path) -> None:
    async def write(descriptor: int) -> None:
        console = Console(descriptor, color=True)
        for name in ("web", "worker", "web"):
            await console.line(name, b"x")

    with (tmp_path / "log").open("wb") as log:
        asyncio.run(write(log.fileno()))
    first, second, third = (tmp_path / "log").read_text().splitlines()
    assert first == third == "\x1b[36mweb       | \x1b[0mx"
    assert second == "\x1b[35mworker    | \x1b[0mx"


@pytest.mark.parametrize(
    ("is_tty", "environ", "wanted"),
    [
        (True, {}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_follow_terminal_and_environment(
    is_tty: bool, environ: Mapping[str, str], wanted: bool
) -> None:
    assert wants_color(is_tty=is_tty, environ=environ) is wanted


def test_lines_are_cut_at_newlines_wherever_the_reads_end() -> None:
    assert lines_of(b"one\ntw", b"o\n\nthr", b"ee") == [b"one", b"two", b"", b"three"]


def test_a_line_without_end_is_handed_on_in_pieces_and_nothing_is_lost() -> None:
    got = lines_of(b"x" * 20_000, b"y\nend\n")
    assert b"".join(got[:-1]) == b"x" * 20_000 + b"y"
    assert max(map(len, got)) <= 8192
    assert got[-1] == b"end"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"caf\xc3\xa9\tau lait\r", "café\tau lait"),
        (b"\xff\x00\x07", "\\xff\\x00\\x07"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"\x1b[2Jgone", "\\x1b[2Jgone"),
        (b"\x1b[31mred", "red"),
        (b"a\rb", "a\\x0db"),
    ],
)
def test_what_could_harm_a_terminal_is_shown_instead(raw: bytes, text: str) -> None:
    assert readable(raw, color=False) == text


def test_a_colour_ends_with_its_line() -> None:
    assert readable(b"\x1b[31mred", color=True) == "\x1b[31mred\x1b[0m"


def test_a_reader_that_stands_still_stops_neither_the_loop_nor_our_own_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_OWN_LINE_S", 0.05)
    reading, writing = os.pipe()

    async def fill() -> bytes:
        console = Console(writing)
        flood = asyncio.create_task(console.line("web", b"x" * 1_000_000))
        await asyncio.sleep(0)
        await console.say("this is lost")
        assert not flood.done()
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
        )
        got = b""
        while len(got) < 1_000_000:
            got += await reader.read(65536)
        await flood
        transport.close()
        return got

    got = asyncio.run(fill())
    os.close(writing)
    assert b"lost" not in got
    assert got.count(b"x") == 1_000_000


def test_a_log_that_nobody_reads_any_more_is_no_reason_to_stop() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    async def write() -> None:
        console = Console(writing)
        await console.line("web", b"into the void")
        await console.say("and again")

    asyncio.run(write())
    os.close(writing)


def test_a_box_surrounds_its_lines() -> None:
    assert boxed(["ab", ""], color=False) == "┌────┐\n│ ab │\n│    │\n└────┘\n"
