"""What an agent's /state, /containers and the like show; read-only, made on request."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Final

from scale.localmesos import tree, views
from scale.localmesos.agent import Agent
from scale.localmesos.resources import WHOLE, Resources, total
from scale.localmesos.run import MEM_ALLOWANCE, Phase, Run, executor_name
from scale.localmesos.validation import roles_of
from scale.localmesos.views import AGENT_CAPABILITIES, STATES, VERSION_INFO, View

# What the agent adds to a container for its executor (contract 6.1).
ALLOWANCE: Final = Resources({"cpus": 100, "mem": (MEM_ALLOWANCE >> 20) * WHOLE})


def _held(run: Run) -> Resources:
    """Return what an executor holds: its own, and its task's until that has ended."""
    return ALLOWANCE if run.phase is Phase.ENDED else ALLOWANCE + run.launch.resources


def executor_view(run: Run) -> View:
    launch = run.launch
    state = {Phase.PREPARING: "TASK_STAGING", Phase.RUNNING: "TASK_RUNNING"}
    known = run.end_state or state.get(run.phase, "TASK_RUNNING")
    kind = {Phase.PREPARING: "queued_tasks", Phase.ENDED: "completed_tasks"}
    lists: View = {"tasks": [], "queued_tasks": [], "completed_tasks": []}
    lists[kind.get(run.phase, "tasks")] = [views.task_view(launch, known, run.statuses)]
    labels = views.labels_of(launch.info)
    return {
        "id": launch.task_id,
        "name": executor_name(run),
        "source": launch.task_id,
        "container": run.container_id,
        "directory": run.directory,
        "resources": _held(run).summary(),
        "role": launch.role,
        **({"labels": labels} if labels else {}),
        **lists,
    }


def agent_state(agent: Agent) -> View:
    place = agent.place
    live = {run.launch.framework_id for run in agent.runs.values()} | set(agent.history)
    shown = {each: _framework_of_agent(agent, each) for each in sorted(live)}
    return {
        **VERSION_INFO,
        "start_time": agent.started,
        "id": place.agent_id,
        "pid": f"slave(1)@{place.address}",
        "hostname": place.hostname,
        "capabilities": AGENT_CAPABILITIES,
        "resources": place.resources.summary(),
        "reserved_resources": {},
        "unreserved_resources": place.resources.summary(),
        "reserved_resources_full": {},
        "unreserved_resources_full": place.resources.as_json(),
        "reserved_resources_allocated": {},
        "unreserved_resources_allocated": total(map(_held, agent.runs.values())).summary(),
        "resource_providers": [],
        "attributes": {},
        "master_hostname": agent.master_hostname,
        "flags": {"switch_user": "true" if os.geteuid() == 0 else "false"},
        "frameworks": [view for each, view in shown.items() if each in agent.frameworks],
        "completed_frameworks": [
            view for each, view in shown.items() if each not in agent.frameworks
        ],
    }


def _framework_of_agent(agent: Agent, framework_id: str) -> View:
    history = agent.history.get(framework_id)
    info = agent.frameworks.get(framework_id) or (history.info if history else {})
    return {
        "id": framework_id,
        "name": info.get("name", ""),
        "user": info.get("user", ""),
        "failover_timeout": info.get("failover_timeout", 0.0),
        "checkpoint": bool(info.get("checkpoint")),
        "hostname": info.get("hostname", ""),
        **({"principal": info["principal"]} if "principal" in info else {}),
        "roles": list(roles_of(info)) if info else [],
        "executors": [
            executor_view(run)
            for run in agent.runs.values()
            if run.launch.framework_id == framework_id
        ],
        "completed_executors": [executor_view(run) for run in history.completed] if history else [],
    }


def statistics(run: Run, pids: Iterable[int]) -> View:
    """Return ResourceStatistics; figures of /proc, taken now."""
    listed, asked = list(pids), run.launch.resources
    user, system = tree.cpu_seconds(listed)
    view: View = {
        "timestamp": time.time(),
        "cpus_user_time_secs": user,
        "cpus_system_time_secs": system,
        "cpus_soft_limit": (asked + ALLOWANCE).value("cpus"),
        "mem_rss_bytes": tree.resident(listed),
    }
    if run.mem_asked:
        view["mem_limit_bytes"] = run.mem_asked + MEM_ALLOWANCE
        view["mem_soft_limit_bytes"] = int(asked.value("mem") * (1 << 20)) + MEM_ALLOWANCE
    return view


def _with_processes(agent: Agent) -> list[Run]:
    return [run for run in agent.runs.values() if run.pid is not None]


def _monitored(agent: Agent, run: Run) -> View:
    return {
        "executor_id": run.launch.task_id,
        "executor_name": executor_name(run),
        "framework_id": run.launch.framework_id,
        "source": run.launch.task_id,
        "statistics": statistics(run, agent.members(run)),
    }


def monitor_view(agent: Agent) -> list[View]:
    return [_monitored(agent, run) for run in _with_processes(agent)]


def _status(run: Run) -> View:
    return {"container_id": {"value": run.container_id}, "executor_pid": run.pid}


def containers_view(agent: Agent, asked: Mapping[str, str]) -> list[View]:
    """Return /containers: those that `asked` names by some of their ids, else all."""
    return [
        {**_monitored(agent, run), "container_id": run.container_id, "status": _status(run)}
        for run in _with_processes(agent)
        if asked.get("container_id", run.container_id) == run.container_id
        and asked.get("framework_id", run.launch.framework_id) == run.launch.framework_id
        and asked.get("executor_id", run.launch.task_id) == run.launch.task_id
    ]


def v1_containers(agent: Agent) -> View:
    """Return what fills GET_CONTAINERS: other names than /containers has, and ids as messages."""
    listed = [
        {
            "framework_id": {"value": run.launch.framework_id},
            "executor_id": {"value": run.launch.task_id},
            "executor_name": executor_name(run),
            "container_id": {"value": run.container_id},
            "container_status": _status(run),
            "resource_statistics": statistics(run, agent.members(run)),
        }
        for run in _with_processes(agent)
    ]
    return {"containers": listed} if listed else {}


def agent_metrics(agent: Agent) -> dict[str, float]:
    runs = list(agent.runs.values())
    used = total(run.launch.resources for run in runs)
    running = sum(run.phase is Phase.RUNNING for run in runs)
    return {
        "slave/uptime_secs": time.time() - agent.started,
        "slave/registered": 1.0,
        "slave/executors_running": float(running),
        "slave/tasks_running": float(running),
        "slave/tasks_staging": float(sum(run.phase is Phase.PREPARING for run in runs)),
        **{f"slave/tasks_{n.lower()}": float(agent.end_counts[f"TASK_{n}"]) for n in STATES[4:7]},
        **views.usage("slave", agent.place.resources, used),
        **views.system(),
    }
