"""The master's checks of what frameworks send; pure, each answers with Mesos' own words or None.

After src/common/validation.cpp, src/common/roles.cpp and src/master/validation.cpp.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from scale.localmesos.resources import InvalidResource, Resources, parse

LONGEST_ID: Final = 255  # NAME_MAX: ids become names of folders
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f/\\]")
_SPACE: Final = re.compile(r"[\s\x08\x7f]")
LONGEST_FAILOVER_S: Final = 2**63 / 1e9  # stout's Duration: 64 bits of nanoseconds


def id_problem(value: str) -> str | None:
    """Say what is wrong with an id that a client made up."""
    if not value:
        return "ID must be non-empty"
    if len(value.encode()) > LONGEST_ID:
        return f"ID must not be greater than {LONGEST_ID} characters"
    if value in (".", ".."):
        return f"'{value}' is disallowed"
    if _FORBIDDEN.search(value):
        return f"'{value}' contains invalid characters"
    return None


def role_problem(role: str) -> str | None:
    """Say what is wrong with the name of a role."""
    if role == "*":
        return None
    if not role or role.startswith("/") or role.endswith("/"):
        return f"Role '{role}' cannot be empty, start or end with a slash"
    for part in role.split("/"):
        if part in ("", ".", "..", "*") or part.startswith("-"):
            return f"Role component '{part}' is invalid"
        if _SPACE.search(part):
            return f"Role component '{part}' is invalid because it contains backspace or whitespace"
    return None


def capabilities_of(info: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(each["type"] for each in info.get("capabilities", ()) if "type" in each)


def roles_of(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a framework's roles, in order and once each."""
    if "MULTI_ROLE" in capabilities_of(info):
        return tuple(dict.fromkeys(info.get("roles", ())))
    return (info.get("role", "*"),)


def framework_problem(info: Mapping[str, Any], suppressed: Iterable[str]) -> str | None:
    """Say why a framework may not subscribe; told in an ERROR event, not by a status."""
    problem = _roles_problem(info)
    if problem is None:
        timeout = info.get("failover_timeout", 0.0)
        if not abs(timeout) <= LONGEST_FAILOVER_S:  # negative is valid, and like 0
            problem = f"The framework failover_timeout ({timeout:g}) is invalid"
    if problem is None and "id" in info and info["id"]["value"]:
        problem = id_problem(info["id"]["value"])
    if problem is None:
        extra = set(suppressed) - set(roles_of(info))
        if extra:
            problem = f"Suppressed role '{min(extra)}' is not contained in the list of roles"
    return problem


def _roles_problem(info: Mapping[str, Any]) -> str | None:
    if "MULTI_ROLE" in capabilities_of(info):
        if "role" in info:
            return "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
        listed = info.get("roles", [])
        if len(set(listed)) != len(listed):
            return "'FrameworkInfo.roles' contains duplicate items"
        problems = [problem for role in listed if (problem := role_problem(role))]
        return f"'FrameworkInfo.roles' contains invalid roles: {problems[0]}" if problems else None
    if info.get("roles"):
        return "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
    problem = role_problem(info.get("role", "*"))
    return f"'FrameworkInfo.role' is not a valid role: {problem}" if problem else None


class TaskRefused(Exception):
    """A task that cannot be launched; the text is its TASK_ERROR's message."""


def checked_resources(
    info: Mapping[str, Any], agent_id: str, role: str, available: Resources
) -> Resources:
    """Check one task against what is left of the offers; return what it takes.

    Duplicate ids are the caller's to check.

    Raises:
        TaskRefused: what is wrong first, in the order of Mesos.
    """
    for problem in (
        id_problem(info["task_id"]["value"]),
        _agent_problem(info, agent_id),
        _kind_problem(info),
        None if info.get("resources") else "Task uses no resources",
        _duration_problem(info),
        _command_problem(info.get("command", {})),
        _container_problem(info.get("container")),
    ):
        if problem:
            raise TaskRefused(problem)
    try:
        wanted = parse(info["resources"], role)
    except InvalidResource as error:
        raise TaskRefused(str(error)) from None
    _refuse_bad_limits(info.get("limits", {}), wanted)
    other = _other_role(info["resources"], role)
    if other is not None or not available.contains(wanted):
        raise TaskRefused(
            f"Total resources {wanted.text(other or role)} required by task and its executor is "
            f"more than available {available.text(role)}"
        )
    return wanted


def _agent_problem(info: Mapping[str, Any], agent_id: str) -> str | None:
    named = info["agent_id"]["value"]
    if named != agent_id:
        return f"Task uses invalid agent {named} while agent {agent_id} is expected"
    return None


def _kind_problem(info: Mapping[str, Any]) -> str | None:
    if ("command" in info) == ("executor" in info):
        return "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
    for name, what in (
        ("executor", "Custom executors are"),
        ("health_check", "Health checks are"),
        ("check", "Checks are"),
    ):
        if name in info:
            return f"{what} not supported by local Mesos"
    return None


def _duration_problem(info: Mapping[str, Any]) -> str | None:
    grace = info.get("kill_policy", {}).get("grace_period")
    if grace and grace["nanoseconds"] < 0:
        return "Task's 'kill_policy.grace_period' must be non-negative"
    if info.get("max_completion_time", {"nanoseconds": 0})["nanoseconds"] < 0:
        return "Task's `max_completion_time` must be non-negative"
    return None


def _command_problem(command: Mapping[str, Any]) -> str | None:
    for variable in command.get("environment", {}).get("variables", ()):
        name = variable["name"]
        if variable.get("type", "VALUE") != "VALUE":
            return f"Environment variable '{name}' of type 'SECRET' is not supported"
        if "value" not in variable:
            return f"Environment variable '{name}' of type 'VALUE' must have a value set"
        if not name or "=" in name or "\0" in name + variable["value"]:
            return f"Environment variable '{name}' is invalid"
    texts = [command.get("value", ""), *command.get("arguments", ())]
    return "The command contains a null character" if "\0" in "".join(texts) else None


def _container_problem(container: Mapping[str, Any] | None) -> str | None:
    if container is None:
        return None
    if container["type"] == "DOCKER":
        return None if "docker" in container else "DockerInfo 'docker' is not set for DOCKER"
    if "docker" in container:
        return "DockerInfo 'docker' is set for a container of type MESOS"
    if container.get("volumes") or "mesos" in container:
        return "Images and volumes of MESOS containers are not supported by local Mesos"
    return None


def _refuse_bad_limits(limits: Mapping[str, Any], wanted: Resources) -> None:
    for name, limit in limits.items():
        if name not in ("cpus", "mem"):
            raise TaskRefused(f"Resource limits for '{name}' are not supported")
        if not limit["value"] >= wanted.value(name):
            raise TaskRefused(f"Task's limit of '{name}' is less than its request")


def _other_role(listed: Iterable[Mapping[str, Any]], role: str) -> str | None:
    """Return a role that a resource is allocated to or reserved for, if it is not the offer's."""
    for resource in listed:
        allocated = resource.get("allocation_info", {}).get("role", role)
        if allocated != role:
            return str(allocated)
        if resource.get("role", "*") != "*":
            return str(resource["role"])
    return None
