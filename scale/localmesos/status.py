"""Task states and the `TaskStatus` messages that tell of them."""

import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

TERMINAL: Final = frozenset(
    f"TASK_{name}"
    for name in (
        "FINISHED", "FAILED", "KILLED", "ERROR", "LOST", "DROPPED", "GONE", "GONE_BY_OPERATOR",
    )
)  # fmt: skip


def new_uuid() -> str:
    """Return 16 random bytes in base64, the form of TaskStatus.uuid in JSON."""
    return base64.b64encode(uuid.uuid4().bytes).decode()


def container_status(container_id: str, ip: str, pid: int | None) -> dict[str, Any]:
    status: dict[str, Any] = {
        "container_id": {"value": container_id},
        "network_infos": [{"ip_addresses": [{"protocol": "IPv4", "ip_address": ip}]}],
    }
    if pid is not None:
        status["executor_pid"] = pid
    return status


def brief(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what /state shows of a status; its container is shown without executor_pid."""
    shown = {"state": told["state"], "timestamp": told["timestamp"]}
    if container := told.get("container_status"):
        shown["container_status"] = {
            name: value for name, value in container.items() if name != "executor_pid"
        }
    return shown


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a task is in its state, as far as Mesos says."""

    message: str | None = None
    reason: str | None = None
    limitation: tuple[Mapping[str, Any], ...] = ()


def from_agent(
    task_id: str, agent_id: str, state: str, source: str, cause: Cause, container: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an update that is retried until it is acknowledged: it has a uuid."""
    status: dict[str, Any] = {"task_id": {"value": task_id}, "state": state}
    if cause.message is not None:
        status["message"] = cause.message
    status["source"] = source
    if cause.reason is not None:
        status["reason"] = cause.reason
    status["agent_id"] = {"value": agent_id}
    status["executor_id"] = {"value": task_id}
    status["timestamp"] = time.time()
    status["uuid"] = new_uuid()
    if container:
        status["container_status"] = container
    if cause.limitation:
        status["limitation"] = {"resources": list(cause.limitation)}
    return status


def from_master(
    task_id: str, agent_id: str | None, state: str, reason: str, message: str
) -> dict[str, Any]:
    """Return an update without uuid: told once, not to be acknowledged."""
    status: dict[str, Any] = {
        "task_id": {"value": task_id},
        "state": state,
        "message": message,
        "source": "SOURCE_MASTER",
        "reason": reason,
        "timestamp": time.time(),
    }
    if agent_id is not None:
        status["agent_id"] = {"value": agent_id}
    return status


def unreachable_since(seconds: float) -> dict[str, Any]:
    """Return TaskStatus.unreachable_time for a moment in seconds since 1970."""
    return {"nanoseconds": int(seconds * 1e9)}
