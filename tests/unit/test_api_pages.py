"""Django behind ASGI: what becomes of bodies, answers and failures."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from scale.api.pages import Pages

SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "POST",
    "path": "/jobs/",
    "query_string": b"a=1",
    "headers": [(b"host", b"h"), (b"content-length", b"4")],
    "server": ("127.0.0.1", 80),
}
Start = Callable[..., Any]


def ask(
    application: Callable[[dict[str, Any], Start], Iterable[bytes]],
    body: bytes = b"",
    *,
    gone_after: int = 99,
) -> list[Any]:
    """Return what is sent to a client, who goes away after so many messages."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if len(sent) == gone_after:
            raise ConnectionError("the client has gone")
        sent.append(message)

    async def run() -> None:
        pages = Pages(application, workers=1)
        try:
            await pages(SCOPE, body, send)
        finally:
            pages.shut_down()

    asyncio.run(run())
    return sent


class Body:
    """A body of large chunks that knows whether it was closed."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self.read = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self.chunks):
            self.read += 1
            yield b"x" * 200_000

    def close(self) -> None:
        self.is_closed = True


def test_the_body_and_the_head_go_in_and_the_answer_comes_out() -> None:
    def echo(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        start("201 Created", [("X-Path", environ["PATH_INFO"] + "?" + environ["QUERY_STRING"])])
        return [b"got ", environ["wsgi.input"].read()]

    head, body = ask(echo, b"data")
    assert head["status"] == 201
    assert head["headers"] == [(b"x-path", b"/jobs/?a=1")]
    assert (body["body"], body["more_body"]) == (b"got data", False)


def test_a_large_answer_is_sent_in_parts_and_closed() -> None:
    answer = Body(5)

    def large(_environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        start("200 OK", [])
        return answer

    _, *parts = ask(large)
    assert [len(part["body"]) for part in parts] == [400_000, 400_000, 200_000]
    assert [part["more_body"] for part in parts] == [True, True, False]
    assert answer.is_closed


def test_an_answer_is_closed_when_its_client_has_gone_and_is_not_read_on() -> None:
    answer = Body(50)

    def large(_environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        start("200 OK", [])
        return answer

    with pytest.raises(ConnectionError):
        ask(large, gone_after=2)
    assert answer.is_closed
    assert answer.read <= 6


def test_an_answer_that_breaks_is_closed_and_the_server_hears_of_it() -> None:
    answer = Body(0)

    def broken(_environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        start("200 OK", [])

        class Broken(Body):
            def __iter__(self) -> Iterator[bytes]:
                yield b"some"
                raise ValueError("broken")

            def close(self) -> None:
                answer.close()

        return Broken(0)

    with pytest.raises(ValueError, match="broken"):
        ask(broken)
    assert answer.is_closed
