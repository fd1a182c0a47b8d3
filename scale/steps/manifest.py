"""Reads `results_manifest.json`, which a job may write into its outputs folder.

Versions 1.0 and 1.1 of ngageoint/scale (`reference/scale.md` 3.4). Whatever cannot be understood
is refused with a sentence that its author can act on; nothing is guessed.
"""

from __future__ import annotations

import json
import math
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InvalidOutputs, shown
from .paths import open_inside

FILE_NAME = "results_manifest.json"
MAX_BYTES = 10 * 1024 * 1024
#: More would be a mistake, and would fill the memory.
MAX_FILES = 100_000
MAX_DEPTH = 100
MAX_DIGITS = 400

_KEYS = {
    "1.0": frozenset({"version", "files", "parse_results", "info", "errors"}),
    "1.1": frozenset({"version", "output_data", "parse_results", "info", "errors"}),
}


class Unusable(ValueError):
    """Says why, after the file's name."""


@dataclass(frozen=True)
class NamedFile:
    """A file as the job names it; `path` is unchecked."""

    path: str
    geo_metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class NamedOutput:
    """What the job says an output is; `several` tells how it was said, not how many there are."""

    name: str
    files: tuple[NamedFile, ...]
    several: bool
    source: str = FILE_NAME


@dataclass(frozen=True)
class Manifest:
    outputs: tuple[NamedOutput, ...] = ()
    parse_results: tuple[Any, ...] = ()
    info: tuple[Any, ...] = ()
    errors: tuple[Any, ...] = ()


def read_manifest(outputs: Path) -> Manifest | None:
    """Return the manifest of the outputs folder, or None if the job wrote none.

    Raises:
        InvalidOutputs: it is there, and cannot be used.
        OSError: the disk cannot be read.
    """
    try:
        opened = open_inside(outputs, (FILE_NAME,))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InvalidOutputs(f"{FILE_NAME} {error}") from None
    with os.fdopen(opened, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    return parse_manifest(content)


def parse_manifest(content: bytes) -> Manifest:
    """Raise InvalidOutputs if `content` is not a manifest of version 1.0 or 1.1."""
    try:
        if len(content) > MAX_BYTES:
            raise Unusable(f"is larger than {MAX_BYTES // 2**20} MiB")
        return _manifest(_json(content))
    except Unusable as error:
        raise InvalidOutputs(f"{FILE_NAME} {error}") from None


def _json(content: bytes) -> Any:
    try:
        document = json.loads(
            content, parse_constant=_number, parse_int=_number, parse_float=_number
        )
    except RecursionError:
        raise Unusable("is nested too deeply") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Unusable(f"is not JSON: {error.msg} ({where})") from None
    except UnicodeDecodeError:
        raise Unusable("is not UTF-8") from None
    _refuse_unstorable(document)
    return document


def _number(text: str) -> float:
    """Read a number that can be written again: finite, and no megabytes of digits."""
    if len(text) > MAX_DIGITS:
        raise Unusable(f"has a number of {len(text)} digits")
    if text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise Unusable(f"has {text}, which is no number in JSON")
    return number


def _refuse_unstorable(document: Any) -> None:
    """PostgreSQL's JSON and text hold neither NUL nor half a character."""
    todo: list[tuple[Any, int]] = [(document, 1)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise Unusable("is nested too deeply")
        if isinstance(value, dict):
            todo.extend((inner, depth + 1) for pair in value.items() for inner in pair)
        elif isinstance(value, list):
            todo.extend((inner, depth + 1) for inner in value)
        elif isinstance(value, str) and not value.isprintable() and _unstorable(value):
            raise Unusable(f"has a text that cannot be stored: {shown(value, 40)}")


def _unstorable(text: str) -> bool:
    return any(c == "\0" or unicodedata.category(c) == "Cs" for c in text)


def _manifest(document: Any) -> Manifest:
    if not isinstance(document, dict):
        raise Unusable("is not a JSON object")
    version = document.get("version", "1.1")
    if version not in ("1.0", "1.1"):
        raise Unusable("has a version other than 1.0 and 1.1")
    extra = set(document) - _KEYS[version]
    if extra:
        raise Unusable(f"has the unknown key {shown(min(extra), 40)}")
    key, one = ("files", _output_1_0) if version == "1.0" else ("output_data", _output_1_1)
    outputs = tuple(one(item, f"{key}[{n}]") for n, item in enumerate(_items(document, key)))
    _refuse_excess(outputs)
    return Manifest(
        outputs=outputs,
        parse_results=tuple(_parse_results(_items(document, "parse_results"))),
        info=tuple(_items(document, "info")),
        errors=tuple(_items(document, "errors")),
    )


def _refuse_excess(outputs: tuple[NamedOutput, ...]) -> None:
    seen = set()
    for output in outputs:
        if output.name in seen:
            raise Unusable(f"names output {shown(output.name)} twice")
        seen.add(output.name)
    if sum(len(output.files) for output in outputs) > MAX_FILES:
        raise Unusable(f"names more than {MAX_FILES} files")


def _items(document: dict[str, Any], key: str) -> list[Any]:
    items = document.get(key)
    if items is None:
        return []
    if not isinstance(items, list):
        raise Unusable(f"has a {key} that is not an array")
    return items


def _output_1_1(item: Any, where: str) -> NamedOutput:
    name = _text(item, "name", where)
    file, files = item.get("file"), item.get("files")
    if (file is None) == (files is None):
        raise Unusable(f"must have exactly one of file and files in {where}")
    if file is not None:
        return NamedOutput(name, (_file_1_1(file, f"{where}.file"),), several=False)
    if not isinstance(files, list):
        raise Unusable(f"has files that are not an array in {where}")
    named = tuple(_file_1_1(one, f"{where}.files[{n}]") for n, one in enumerate(files))
    return NamedOutput(name, named, several=True)


def _file_1_1(item: Any, where: str) -> NamedFile:
    path = _text(item, "path", where)
    geo_metadata = item.get("geo_metadata")
    if geo_metadata is not None and not isinstance(geo_metadata, dict):
        raise Unusable(f"has a geo_metadata that is not an object in {where}")
    return NamedFile(path, geo_metadata)


def _output_1_0(item: Any, where: str) -> NamedOutput:
    name = _text(item, "name", where)
    if ("path" in item) == ("paths" in item):
        raise Unusable(f"must have exactly one of path and paths in {where}")
    if "path" in item:
        return NamedOutput(name, (NamedFile(_text(item, "path", where)),), several=False)
    paths = item["paths"]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise Unusable(f"has paths that are not an array of strings in {where}")
    return NamedOutput(name, tuple(map(NamedFile, paths)), several=True)


def _parse_results(items: list[Any]) -> list[Any]:
    for n, item in enumerate(items):
        _text(item, "filename", f"parse_results[{n}]")
    return items


def _text(item: Any, key: str, where: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value:
        raise Unusable(f"has no {key} in {where}")
    return value
