"""Everything wrong that a request can hold, tried on every operation that the schema has."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from api_world import FOR_PEOPLE, World, described, make_world, rows
from rest_framework.test import APIClient

from scale.job.models import JobExecution
from scale.node.models import Node

#: The stream is served by the other half of the web process, and here by nothing.
HERE: Final = [each for each in FOR_PEOPLE if each[1] != "/job-executions/{id}/logs/stream/"]
#: Fields that these operations do not know are ignored, as the interface has always done.
LENIENT: Final = {"/job-types/", "/job-types/{id}/", "/job-types/validation/"}
WRONG: Final[dict[str, list[Any]]] = {
    "string": [17, True, [], {}],
    "integer": ["x", True, 1.5, [], {}, 2**63 - 1 + 1e10, None],
    "number": ["x", True, [], {}, None],
    "boolean": ["x", 1, 17, [], {}],
    "array": [17, "x", {}],
    "object": [17, "x", []],
}
BODIES: Final[list[tuple[bytes, str]]] = [
    (b"{", "application/json"),
    (b"", "application/json"),
    (b"[]", "application/json"),
    (b"null", "application/json"),
    (b'"text"', "application/json"),
    (b'{"a": 1, "a": 2}', "application/json"),
    (b'{"a": NaN}', "application/json"),
    (b'{"a": "\\u0000"}', "application/json"),
    (b'{"a": "\\ud800"}', "application/json"),
    (b'{"a": "\xff"}', "application/json"),
    (b"\xef\xbb\xbf{}", "application/json"),
    (b'{"a": ' + b"9" * 5000 + b"}", "application/json"),
    (b"[" * 100_000 + b"]" * 100_000, "application/json"),
    (b'{"a":' * 2000 + b"1" + b"}" * 2000, "application/json"),
    ("{}".encode("utf-16"), "application/json"),
    (b'{"a": "\xe9"}', "application/json; charset=latin-1"),
    (b"{}", "text/xml"),
    (b"a=1", "application/x-www-form-urlencoded"),
    (b"{}", "multipart/form-data"),
    (b"{}", ""),
]


@dataclass(frozen=True)
class Case:
    """A request that is wrong, and the name that the answer must hold; some name, if empty."""

    about: str
    suffix: str = ""
    body: bytes | None = None
    content_type: str = "application/json"
    key: str = ""
    field: str = ""
    compressed: bool = False


@pytest.fixture(scope="module")
def schema() -> Any:
    return described()


@pytest.fixture
def world(
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Node],
    make_user: Callable[..., Any],
) -> World:
    return make_world(make_execution, make_node, make_user)


def queries(operation: Any) -> Iterator[Case]:
    yield Case("unknown parameter", "?surprise=1", field="surprise")
    for bad in ("%ff", "%00", "%fe%ff", "x" * 20_000):
        yield Case(f"surprise={bad[:9]}", f"?surprise={bad}", field="surprise")
    yield Case("too many", "?" + "&".join(["page=1"] * 1001))
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            name, shape = parameter["name"], parameter["schema"]
            if shape.get("type") != "array":
                yield Case(f"{name} twice", f"?{name}=1&{name}=1", field=name)
            for value in wrong_texts(shape.get("items", shape)):
                yield Case(f"{name}={value[:9]}", f"?{name}={value}", field=name)


def wrong_texts(shape: Any) -> list[str]:
    values = ["%ff", "%00", "x" * 20_000]
    if shape.get("type") == "integer":
        values += ["x", "1.5", "9" * 30, "0x10", "", "%EF%BC%91"]
        values += [str(shape["minimum"] - 1)] if "minimum" in shape else []
        values += [str(shape["maximum"] + 1)] if "maximum" in shape else []
    elif shape.get("type") == "boolean":
        values += ["maybe", "2", ""]
    elif "enum" in shape:
        values += ["no-such-thing", ""]
    return values


def paths(path: str) -> Iterator[Case]:
    if "{id}" in path:
        for key in ("x", "1.5", "9" * 30, "-1", "0", "%00", "%ff", "%EF%BC%91", "1%0a", "x" * 5000):
            yield Case(f"id {key[:9]}", key=key)


def bodies(path: str, operation: Any, schema: Any, good: dict[str, Any]) -> Iterator[Case]:
    for body, content_type in BODIES:
        yield Case(f"{body[:20]!r} as {content_type}", body=body, content_type=content_type)
    yield Case("compressed", body=b"{}", compressed=True)
    if path == "/files/":
        return
    if path not in LENIENT:
        yield Case("unknown field", body=dumped({**good, "surprise": 1}), field="surprise")
    media = operation["requestBody"]["content"]["application/json"]
    shape = schema["components"]["schemas"][media["schema"]["$ref"].rpartition("/")[2]]
    for name in shape.get("required", ()):
        without = {key: value for key, value in good.items() if key != name}
        yield Case(f"without {name}", body=dumped(without), field=name)
    for name, part in shape["properties"].items():
        for value in wrong_values(part, schema):
            yield Case(f"{name}: {str(value)[:20]}", body=dumped({**good, name: value}), field=name)


def wrong_values(part: Any, schema: Any) -> list[Any]:
    part = part["anyOf"][0] if "anyOf" in part else part  # the other is the text of the same
    kinds = part.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if len(set(kinds) - {"null"}) != 1:
        return []
    [kind] = set(kinds) - {"null"}
    values = [value for value in WRONG[kind] if value is not None or "null" not in kinds]
    if "maxLength" in part:
        values.append("x" * (part["maxLength"] + 1))
    if part.get("maximum", 2**63) < 2**63 - 1:
        values.append(part["maximum"] + 1)
    return values


def dumped(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.parametrize(("method", "path"), HERE)
def test_whatever_is_wrong_is_refused_by_name_and_changes_nothing(
    method: str, path: str, schema: Any, world: World, api: APIClient
) -> None:
    operation = schema["paths"][path][method]
    cases = [*queries(operation), *paths(path)]
    good: dict[str, Any] = {}
    if "requestBody" in operation:
        good = {} if path == "/files/" else world.body(method, path)
        cases += bodies(path, operation, schema, good)
    before = rows()
    problems = []
    for case in cases:
        address = path.replace("{stream}", "stdout").replace("{name}", "job-types")
        if "{id}" in path:
            address = address.replace("{id}", case.key or str(world.key(path)))
        body = case.body
        if body is None and "requestBody" in operation:
            body = dumped(good)
        answer = api.generic(
            method.upper(),
            address + case.suffix,
            body or b"",  # type: ignore[arg-type] # bytes go as they are
            content_type=case.content_type,
            headers={"Content-Encoding": "gzip"} if case.compressed else None,
        )
        problems += [f"{case.about}: {text}" for text in complaints(answer, case)]
    assert problems == []
    assert rows() == before


def complaints(answer: Any, case: Case) -> Iterator[str]:
    if not 400 <= answer.status_code < 500:
        yield f"{answer.status_code}"
        return
    said = answer.json()
    if set(said) != {"detail", "code", "field"} or not all(said.values()):
        yield f"{said}"
    elif (
        case.field
        and answer.status_code == 400
        and re.split(r"[.\[]", said["field"])[0] != case.field
    ):
        yield f"{answer.status_code} {said}"
