"""The body of a request, however it comes."""

import asyncio
from typing import Any

import pytest

from scale.localmesos import http
from scale.localmesos.http import Refused, Request


def body_of(*messages: dict[str, Any]) -> bytes:
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(_: Any) -> None:
        pytest.fail("nothing is to be sent")

    return asyncio.run(Request("POST", "/", {}, b"", receive, send).body())


def part(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


def test_a_body_in_parts_is_put_together() -> None:
    assert body_of(part(b"whole", more=False)) == b"whole"
    assert body_of(part(b"a", more=True), part(b"b", more=True), part(b"", more=False)) == b"ab"


def test_a_body_whose_sender_went_away_is_not_taken_for_the_whole() -> None:
    with pytest.raises(Refused) as caught:
        body_of(part(b"frameworkId=x-1", more=True), {"type": "http.disconnect"})
    assert caught.value.status == 400


def test_a_body_that_is_too_large_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 3)
    with pytest.raises(Refused) as caught:
        body_of(part(b"ab", more=True), part(b"cd", more=True))
    assert caught.value.status == 413
