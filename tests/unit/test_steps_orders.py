"""Orders and addresses: nothing leads out of the work folder, or into a forbidden network."""

import ipaddress
import json
from typing import Any

import pytest

from scale.steps.errors import ApiUnreachable, ForbiddenInput, shown
from scale.steps.net import Origin, is_forbidden, parse_target
from scale.steps.orders import parse_orders

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def document(**changes: Any) -> dict[str, Any]:
    return {
        "execution": UUID,
        "work_dir": f"/work/{UUID}",
        "job_task_id": f"{UUID}.job.1",
        "max_output_bytes": 1000,
        "file_roots": ["/data"],
        "forbidden_networks": ["10.0.0.0/8", "::1/128"],
        "inputs": [an_input()],
        "outputs": [an_output()],
        **changes,
    }


def an_input(**changes: Any) -> dict[str, Any]:
    place = {"name": "text", "path": "inputs/text/a.txt", "uri": "http://h/a.txt"}
    return {**place, "stored": False, "size": None, "sha256": None, **changes}


def an_output(**changes: Any) -> dict[str, Any]:
    return {
        "name": "count",
        "type": "file",
        "required": True,
        "pattern": "count.txt",
        "media_type": "text/plain; charset=utf-8",
        **changes,
    }


def parsed(**changes: Any) -> Any:
    return parse_orders(json.dumps(document(**changes)).encode(), UUID)


def test_good_orders_are_read() -> None:
    orders = parsed(inputs=[an_input(sha256="AB" * 32, size=7)])
    assert orders.inputs[0].path == ("inputs", "text", "a.txt")
    assert orders.inputs[0].sha256 == "ab" * 32
    assert not orders.outputs[0].several


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "inputs/../../x",
        "/etc/passwd",
        "",
        ".",
        "inputs/",
        "inputs/a\nb",
        "inputs/" + "x" * 256,
    ],
)
def test_an_input_may_only_go_below_the_work_folder(path: str) -> None:
    with pytest.raises(ForbiddenInput, match=r"^the path for input 'text'"):
        parsed(inputs=[an_input(path=path)])


def test_two_inputs_may_not_go_to_the_same_file() -> None:
    with pytest.raises(ForbiddenInput, match="two inputs would be written to"):
        parsed(inputs=[an_input(), an_input(path="./inputs/text//a.txt")])


@pytest.mark.parametrize(
    "changes",
    [
        {"execution": "another"},
        {"work_dir": "relative"},
        {"work_dir": "/work/other"},
        {"work_dir": f"/{UUID}"},
        {"work_dir": f"/work/../{UUID}"},
        {"job_task_id": f"../{UUID}.job.1"},
        {"job_task_id": f"{UUID}.job.1/../../x"},
        {"max_output_bytes": "many"},
        {"max_output_bytes": True},
        {"forbidden_networks": ["nonsense"]},
        {"file_roots": ["data"]},
        {"inputs": {}},
        {"inputs": [an_input(stored="yes")]},
        {"inputs": [an_input(sha256="short")]},
        {"outputs": [an_output(type="folder")]},
        {"outputs": [an_output(media_type="text/plain\r\nX-Evil: 1")]},
        {"outputs": [7]},
    ],
    ids=str,
)
def test_orders_of_another_shape_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ApiUnreachable, match=r"^Scale's orders cannot be used: "):
        parsed(**changes)


def test_orders_that_are_not_json_are_refused() -> None:
    for body in (b"<html>", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(ApiUnreachable, match="cannot be used"):
            parse_orders(body, UUID)


@pytest.mark.parametrize(
    ("uri", "origin", "path"),
    [
        ("http://Host/a?b=c#d", Origin("http", "host", 80), "/a?b=c"),
        ("HTTPS://host", Origin("https", "host", 443), "/"),
        ("http://[::1]:8080/x", Origin("http", "::1", 8080), "/x"),
        ("http://h/a b/ü%20?q=ü", Origin("http", "h", 80), "/a%20b/%C3%BC%20?q=%C3%BC"),
    ],
)
def test_an_address_is_read(uri: str, origin: Origin, path: str) -> None:
    target = parse_target(uri)
    assert (target.origin, target.path) == (origin, path)


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://h/x", "gopher://h", "//h/x", "/x", "http://", "http:///x", "http://h:99999/",
        "http://user:pw@h/", "http://good\\@evil/", "http://h/\r\nX-Evil: 1", "http://[::1/x", "",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_target(uri)
    assert "pw" not in str(caught.value)


def test_an_address_is_shown_without_its_query() -> None:
    assert str(parse_target("http://h:81/a?signature=secret")) == "http://h:81/a?…"


@pytest.mark.parametrize(
    ("address", "networks", "forbidden"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("64:ff9b::a01:203", ["10.0.0.0/8"], True),
        ("2002:a01:203::1", ["10.0.0.0/8"], True),
        ("0.0.0.0", ["127.0.0.0/8"], True),
        ("::", ["127.0.0.0/8"], True),
        ("::", ["::1/128"], True),
        ("::ffff:0.0.0.0", ["127.0.0.0/8"], True),
        ("fe80::1%eth0", ["fe80::/10"], True),
        ("2001:db8::1", ["10.0.0.0/8", "fe80::/10"], False),
        ("127.0.0.1", [], False),
    ],
)
def test_an_address_is_forbidden_however_it_is_written(
    address: str, networks: list[str], *, forbidden: bool
) -> None:
    assert is_forbidden(address, [ipaddress.ip_network(n) for n in networks]) is forbidden


def test_what_is_shown_is_one_bounded_line() -> None:
    assert shown("a\nb\x1b[31m") == r"'a\nb\x1b[31m'"
    assert len(shown("x" * 100_000)) < 200
    assert "\n" not in shown("\n" * 5000)
