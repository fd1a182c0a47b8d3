"""What a request for the bytes of a log gets, decided from its words and the log's size alone."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rest_framework.exceptions import APIException

from scale.api.log_reader import View
from scale.api.parameters import Query
from scale.api.renderers import BIGGEST_INTEGER
from scale.core.errors import InvalidInput, ScaleError
from scale.job.logs import LogGone

#: Twenty digits are more than any log has bytes.
_RANGE: Final = re.compile(r"bytes=(?P<first>\d{0,20})-(?P<last>\d{0,20})\Z", re.ASCII | re.I)
NOTHING_NEW: Final = (
    b'{"detail":"There are no bytes in that range.","code":"range_not_satisfiable"}'
)
# A log is what somebody's program wrote: never to be taken for a page of ours.
_ALWAYS: Final[Mapping[str, str]] = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "sandbox",
    "Vary": "Authorization, Cookie",
    "X-Content-Type-Options": "nosniff",
}


class LogUnavailable(APIException):
    """Bytes that a log has cannot be had: now (503), or ever again (410)."""

    def __init__(self, error: ScaleError) -> None:
        super().__init__(str(error), error.code)
        self.status_code = 410 if isinstance(error, LogGone) else 503


@dataclass(frozen=True, slots=True)
class Wanted:
    """The part of a log that a request asks for; headers as they came, None if there are none."""

    is_head: bool = False
    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers and which bytes of the log are the body.

    The bytes are `start` to `stop`; or `body` is all, if that is not None.
    """

    status: int
    headers: Mapping[str, str]
    start: int = 0
    stop: int = 0
    body: bytes | None = None


def wanted_by(method: str, header: Callable[[str], str | None], query: Query) -> Wanted:
    """Return what a request wants; raises InvalidInput for a parameter that makes no sense."""
    offset = query.integer("offset", default=-1, least=0, most=BIGGEST_INTEGER)
    length = query.integer("length", default=-1, least=1, most=BIGGEST_INTEGER)
    query.done()
    return Wanted(
        is_head=method == "HEAD",
        range=header("range"),
        if_range=header("if-range"),
        if_none_match=header("if-none-match"),
        offset=None if offset < 0 else offset,
        length=None if length < 0 else length,
    )


def decide(log: View, wanted: Wanted) -> Reply:
    """Return the answer to a GET or HEAD (RFC 9110, 13.2.2 and 14.2).

    A Range that cannot be read, or has several parts, is ignored, as is one of a HEAD. `offset`
    and `length` mean the same as a Range, but what cannot be read there is refused before.

    Raises:
        InvalidInput: there are both.
    """
    if wanted.range is not None and (wanted.offset is not None or wanted.length is not None):
        raise InvalidInput("offset", "cannot be used together with a Range header")
    headers = _headers_of(log)
    if wanted.if_none_match is not None and _matches(wanted.if_none_match, log.etag):
        return Reply(304, headers, body=b"")
    part = None if wanted.is_head else _part(log, wanted)
    if part is None:
        headers |= {"Content-Length": str(log.size)}
        return Reply(200, headers, 0, log.size, b"" if wanted.is_head else None)
    start, stop = part
    if start >= stop:
        headers |= {
            "Content-Type": "application/json",
            "Content-Range": f"bytes */{log.size}",
            "Content-Length": str(len(NOTHING_NEW)),
        }
        return Reply(416, headers, body=NOTHING_NEW)
    headers |= {
        "Content-Range": f"bytes {start}-{stop - 1}/{log.size}",
        "Content-Length": str(stop - start),
    }
    return Reply(206, headers, start, stop)


def _headers_of(log: View) -> dict[str, str]:
    """Return what every answer says of the log.

    `X-Log-Complete: true`: it will never grow again. `X-Log-Problem`: why bytes are missing.
    """
    headers = {
        **_ALWAYS,
        "Content-Type": "text/plain; charset=utf-8",
        "ETag": log.etag,
        "X-Log-Complete": "true" if log.is_complete else "false",
        "X-Log-Size": str(log.size),
    }
    return headers | {"X-Log-Problem": log.problem} if log.problem else headers


def _matches(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags


def _part(log: View, wanted: Wanted) -> tuple[int, int] | None:
    """Return start and stop of the part, None for all; start >= stop if nothing is there."""
    if wanted.offset is not None or wanted.length is not None:
        start = wanted.offset or 0
        stop = log.size if wanted.length is None else start + wanted.length
        return start, min(stop, log.size)
    if wanted.range is None or wanted.if_range not in {None, log.etag}:
        return None
    found = _RANGE.match(wanted.range.strip())
    if found is None:
        return None
    first, last = found["first"], found["last"]
    if first:
        stop = int(last) + 1 if last else log.size
        return None if last and stop <= int(first) else (int(first), min(stop, log.size))
    return (max(0, log.size - int(last)), log.size) if last else None
