"""Which bytes of a log a request gets, case by case."""

import pytest

from scale.api.log_reader import Segment, View
from scale.api.log_reply import Wanted, decide
from scale.core.errors import InvalidInput


def log(size: int, *, is_complete: bool = False, problem: str = "") -> View:
    segments = (Segment(size, text=b"x" * size),) if size else ()
    return View(5, "stdout", segments, is_complete, is_complete, problem, size)


@pytest.mark.parametrize(
    ("size", "asked", "status", "content_range", "part"),
    [
        (10, "bytes=0-", 206, "bytes 0-9/10", (0, 10)),
        (10, "bytes=4-", 206, "bytes 4-9/10", (4, 10)),
        (10, "BYTES=4-", 206, "bytes 4-9/10", (4, 10)),
        (10, "bytes=4-6", 206, "bytes 4-6/10", (4, 7)),
        (10, "bytes=9-9", 206, "bytes 9-9/10", (9, 10)),
        (10, "bytes=4-600", 206, "bytes 4-9/10", (4, 10)),
        (10, "bytes=-3", 206, "bytes 7-9/10", (7, 10)),
        (10, "bytes=-30", 206, "bytes 0-9/10", (0, 10)),
        (10, "bytes=10-", 416, "bytes */10", None),
        (10, "bytes=99999999999999999999-", 416, "bytes */10", None),
        (10, "bytes=-0", 416, "bytes */10", None),
        (0, "bytes=0-", 416, "bytes */0", None),
        (0, "bytes=-5", 416, "bytes */0", None),
        # What cannot be read, or is not a single range, is as if it were not there.
        (10, "bytes=", 200, None, (0, 10)),
        (10, "bytes=-", 200, None, (0, 10)),
        (10, "bytes=6-4", 200, None, (0, 10)),
        (10, "bytes=a-b", 200, None, (0, 10)),
        (10, "bytes=٣-", 200, None, (0, 10)),
        (10, "bytes=1-2,4-5", 200, None, (0, 10)),
        (10, "lines=1-2", 200, None, (0, 10)),
        (10, "bytes=" + "9" * 5000 + "-", 200, None, (0, 10)),
        (0, None, 200, None, (0, 0)),
    ],
)
def test_a_range_gets_what_rfc_9110_says(
    size: int,
    asked: str | None,
    status: int,
    content_range: str | None,
    part: tuple[int, int] | None,
) -> None:
    reply = decide(log(size), Wanted(range=asked))
    assert (reply.status, reply.headers.get("Content-Range")) == (status, content_range)
    if part is not None:
        assert (reply.start, reply.stop, reply.body) == (*part, None)
        assert reply.headers["Content-Length"] == str(part[1] - part[0])
    else:
        assert reply.body


@pytest.mark.parametrize(
    ("offset", "length", "status", "part"),
    [
        (0, None, 206, (0, 10)),
        (4, None, 206, (4, 10)),
        (4, 2, 206, (4, 6)),
        (None, 2, 206, (0, 2)),
        (4, 100, 206, (4, 10)),
        (10, None, 416, (0, 0)),
        (11, 5, 416, (0, 0)),
    ],
)
def test_offset_and_length_mean_the_same_as_a_range(
    offset: int | None, length: int | None, status: int, part: tuple[int, int]
) -> None:
    reply = decide(log(10), Wanted(offset=offset, length=length))
    assert (reply.status, reply.start, reply.stop) == (status, *part)


def test_offset_and_range_together_are_refused() -> None:
    with pytest.raises(InvalidInput, match="offset"):
        decide(log(10), Wanted(range="bytes=0-", offset=3))


def test_head_has_the_size_and_no_bytes_and_ignores_a_range() -> None:
    reply = decide(log(10), Wanted(is_head=True, range="bytes=4-"))
    assert (reply.status, reply.headers["Content-Length"], reply.body) == (200, "10", b"")


@pytest.mark.parametrize("form", ["{0}", "W/{0}", '"other", {0}', "*"])
def test_a_log_that_did_not_change_is_not_sent_again(form: str) -> None:
    same = log(10)
    reply = decide(same, Wanted(if_none_match=form.format(same.etag), range="bytes=4-"))
    assert (reply.status, reply.body) == (304, b"")
    assert decide(same, Wanted(if_none_match='"other"')).status == 200


def test_every_change_of_a_log_changes_its_etag() -> None:
    logs = [log(10), log(11), log(10, is_complete=True), log(10, problem="lost")]
    assert len({each.etag for each in logs}) == 4


def test_a_range_of_another_version_gets_the_whole() -> None:
    now = log(10)
    assert decide(now, Wanted(range="bytes=4-", if_range=now.etag)).status == 206
    assert decide(now, Wanted(range="bytes=4-", if_range='"old"')).status == 200


@pytest.mark.parametrize(
    "wanted",
    [Wanted(), Wanted(is_head=True), Wanted(range="bytes=99-"), Wanted(if_none_match="*")],
)
def test_every_answer_says_what_state_the_log_is_in_and_is_never_a_page(wanted: Wanted) -> None:
    headers = decide(log(10, is_complete=True, problem="lost"), wanted).headers
    assert headers["X-Log-Complete"] == "true"
    assert headers["X-Log-Size"] == "10"
    assert headers["X-Log-Problem"] == "lost"
    assert headers["Content-Security-Policy"] == "sandbox"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "private" in headers["Cache-Control"]
