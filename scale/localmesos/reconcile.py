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

    An unknown task is GONE if its agent is here, UNKNOWN otherwise; LOST for frameworks that are
    not partition-aware. Agents live in this process, so none is ever still recovering.
    """
    task = framework.tasks.get(task_id)
    if task is not None:
        _latest(framework, task)
        return
    if agent_id is not None and agent_id in master.agents:
        state, message = "TASK_GONE", "Reconciliation: Task is unknown to the agent"
    else:
        state, message = "TASK_UNKNOWN", "Reconciliation: Task is unknown"
    if not framework.is_partition_aware:
        state = "TASK_LOST"
    framework.tell(status.from_master(task_id, agent_id, state, REASON, message))


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
