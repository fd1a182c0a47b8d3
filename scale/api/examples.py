"""Examples of answers, made from their schemas: each field shows what it usually holds."""

from collections.abc import Mapping
from typing import Any, Final

_Part = Mapping[str, Any]

_AT: Final = "2026-03-01T12:00:00.000Z"
_URL: Final = "http://127.0.0.1:8000"
#: What fields of these names hold, where their type does not say it better.
_USUAL: Final[Mapping[str, Any]] = {
    "Content-Disposition": 'attachment; filename="count.txt"',
    "Content-Range": "bytes 0-99/1234",
    "ETag": '"5f2b"',
    "X-Log-Problem": "agent_unreachable",
    "X-Log-Size": "1234",
    "address": "10.0.0.7",
    "category": "text",
    "code": "invalid",
    "command_arguments": "-c 'wc -w input.txt'",
    "count": 1,
    "cpus": 4.0,
    "cpus_required": 0.5,
    "cpus_scheduled": 0.5,
    "database": "ok",
    "broker": "ok",
    "scheduler": "ok",
    "detail": "page_size: must be from 1 to 1000",
    "disk": 2048.0,
    "error_message": "",
    "field": "page_size",
    "highest_priority": 10,
    "hostname": "n7.example",
    "job_type_category": "text",
    "job_type_name": "word-count",
    "max_tries": 3,
    "media_type": "text/plain",
    "mem": 8192.0,
    "mem_required": 128.0,
    "mem_scheduled": 128.0,
    "message": "asks 32000 MiB of memory; the roomiest node, n7, has 31431 free of 32768",
    "name": "word-count",
    "next": None,
    "output_name": "count",
    "port": 5051,
    "previous": None,
    "priority": 100,
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "slave_id": "5e9a1f6c-2f6f-4b7e-9d0b-7c2f0d8a6e11-S7",
    "status": "ok",
    "task_id": "0b6e1f0c-4b7c-4d0e-9a52-0c8c4f9e9a11.job.1",
    "timeout": 600,
    "title": "Word count",
    "uuid": "0b6e1f0c-4b7c-4d0e-9a52-0c8c4f9e9a11",
    "version": "1.0",
}
#: What parameters of these names are given, where the same name means something else in answers.
_GIVEN: Final[Mapping[str, Any]] = {
    "Idempotency-Key": "nightly-2026-03-01",
    "If-None-Match": '"5f2b"',
    "If-Range": '"5f2b"',
    "Last-Event-ID": "1234",
    "Range": "bytes=0-99",
    "column": ["total_count"],
    "ended": _AT,
    "group": ["overview"],
    "started": "PT3H0M0S",
}
_FORMATS: Final[Mapping[str, Any]] = {
    "binary": "the bytes",
    "date-time": _AT,
    "double": 1.5,
    "uri": f"{_URL}/files/3/content/",
    "uuid": _USUAL["uuid"],
}
_TYPES: Final[Mapping[str, Any]] = {
    "boolean": False,
    "integer": 1,
    "null": None,
    "number": 1.5,
    "object": {},
    "string": "text",
}


def example_of_parameter(parameter: _Part, schemas: _Part) -> Any:
    """Return a value that a request may give a parameter: the default, if there is one."""
    schema, name = parameter["schema"], parameter["name"]
    usual = _GIVEN[name] if name in _GIVEN else example_of(schema, schemas, name)
    return schema.get("default", usual)


def example_of(schema: _Part, schemas: _Part, name: str = "") -> Any:
    """Return a value that the schema describes; `name` is the field that holds it."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    for word in ("allOf", "anyOf", "oneOf"):
        if word in schema:
            return example_of(schema[word][0], schemas, name)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if "properties" in schema:
        return {key: example_of(each, schemas, key) for key, each in schema["properties"].items()}
    return _plain_example(schema, schemas, name)


def _plain_example(schema: _Part, schemas: _Part, name: str) -> Any:
    given = schema.get("type", "object")
    kinds = [given] if isinstance(given, str) else given
    if "array" in kinds:
        return [example_of(schema.get("items", {}), schemas, name)]
    usual = _USUAL.get(name, ...)
    if usual is not ... and _is_of(usual, kinds):
        return usual
    return _FORMATS.get(schema.get("format", ""), _TYPES[kinds[0]])


def _is_of(value: Any, kinds: list[str]) -> bool:
    kind = {str: "string", int: "integer", float: "number", type(None): "null"}[type(value)]
    return kind in kinds
