"""What one execution's step has to do, as the API gives it, checked before anything is done."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, TypeVar

from .errors import ApiUnreachable, ForbiddenInput, shown
from .net import Network
from .paths import relative_parts

T = TypeVar("T")

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TASK_ID = re.compile(UUID.pattern + r"\.job\.[0-9]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPE = re.compile(r"[!#-~]+/[!#-~]+(; ?[ !#-~]+)?")


@dataclass(frozen=True)
class Input:
    """A file to bring. `path` is below the work folder; `stored` ones are Scale's own."""

    name: str
    path: tuple[str, ...]
    uri: str
    stored: bool
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Output:
    """A declared output: one file, or `several`. `pattern` is relative to the outputs folder."""

    name: str
    several: bool
    required: bool
    pattern: str | None
    media_type: str | None


@dataclass(frozen=True)
class Orders:
    work_dir: Path
    job_task_id: str | None
    max_output_bytes: int
    file_roots: tuple[Path, ...]
    forbidden: tuple[Network, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]


def parse_orders(body: bytes, execution: str) -> Orders:
    """Read the API's JSON.

    Raises:
        ApiUnreachable: they are not orders, or those of another execution.
        ForbiddenInput: an input would be written outside the work folder or over another one.
    """
    try:
        document = json.loads(body)
        if _get(document, "execution", str) != execution:
            raise ValueError("they are another execution's")
        return _orders(document, execution)
    except (ValueError, RecursionError) as error:
        raise ApiUnreachable(f"Scale's orders cannot be used: {error}") from None


def _orders(document: Mapping[str, Any], execution: str) -> Orders:
    task_id = _get(document, "job_task_id", str, none=True)
    if task_id is not None and not _TASK_ID.fullmatch(task_id):
        raise ValueError("job_task_id is not a task id")
    inputs = tuple(_input(item) for item in _get(document, "inputs", list))
    _refuse_doubles(inputs)
    roots = _get(document, "file_roots", list)
    networks = _get(document, "forbidden_networks", list)
    return Orders(
        work_dir=_work_dir(_get(document, "work_dir", str), execution),
        job_task_id=task_id,
        max_output_bytes=_get(document, "max_output_bytes", int),
        file_roots=tuple(_absolute(root) for root in roots),
        forbidden=tuple(ipaddress.ip_network(network) for network in networks),
        inputs=inputs,
        outputs=tuple(_output(item) for item in _get(document, "outputs", list)),
    )


def _input(item: Any) -> Input:
    name = _get(item, "name", str)
    sha256 = _get(item, "sha256", str, none=True)
    if sha256 is not None and not _SHA256.fullmatch(sha256.lower()):
        raise ValueError(f"sha256 of input {shown(name)} is not a SHA-256 sum")
    try:
        path = relative_parts(_get(item, "path", str))
    except ValueError as error:
        raise ForbiddenInput(f"the path for input {shown(name)} {error}") from None
    return Input(
        name=name,
        path=path,
        uri=_get(item, "uri", str),
        stored=_get(item, "stored", bool),
        size=_get(item, "size", int, none=True),
        sha256=sha256.lower() if sha256 is not None else None,
    )


def _output(item: Any) -> Output:
    kind = _get(item, "type", str)
    if kind not in {"file", "files"}:
        raise ValueError(f"type {shown(kind)} is not file or files")
    media_type = _get(item, "media_type", str, none=True)
    if media_type and not _MEDIA_TYPE.fullmatch(media_type):
        raise ValueError(f"media_type {shown(media_type)} is not one")
    return Output(
        name=_get(item, "name", str),
        several=kind == "files",
        required=_get(item, "required", bool),
        pattern=_get(item, "pattern", str, none=True) or None,
        media_type=media_type or None,
    )


def _refuse_doubles(inputs: tuple[Input, ...]) -> None:
    seen = set()
    for item in inputs:
        if item.path in seen:
            raise ForbiddenInput(f"two inputs would be written to {shown('/'.join(item.path))}")
        seen.add(item.path)


def _absolute(path: Any) -> Path:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError("a folder is not absolute")
    return Path(path)


def _work_dir(path: str, execution: str) -> Path:
    """Accept only a folder named after the execution: it will be removed with all that is in it."""
    folder = _absolute(path)
    if folder.name != execution or ".." in folder.parts or len(folder.parts) < 3:
        raise ValueError("work_dir is not a folder named after the execution")
    return folder


def _get(document: Any, key: str, kind: Callable[..., T], *, none: bool = False) -> Any:
    """Return a field of the JSON type `kind`; a bool is no int here."""
    if not isinstance(document, dict) or key not in document:
        raise ValueError(f"{key} is missing")
    value: T | None = document[key]
    if none and value is None:
        return None
    if type(value) is not kind:
        raise ValueError(f"{key} has the wrong type")
    return value
