"""The JSON form of the Mesos v1 messages: checks a body against them and gives plain values.

The rules are those of stout's JSON-to-protobuf conversion: unknown fields are ignored, null means
unset, numbers and booleans may be strings, an unknown name of an enum leaves the field unset, a
number where an enum's name belongs is refused, as are missing required fields.
"""

import base64
import binascii
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

type_name: Final = {bool: "boolean", str: "string", int: "number", float: "number", list: "array"}


class Malformed(Exception):
    """A body that does not fit its message; the text is the client's answer."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: a scalar kind, an enum (`names`) or another message."""

    kind: str
    required: bool
    repeated: bool
    names: frozenset[str] | None = None


# A leading "!" marks a required field, "*" a repeated one; "A|B" is an enum.
_TEXT: Final[Mapping[str, Mapping[str, str]]] = {
    "Id": {"value": "!string"},
    "Role": {"role": "string"},
    "Call": {
        "type": "SUBSCRIBE|TEARDOWN|ACCEPT|DECLINE|ACCEPT_INVERSE_OFFERS|DECLINE_INVERSE_OFFERS"
        "|REVIVE|KILL|SHUTDOWN|ACKNOWLEDGE|ACKNOWLEDGE_OPERATION_STATUS|RECONCILE|RECONCILE_OPERATIONS"
        "|MESSAGE|REQUEST|SUPPRESS|UPDATE_FRAMEWORK|UNKNOWN",
        "framework_id": "Id",
        "subscribe": "Subscribe",
        "accept": "Accept",
        "decline": "Decline",
        "accept_inverse_offers": "Anything",
        "decline_inverse_offers": "Anything",
        "revive": "Roles",
        "suppress": "Roles",
        "kill": "Kill",
        "shutdown": "Anything",
        "acknowledge": "Acknowledge",
        "acknowledge_operation_status": "Anything",
        "reconcile": "Reconcile",
        "reconcile_operations": "Anything",
        "message": "Anything",
        "request": "Anything",
        "update_framework": "Subscribe",
    },
    "Anything": {},
    "Subscribe": {"framework_info": "!FrameworkInfo", "suppressed_roles": "*string"},
    "FrameworkInfo": {
        "user": "!string",
        "name": "!string",
        "id": "Id",
        "failover_timeout": "double",
        "checkpoint": "bool",
        "role": "string",
        "roles": "*string",
        "hostname": "string",
        "principal": "string",
        "webui_url": "string",
        "capabilities": "*Capability",
        "labels": "Labels",
    },
    "Capability": {
        "type": "REVOCABLE_RESOURCES|TASK_KILLING_STATE|GPU_RESOURCES|SHARED_RESOURCES"
        "|PARTITION_AWARE|MULTI_ROLE|RESERVATION_REFINEMENT|REGION_AWARE"
    },
    "Labels": {"labels": "*Label"},
    "Label": {"key": "!string", "value": "string"},
    "Filters": {"refuse_seconds": "double"},
    "Accept": {"offer_ids": "*Id", "operations": "*Operation", "filters": "Filters"},
    "Operation": {
        "type": "LAUNCH|LAUNCH_GROUP|RESERVE|UNRESERVE|CREATE|DESTROY|GROW_VOLUME|SHRINK_VOLUME"
        "|CREATE_DISK|DESTROY_DISK",
        "id": "Id",
        "launch": "Launch",
        "launch_group": "LaunchGroup",
    },
    "Launch": {"task_infos": "*TaskInfo"},
    "LaunchGroup": {"task_group": "TaskGroup"},
    "TaskGroup": {"tasks": "*TaskInfo"},
    "Decline": {"offer_ids": "*Id", "filters": "Filters"},
    "Roles": {"roles": "*string"},
    "Kill": {"task_id": "!Id", "agent_id": "Id", "kill_policy": "KillPolicy"},
    "KillPolicy": {"grace_period": "Duration"},
    "Duration": {"nanoseconds": "!int"},
    "Acknowledge": {"agent_id": "!Id", "task_id": "!Id", "uuid": "!bytes"},
    "Reconcile": {"tasks": "*TaskRef"},
    "TaskRef": {"task_id": "!Id", "agent_id": "Id"},
    "TaskInfo": {
        "name": "!string",
        "task_id": "!Id",
        "agent_id": "!Id",
        "resources": "*Resource",
        "command": "CommandInfo",
        "executor": "Anything",
        "container": "ContainerInfo",
        "health_check": "Anything",
        "check": "Anything",
        "kill_policy": "KillPolicy",
        "max_completion_time": "Duration",
        "labels": "Labels",
        "discovery": "DiscoveryInfo",
        "limits": "Limits",
    },
    "DiscoveryInfo": {
        "visibility": "!FRAMEWORK|CLUSTER|EXTERNAL",
        "name": "string",
        "environment": "string",
        "location": "string",
        "version": "string",
        "ports": "Ports",
        "labels": "Labels",
    },
    "Ports": {"ports": "*Port"},
    "Port": {
        "number": "!int",
        "name": "string",
        "protocol": "string",
        "visibility": "FRAMEWORK|CLUSTER|EXTERNAL",
        "labels": "Labels",
    },
    "Limits": {"cpus": "Limit", "mem": "Limit", "disk": "Limit", "gpus": "Limit"},
    "Limit": {"value": "!limit"},
    "Scalar": {"value": "!double"},
    "Resource": {
        "name": "!string",
        "type": "!SCALAR|RANGES|SET|TEXT",
        "scalar": "Scalar",
        "ranges": "Ranges",
        "set": "Set",
        "role": "string",
        "allocation_info": "Role",
        "reservation": "Anything",
        "reservations": "*Anything",
        "disk": "Anything",
        "revocable": "Anything",
        "shared": "Anything",
    },
    "Ranges": {"range": "*Range"},
    "Range": {"begin": "!int", "end": "!int"},
    "Set": {"item": "*string"},
    "CommandInfo": {
        "value": "string",
        "shell": "bool",
        "arguments": "*string",
        "environment": "Environment",
        "uris": "*Uri",
        "user": "string",
    },
    "Environment": {"variables": "*Variable"},
    "Variable": {"name": "!string", "value": "string", "type": "VALUE|SECRET"},
    "Uri": {
        "value": "!string",
        "executable": "bool",
        "extract": "bool",
        "cache": "bool",
        "output_file": "string",
    },
    "ContainerInfo": {
        "type": "!DOCKER|MESOS",
        "volumes": "*Volume",
        "hostname": "string",
        "docker": "DockerInfo",
        "network_infos": "*NetworkInfo",
        "mesos": "Anything",
    },
    "NetworkInfo": {"name": "string"},
    "Volume": {"mode": "!RW|RO", "container_path": "!string", "host_path": "string"},
    "DockerInfo": {
        "image": "!string",
        "network": "HOST|BRIDGE|NONE|USER",
        "port_mappings": "*PortMapping",
        "privileged": "bool",
        "parameters": "*Parameter",
        "force_pull_image": "bool",
    },
    "PortMapping": {"host_port": "!int", "container_port": "!int", "protocol": "string"},
    "Parameter": {"key": "!string", "value": "!string"},
    "OperatorCall": {
        "type": "GET_HEALTH|GET_FLAGS|GET_VERSION|GET_METRICS|GET_LOGGING_LEVEL|SET_LOGGING_LEVEL"
        "|LIST_FILES|READ_FILE|GET_STATE|GET_AGENTS|GET_AGENT|GET_FRAMEWORKS|GET_EXECUTORS"
        "|GET_OPERATIONS|GET_TASKS|GET_ROLES|GET_WEIGHTS|UPDATE_WEIGHTS|GET_MASTER|SUBSCRIBE"
        "|RESERVE_RESOURCES|UNRESERVE_RESOURCES|CREATE_VOLUMES|DESTROY_VOLUMES|GROW_VOLUME"
        "|SHRINK_VOLUME|GET_MAINTENANCE_STATUS|GET_MAINTENANCE_SCHEDULE"
        "|UPDATE_MAINTENANCE_SCHEDULE|START_MAINTENANCE|STOP_MAINTENANCE|GET_QUOTA|UPDATE_QUOTA"
        "|SET_QUOTA|REMOVE_QUOTA|TEARDOWN|MARK_AGENT_GONE|DRAIN_AGENT|DEACTIVATE_AGENT"
        "|REACTIVATE_AGENT|GET_CONTAINERS|GET_RESOURCE_PROVIDERS|LAUNCH_CONTAINER|WAIT_CONTAINER"
        "|KILL_CONTAINER|REMOVE_CONTAINER|LAUNCH_NESTED_CONTAINER|WAIT_NESTED_CONTAINER"
        "|KILL_NESTED_CONTAINER|REMOVE_NESTED_CONTAINER|LAUNCH_NESTED_CONTAINER_SESSION"
        "|ATTACH_CONTAINER_INPUT|ATTACH_CONTAINER_OUTPUT|PRUNE_IMAGES",
        "list_files": "ListFiles",
        "read_file": "ReadFile",
        "teardown": "Teardown",
        "mark_agent_gone": "MarkAgentGone",
    },
    "ListFiles": {"path": "!string"},
    "ReadFile": {"path": "!string", "offset": "!int", "length": "int"},
    "Teardown": {"framework_id": "!Id"},
    "MarkAgentGone": {"agent_id": "!Id"},
}


def _field(text: str) -> Field:
    required, repeated = text.startswith("!"), text.startswith("*")
    kind = text.lstrip("!*")
    names = frozenset(kind.split("|")) if "|" in kind else None
    return Field("enum" if names else kind, required, repeated, names)


MESSAGES: Final[Mapping[str, Mapping[str, Field]]] = {
    message: {name: _field(text) for name, text in fields.items()}
    for message, fields in _TEXT.items()
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    message: tuple(name for name, field in fields.items() if field.required)
    for message, fields in MESSAGES.items()
}


def convert(message: str, body: Any) -> dict[str, Any]:
    """Return `body` as the fields of `message`, without what is unset or unknown.

    Bytes stay base64 strings (checked); doubles are floats, int64 ints.

    Raises:
        Malformed: not an object, a field of the wrong type, or a required one missing.
    """
    if not isinstance(body, dict):
        raise Malformed("Expecting a JSON object")
    missing: list[str] = []
    converted = _message(message, body, "", missing)
    if missing:
        raise Malformed("Missing required fields: " + ", ".join(missing))
    return converted


def _message(
    message: str, body: Mapping[str, Any], path: str, missing: list[str]
) -> dict[str, Any]:
    fields = MESSAGES[message]
    converted: dict[str, Any] = {}
    for name, value in body.items():
        field = fields.get(name)
        if field is None or value is None:
            continue
        if not field.repeated:
            _put(converted, name, field, value, path + name, missing)
        elif isinstance(value, list):
            converted[name] = _items(name, field, value, path, missing)
        else:
            raise _unexpected(value, name)
    missing.extend(path + name for name in _REQUIRED[message] if name not in converted)
    return converted


def _items(name: str, field: Field, values: list[Any], path: str, missing: list[str]) -> list[Any]:
    items: list[Any] = []
    for index, value in enumerate(values):
        holder: dict[str, Any] = {}
        _put(holder, name, field, value, f"{path}{name}[{index}]", missing)
        items.extend(holder.values())
    return items


def _put(
    into: dict[str, Any], name: str, field: Field, value: Any, path: str, missing: list[str]
) -> None:
    scalar = _SCALARS.get(field.kind)
    if scalar is not None:
        into[name] = scalar(value, name)
    elif field.names is not None:
        if not isinstance(value, str):
            raise _unexpected(value, name)
        if value in field.names:
            into[name] = value
    elif isinstance(value, dict):
        into[name] = _message(field.kind, value, path + ".", missing)
    else:
        raise _unexpected(value, name)


def _unexpected(value: Any, name: str) -> Malformed:
    kind = type_name.get(type(value), "object")
    return Malformed(f"Not expecting a JSON {kind} for field '{name}'")


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _unexpected(value, name)
    return value


def _bytes(value: Any, name: str) -> str:
    text = _string(value, name)
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"Failed to base64 decode bytes field '{name}'") from None
    return text


def _double(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _unexpected(value, name)
    try:
        return float(value)
    except ValueError:
        raise Malformed(f"Failed to convert '{value}' to a number for field '{name}'") from None


def _limit(value: Any, name: str) -> float:
    """Return a number; the largest for an endless one, of which JSON knows nothing."""
    number = _double(value, name)
    return sys.float_info.max if number == math.inf else number


def _int(value: Any, name: str) -> int:
    number = _double(value, name)
    if isinstance(value, int) or (isinstance(value, str) and value.lstrip("+-").isdecimal()):
        return int(value)
    if not number.is_integer():
        raise Malformed(f"Failed to convert '{value}' to an integer for field '{name}'")
    return int(number)


def _bool(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise _unexpected(value, name)


_SCALARS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "string": _string,
    "bytes": _bytes,
    "double": _double,
    "limit": _limit,
    "int": _int,
    "bool": _bool,
}
