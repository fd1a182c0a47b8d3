"""How requests are read: JSON bodies, query parameters, ranges, names of files."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from rest_framework.exceptions import ParseError

from scale.api.errors import RangeNotSatisfiable
from scale.api.parameters import Query
from scale.api.ranges import byte_range
from scale.api.renderers import OrjsonRenderer, read_json
from scale.core.errors import InvalidInput
from scale.job.files import safe_media_type, safe_name


def query(text: str) -> Query:
    return Query(SimpleNamespace(META={"QUERY_STRING": text}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a": 9223372036854775808}',
        b'{"a": -9223372036854775809}',
        b'{"a": ' + b"1" * 5000 + b"}",
        b"[" * 3000 + b"]" * 3000,
        b"[" * 1000 + b"]" * 1000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_json_that_is_not_strict_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        read_json(body)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"a": {"b": 1, "b": 2}}', "b"),
        (b'{"a": [0, {"b": "x\\u0000"}]}', "a[1].b"),
        (b'{"a\\u0000": 1}', "a?"),
    ],
)
def test_json_that_cannot_be_kept_is_refused_by_its_place(body: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_json(body)
    assert refusal.value.field == field


def test_an_escaped_backslash_is_no_nul() -> None:
    assert read_json(rb'{"a": "\\u0000"}') == {"a": r"\u0000"}


def test_the_largest_numbers_are_taken() -> None:
    assert read_json(b"[9223372036854775807, -9223372036854775807]") == [2**63 - 1, 1 - 2**63]


def test_times_have_milliseconds_and_a_z() -> None:
    at = datetime(2015, 8, 28, 17, 57, 44, 703_999, tzinfo=UTC)
    assert OrjsonRenderer().render({"at": at}) == b'{"at":"2015-08-28T17:57:44.703Z"}'
    assert OrjsonRenderer().render(at.replace(microsecond=0)) == b'"2015-08-28T17:57:44.000Z"'


def test_documents_that_are_too_deep_for_orjson_are_still_written() -> None:
    document: Any = 1
    for _ in range(300):
        document = [document]
    assert OrjsonRenderer().render(document) == b"[" * 300 + b"1" + b"]" * 300


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=x", "page"),
        ("page=", "page"),
        ("page=1.0", "page"),
        ("page=%D9%A1", "page"),  # an Arabic digit one
        ("page=99999999999999999999999", "page"),
        ("page=1&page=1", "page"),
        ("page_size=0", "page_size"),
        ("page_size=1001", "page_size"),
    ],
)
def test_a_bad_page_is_refused_by_its_name(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        query(text).page()
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("started=2015-01-01T00:00:00", "started"),
        ("started=2015-01-01", "started"),
        ("ended=yesterday", "ended"),
        ("ended=2015-13-01T00:00:00Z", "ended"),
        ("started=0001-01-01T00:00:00%2B14:00", "started"),
        ("started=P", "started"),
        ("started=PT", "started"),
        ("started=P1DT", "started"),
        ("started=P1M", "started"),
        ("started=P999999W", "started"),
        ("started=PT3H&started=PT4H", "started"),
        ("started=2015-01-01T00:00:00Z&ended=2015-01-01T00:00:00Z", "started"),
        ("started=2015-01-01T01:00:00Z&ended=2015-01-01T02:00:00%2B01:00", "started"),
        ("started=2015-01-02T00:00:00Z&ended=2015-01-01T00:00:00Z", "started"),
        ("started=PT1H&ended=PT2H", "started"),
        ("started=2999-01-01T00:00:00Z", "started"),
    ],
)
def test_a_bad_period_is_refused_by_its_name(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        query(text).period()
    assert refusal.value.field == field


def test_a_duration_means_before_now() -> None:
    started, ended = query("started=P1DT3H30M0S&ended=PT0.5S").period()
    assert started is not None
    assert ended is not None
    assert ended - started == timedelta(days=1, hours=3, minutes=30, seconds=-0.5)


def test_a_time_may_have_any_zone_and_an_unescaped_plus() -> None:
    started, ended = query("started=2015-01-01T02:00:00+02:00").period()
    assert started == datetime(2015, 1, 1, tzinfo=UTC)
    assert ended is None


@pytest.mark.parametrize(
    ("text", "field"),
    [("name=%ff", "name"), ("name=a%00b", "name"), ("na%00me=a", "na?me")],
)
def test_text_that_is_none_is_refused(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        query(text).texts("name")
    assert refusal.value.field == field


def test_too_many_and_too_long_parameters_are_refused() -> None:
    with pytest.raises(InvalidInput):
        query("&".join("a=1" for _ in range(1001)))
    with pytest.raises(InvalidInput):
        query("a=" + "x" * 1001)


def test_what_nobody_asked_for_is_refused() -> None:
    parameters = query("status=RUNNING&statsu=RUNNING")
    parameters.text("status")
    with pytest.raises(InvalidInput) as refusal:
        parameters.done()
    assert refusal.value.field == "statsu"


def test_an_order_ends_with_the_id_so_that_pages_are_stable() -> None:
    fields = {"id": "id", "name": "name", "type__name": "kind__name"}
    assert query("").order(fields, ["name"]) == ["name", "id"]
    assert query("order=-name").order(fields, []) == ["-name", "-id"]
    assert query("order=-type__name&order=name").order(fields, []) == ["-kind__name", "name", "id"]
    assert query("order=-id").order(fields, ["name"]) == ["-id"]


@pytest.mark.parametrize("name", ["kind__name", "", "-", "--name", "?", "name;"])
def test_an_order_by_what_is_not_offered_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="order"):
        query(f"order={name}").order({"type__name": "kind__name", "name": "name"}, [])


@pytest.mark.parametrize("text", ["true", "TRUE", "t", "1"])
def test_true_has_several_spellings(text: str) -> None:
    assert query(f"flag={text}").boolean("flag", default=False)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=2-4", (2, 5)),
        ("bytes=9-99", (9, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=4-2", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_a_range_is_read_as_the_rfc_says(
    header: str | None, expected: tuple[int, int] | None
) -> None:
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_a_range_without_bytes_is_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        byte_range(header, 10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a.txt", "a.txt"),
        ("/etc/passwd", "passwd"),
        ("C:\\temp\\a.txt", "a.txt"),
        ("..", "file"),
        ("a/", "file"),
        ("\0\r\n", "file"),
        ("a\r\nb\u202e.txt", "ab.txt"),
        ("\ud800a", "a"),
    ],
)
def test_a_name_is_made_safe(given: str, expected: str) -> None:
    assert safe_name(given) == expected


@pytest.mark.parametrize("given", ["é" * 300 + ".txt", "." + "é" * 300, "a." + "b" * 300])
def test_a_long_name_is_cut_to_what_folders_take(given: str) -> None:
    assert 250 <= len(safe_name(given).encode()) <= 255


def test_a_long_name_keeps_its_suffix() -> None:
    assert safe_name("x" * 300 + ".tar").endswith("x.tar")


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ("Text/Plain; charset=utf-8", "x", "text/plain"),
        ("", "a.txt", "text/plain"),
        ("nonsense", "a.png", "image/png"),
        ("text/html\r\nX: 1", "a", "application/octet-stream"),
        ("application/octet-stream", "a.json", "application/json"),
    ],
)
def test_a_media_type_is_made_safe(given: str, name: str, expected: str) -> None:
    assert safe_media_type(given, name) == expected
