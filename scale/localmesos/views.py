"""What the master's /state, /slaves and the like show; read-only, made on request."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from scale.localmesos.framework import Framework
from scale.localmesos.master import CAPABILITIES, VERSION, Master
from scale.localmesos.remote import Remote
from scale.localmesos.resources import Resources, total
from scale.localmesos.status import TERMINAL
from scale.localmesos.tasks import Launch, Task

View = dict[str, Any]

VERSION_INFO: Final[View] = {
    "version": VERSION,
    "build_date": "scale.localmesos",
    "build_time": 0.0,
    "build_user": "scale",
}
AGENT_CAPABILITIES: Final = ("MULTI_ROLE", "HIERARCHICAL_ROLE", "TASK_RESOURCE_LIMITS")
STATES: Final = (
    "STAGING", "STARTING", "RUNNING", "KILLING", "FINISHED", "KILLED", "FAILED", "LOST", "ERROR",
    "GONE", "DROPPED", "GONE_BY_OPERATOR", "UNREACHABLE",
)  # fmt: skip


def used_by(frameworks: Iterable[Framework]) -> Resources:
    """Return what live tasks use."""
    return total(
        task.launch.resources
        for framework in frameworks
        for task in framework.tasks.values()
        if task.state not in TERMINAL
    )


def offered_to(frameworks: Iterable[Framework], agent_id: str | None = None) -> Resources:
    return total(
        offer.resources
        for framework in frameworks
        for offer in framework.offers.values()
        if agent_id in (None, offer.agent_id)
    )


def task_view(launch: Launch, state: str, statuses: Iterable[Mapping[str, Any]]) -> View:
    """Return a task as the master and its agent show it."""
    view: View = {
        "id": launch.task_id,
        "name": launch.info["name"],
        "framework_id": launch.framework_id,
        "executor_id": "",
        "slave_id": launch.agent_id,
        "state": state,
        "resources": launch.resources.summary(),
        "role": launch.role,
        "statuses": statuses,
    }
    if labels := labels_of(launch.info):
        view["labels"] = labels
    for name in ("discovery", "container", "limits"):
        if name in launch.info:
            view[name] = launch.info[name]
    return view


def labels_of(info: Mapping[str, Any]) -> list[View]:
    return list(info.get("labels", {}).get("labels", ()))


def _tasks(tasks: Iterable[Task]) -> list[View]:
    return [task_view(task.launch, task.state, task.statuses) for task in tasks]


def framework_view(framework: Framework) -> View:
    info, mine = framework.info, [framework]
    used, offered = used_by(mine), offered_to(mine)
    view: View = {
        "id": framework.framework_id,
        "name": info["name"],
        "used_resources": used.summary(),
        "offered_resources": offered.summary(),
        "resources": (used + offered).summary(),
        "capabilities": sorted(framework.capabilities),
        "hostname": info.get("hostname", ""),
        "webui_url": info.get("webui_url", ""),
        "active": framework.stream is not None,
        "connected": framework.stream is not None,
        "recovered": framework.recovered,
        "user": info["user"],
        "failover_timeout": info.get("failover_timeout", 0.0),
        "checkpoint": bool(info.get("checkpoint")),
        "registered_time": framework.registered,
        "unregistered_time": framework.unregistered,
        "tasks": _tasks(framework.tasks.values()),
        "unreachable_tasks": _tasks(framework.unreachable_tasks.values()),
        "completed_tasks": _tasks(framework.completed_tasks),
        "offers": [_offer_view(framework, offer_id) for offer_id in framework.offers],
        "executors": [],
        "offer_constraints": {},
    }
    if "MULTI_ROLE" in framework.capabilities:
        view["roles"] = list(framework.roles)
    else:
        view["role"] = framework.roles[0]
    if labels := labels_of(info):
        view["labels"] = labels
    if framework.principal is not None:
        view["principal"] = framework.principal
    if framework.reregistered is not None:
        view["reregistered_time"] = framework.reregistered
    return view


def _offer_view(framework: Framework, offer_id: str) -> View:
    offer = framework.offers[offer_id]
    return {
        "id": offer_id,
        "framework_id": framework.framework_id,
        "slave_id": offer.agent_id,
        "resources": offer.resources.summary(),
        "allocation_info": {"role": offer.role},
    }


def slave_view(master: Master, agent: Remote, *, full: bool) -> View:
    place = agent.place
    offered = offered_to(master.frameworks.values(), place.agent_id)
    # Also what tasks of removed frameworks still hold until their processes are gone.
    used = total(launch.resources for launch in agent.used.values())
    view: View = {
        "id": place.agent_id,
        "hostname": place.hostname,
        "port": place.port,
        "attributes": {},
        "pid": f"slave(1)@{place.address}",
        "registered_time": agent.registered,
        "resources": place.resources.summary(),
        "used_resources": used.summary(),
        "offered_resources": offered.summary(),
        "reserved_resources": {},
        "unreserved_resources": place.resources.summary(),
        "active": agent.link is not None,
        "deactivated": False,
        "version": VERSION,
        "capabilities": AGENT_CAPABILITIES,
    }
    if agent.reregistered is not None:
        view["reregistered_time"] = agent.reregistered
    if full:
        view["reserved_resources_full"] = {}
        view["unreserved_resources_full"] = place.resources.as_json()
        view["used_resources_full"] = used_full(agent)
        view["offered_resources_full"] = offered_full(master, place.agent_id)
    return view


def used_full(agent: Remote) -> list[View]:
    return _by_role((launch.role, launch.resources) for launch in agent.used.values())


def offered_full(master: Master, agent_id: str) -> list[View]:
    return _by_role(
        (offer.role, offer.resources)
        for framework in master.frameworks.values()
        for offer in framework.offers.values()
        if offer.agent_id == agent_id
    )


def _by_role(parts: Iterable[tuple[str, Resources]]) -> list[View]:
    """Return the sum for each role, as `Resource` messages that name it."""
    by_role: dict[str, Resources] = {}
    for role, resources in parts:
        by_role[role] = by_role.get(role, Resources()) + resources
    return [each for role, summed in by_role.items() for each in summed.as_json(role)]


def slaves_view(master: Master, slave_id: str | None) -> View:
    return {
        "slaves": [
            slave_view(master, agent, full=True)
            for agent_id, agent in master.agents.items()
            if slave_id in (None, agent_id)
        ],
        "recovered_slaves": _recovered(master),
    }


def _recovered(master: Master) -> list[View]:
    return [{"id": agent_id} for agent_id in sorted(master.absent.recovered)]


def _connected(master: Master) -> int:
    return sum(agent.link is not None for agent in master.agents.values())


def master_state(master: Master) -> View:
    address, frameworks = master.address, master.frameworks.values()
    return {
        **VERSION_INFO,
        "start_time": master.started,
        "elected_time": master.started,
        "id": master.master_id,
        "pid": address.pid,
        "hostname": address.hostname,
        "capabilities": CAPABILITIES,
        "activated_slaves": float(_connected(master)),
        "deactivated_slaves": float(len(master.agents) - _connected(master)),
        "unreachable_slaves": float(len(master.absent.unreachable)),
        "leader": address.pid,
        "leader_info": {
            "id": master.master_id,
            "pid": address.pid,
            "port": address.port,
            "hostname": address.hostname,
        },
        "flags": {},
        "slaves": [slave_view(master, agent, full=False) for agent in master.agents.values()],
        "recovered_slaves": _recovered(master),
        "frameworks": [framework_view(each) for each in frameworks],
        "completed_frameworks": [framework_view(each) for each in master.completed.values()],
        "orphan_tasks": [],
        "unregistered_frameworks": [],
    }


def master_metrics(master: Master) -> dict[str, float]:
    frameworks = master.frameworks.values()
    connected = sum(each.stream is not None for each in frameworks)
    figures = {
        "master/uptime_secs": time.time() - master.started,
        "master/elected": 1.0,
        "master/slaves_active": float(_connected(master)),
        "master/slaves_connected": float(_connected(master)),
        "master/slaves_disconnected": float(len(master.agents) - _connected(master)),
        "master/slaves_unreachable": float(len(master.absent.unreachable)),
        "master/frameworks_active": float(connected),
        "master/frameworks_connected": float(connected),
        "master/frameworks_disconnected": float(len(frameworks) - connected),
        "master/outstanding_offers": float(sum(len(each.offers) for each in frameworks)),
    }
    whole = total(agent.place.resources for agent in master.agents.values())
    figures.update(usage("master", whole, used_by(frameworks)))
    states = [task.state for each in frameworks for task in each.tasks.values()]
    states += [task.state for each in frameworks for task in each.completed_tasks]
    states += [task.state for each in frameworks for task in each.unreachable_tasks.values()]
    for name in STATES:
        figures[f"master/tasks_{name.lower()}"] = float(states.count(f"TASK_{name}"))
    return {**figures, **system()}


def usage(prefix: str, whole: Resources, used: Resources) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in ("cpus", "mem", "disk", "gpus"):
        amount = whole.value(name)
        figures[f"{prefix}/{name}_total"] = amount
        figures[f"{prefix}/{name}_used"] = used.value(name)
        figures[f"{prefix}/{name}_percent"] = used.value(name) / amount if amount else 0.0
    return figures


def system() -> dict[str, float]:
    load = os.getloadavg()
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        "system/cpus_total": float(os.cpu_count() or 1),
        "system/load_1min": load[0],
        "system/load_5min": load[1],
        "system/load_15min": load[2],
        "system/mem_total_bytes": float(os.sysconf("SC_PHYS_PAGES") * page),
        "system/mem_free_bytes": float(os.sysconf("SC_AVPHYS_PAGES") * page),
    }
