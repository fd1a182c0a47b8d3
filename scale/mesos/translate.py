"""Mesos' v1 JSON to the values of `scale.core.cluster`, and back; pure.

Names are those of `mesos.proto` and `scheduler.proto`, v1.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from scale.core.cluster import (
    Agent,
    Container,
    Deposed,
    FrameworkRemoved,
    Offer,
    TaskRef,
    TaskSpec,
    TaskState,
    TaskUpdate,
)
from scale.core.resources import Resources
from scale.mesos.document import JsonObject

MASTER_PORT: Final = 5050
AGENT_PORT: Final = 5051
NANOSECONDS: Final = 1_000_000_000

_PID: Final = re.compile(r"@(?P<address>.+):(?P<port>\d+)$")


# From Mesos.


def offers(event: JsonObject) -> tuple[Offer, ...]:
    """Return the offers of an OFFERS event."""
    return tuple(_offer(offer) for offer in event.get("offers", ()))


def _offer(offer: JsonObject) -> Offer:
    hostname = offer["hostname"]
    address = offer.get("url", {}).get("address", {})
    return Offer(
        offer_id=offer["id"]["value"],
        agent_id=offer["agent_id"]["value"],
        hostname=hostname,
        address=address.get("ip") or hostname,
        port=int(address.get("port") or AGENT_PORT),
        free=_free(offer.get("resources", ())),
    )


def _free(resources: Iterable[JsonObject]) -> Resources:
    """Add up the scalars that anybody may use and keep.

    What is reserved to a role, revocable, or a volume needs to be named as such in the task that
    uses it, so it does not count.
    """
    total = {"cpus": 0.0, "mem": 0.0, "disk": 0.0}
    for resource in resources:
        plain = resource.get("role", "*") == "*" and not (
            resource.get("reservations") or "revocable" in resource or "disk" in resource
        )
        if plain and resource["name"] in total:
            total[resource["name"]] += float(resource["scalar"]["value"])
    return _resources(total)


def _resources(scalars: JsonObject) -> Resources:
    return Resources(
        millicpus=round(float(scalars.get("cpus", 0)) * 1000),
        mem_mib=int(scalars.get("mem", 0)),
        disk_mib=int(scalars.get("disk", 0)),
    )


def task_update(status: JsonObject) -> TaskUpdate:
    """Return a TaskStatus as a value; raise ValueError for a state that this version lacks."""
    return TaskUpdate(
        task_id=status["task_id"]["value"],
        state=TaskState(status["state"]),
        agent_id=status.get("agent_id", {}).get("value"),
        uuid=status.get("uuid"),
        source=status.get("source"),
        reason=status.get("reason"),
        message=_storable(status.get("message", "")),
        timestamp_s=status.get("timestamp"),
    )


def _storable(text: str) -> str:
    """Replace what PostgreSQL refuses in text: NUL and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def agents(document: JsonObject) -> list[Agent]:
    """Return the agents of the master's `GET /slaves` that take tasks now."""
    return [
        _agent(agent)
        for agent in document.get("slaves", ())
        if agent.get("active") and not agent.get("deactivated")
    ]


def _agent(agent: JsonObject) -> Agent:
    hostname = agent["hostname"]
    pid = _PID.search(agent.get("pid", ""))
    address, port = (pid["address"], int(pid["port"])) if pid else (hostname, AGENT_PORT)
    # As with offers: what is reserved to a role is not ours to use.
    total = _resources(agent.get("unreserved_resources") or agent.get("resources", {}))
    return Agent(agent["id"], hostname, address, port, total)


def ending(message: str) -> Deposed | FrameworkRemoved | None:
    """Return what an ERROR event's message means if it is final; None if trying again may help.

    The master has only the text to tell them apart (`master.cpp`).
    """
    if "framework failed over" in message.lower():
        return Deposed(message)
    if "framework has been removed" in message.lower():
        return FrameworkRemoved(message)
    return None


def addresses(masters: str | None) -> tuple[str, ...]:
    """Split `host[:port][,host[:port]...]`; raise ValueError if it is anything else."""
    return tuple(_address(part.strip()) for part in (masters or "").split(",") if part.strip())


def _address(text: str) -> str:
    host, colon, port = text.partition(":")
    if not re.fullmatch(r"[\w.-]+", host) or (colon and not port.isdigit()):
        raise ValueError(f"not a master's host:port: {text!r}")
    return f"{host}:{port or MASTER_PORT}"


def leader(location: str) -> str | None:
    """Return the address in a redirect's Location, which has no scheme in Mesos; None if none."""
    try:
        return _address(urlsplit(location).netloc or location)
    except ValueError:
        return None


# To Mesos.


def task_info(task: TaskSpec) -> JsonObject:
    """Return TaskInfo of a command task."""
    info: JsonObject = {
        "name": task.name,
        "task_id": {"value": task.task_id},
        "agent_id": {"value": task.agent_id},
        "resources": _scalars(task.needs),
        "command": _command(task),
    }
    if task.container is not None:
        info["container"] = _container(task.container)
    return info


def _scalars(needs: Resources) -> list[JsonObject]:
    """Return the resources of a task; cpus even if 0, because a task must name one at least."""
    amounts = {"cpus": needs.millicpus / 1000, "mem": needs.mem_mib, "disk": needs.disk_mib}
    return [
        {"name": name, "type": "SCALAR", "scalar": {"value": amount}}
        for name, amount in amounts.items()
        if amount or name == "cpus"
    ]


def _command(task: TaskSpec) -> JsonObject:
    variables = [{"name": name, "value": value} for name, value in task.environment.items()]
    return {
        "shell": True,
        "value": task.command,
        "environment": {"variables": variables},
        "uris": [
            {"value": uri.value, "executable": uri.executable, "extract": False, "cache": False}
            for uri in task.uris
        ],
    }


def _container(container: Container) -> JsonObject:
    return {
        "type": "DOCKER",
        "docker": {
            "image": container.image,
            "privileged": container.privileged,
            "force_pull_image": False,
        },
        "volumes": [
            {
                "container_path": volume.container_path,
                "host_path": volume.host_path,
                "mode": "RO" if volume.read_only else "RW",
            }
            for volume in container.volumes
        ],
    }


def offer_ids(ids: Sequence[str]) -> list[JsonObject]:
    return [{"value": offer_id} for offer_id in ids]


def task_ref(task: TaskRef) -> JsonObject:
    return {"task_id": {"value": task.task_id}, "agent_id": {"value": task.agent_id}}


def kill(task: TaskRef, *, grace_s: float) -> JsonObject:
    grace = {"nanoseconds": round(grace_s * NANOSECONDS)}
    return {**task_ref(task), "kill_policy": {"grace_period": grace}}


def acknowledgement(update: TaskUpdate) -> JsonObject | None:
    """Return what confirms an update; None for those of the master, which must not be."""
    if update.uuid is None or update.agent_id is None:
        return None
    return {
        "agent_id": {"value": update.agent_id},
        "task_id": {"value": update.task_id},
        "uuid": update.uuid,
    }
