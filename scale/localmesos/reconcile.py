"""RECONCILE and KILL of unknown tasks: what the master answers (src/master/master.cpp:8966)."""

from collections.abc import Iterable, Mapping
from typing import Any

from scale.localmesos import status
from scale.localmesos.framework import Framework
from scale.localmesos.master import Master
from scale.localmesos.tasks import Task

REASON = "REASON_RECONCILIATION"


def reconcile(master: Master, framework: Framework, tasks: Iterable[Mapping[str, Any]]) -> None:
    """Answer for each task named, or, if none is, for every task that is known."""
    named = list(tasks)
    for task in [] if named else list(framework.tasks.values()):
        _latest(framework, task)
    for each in named:
        answer(master, framework, each["task_id"]["value"], each.get("agent_id", {}).get("value"))


def answer(master: Master, framework: Framework, task_id: str, agent_id: str | None) -> None:
    """Tell the state of one task, known or not.

    Nothing is said of a task whose agent may still come back after a restart of the master. Else
    an unknown task is what its agent is: GONE if that is here, UNREACHABLE, GONE_BY_OPERATOR, or
    UNKNOWN; LOST for frameworks that are not partition-aware.
    """
    task = framework.tasks.get(task_id)
    if task is not None:
        _latest(framework, task)
        return
    recovered = master.absent.recovered
    if agent_id in recovered or (agent_id is None and recovered):
        return
    state, message, more = _unknown(master, agent_id)
    if not framework.is_partition_aware:
        state = "TASK_LOST"
    told = status.from_master(task_id, agent_id, state, REASON, message)
    framework.tell({**told, **more})


def _unknown(master: Master, agent_id: str | None) -> tuple[str, str, dict[str, Any]]:
    absent = master.absent
    if agent_id is None:
        return "TASK_UNKNOWN", "Reconciliation: Task is unknown", {}
    if agent_id in master.agents:
        return "TASK_GONE", "Reconciliation: Task is unknown to the agent", {}
    if agent_id in absent.unreachable:
        since = status.unreachable_since(absent.unreachable[agent_id])
        more = {"unreachable_time": since}
        return "TASK_UNREACHABLE", "Reconciliation: Task is unreachable", more
    if agent_id in absent.gone:
        return "TASK_GONE_BY_OPERATOR", "Reconciliation: Task is gone by operator", {}
    return "TASK_UNKNOWN", "Reconciliation: Task is unknown", {}


def _latest(framework: Framework, task: Task) -> None:
    told = status.from_master(
        task.task_id,
        task.launch.agent_id,
        task.state,
        REASON,
        "Reconciliation: Latest task state",
    )
    if task.container is not None:
        told["container_status"] = task.container
    framework.tell(told)
