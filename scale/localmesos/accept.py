"""ACCEPT: which offers it uses, which of its tasks may start, and what is said of the others."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scale.localmesos import status
from scale.localmesos.framework import Framework, Offer
from scale.localmesos.master import Master
from scale.localmesos.resources import Resources, total
from scale.localmesos.tasks import Launch, Task
from scale.localmesos.validation import TaskRefused, checked_resources


def accept(master: Master, framework: Framework, call: Mapping[str, Any]) -> None:
    """Carry out an ACCEPT; whatever is wrong with it is told by updates (contract 1.4)."""
    offer_ids = [each["value"] for each in call.get("offer_ids", ())]
    operations = call.get("operations", ())
    problem = _offers_problem(framework, offer_ids)
    offers = [
        framework.offers[each] for each in dict.fromkeys(offer_ids) if each in framework.offers
    ]
    for offer in offers:
        master.offers.take(framework, offer)
    if problem is not None:
        for offer in offers:
            master.offers.give_back(offer)
        _drop(framework, operations, problem)
        return
    whole = total(offer.resources for offer in offers)
    left = _launch_all(master, framework, offers[0], whole, operations)
    if left:
        first = offers[0]
        rest = Offer("", first.framework_id, first.agent_id, first.role, left)
        master.offers.refuse(rest, call.get("filters", {}).get("refuse_seconds"))
        master.offers.give_back(rest)


def _offers_problem(framework: Framework, offer_ids: Sequence[str]) -> str | None:
    if not offer_ids:
        return "No offers specified"
    for index, offer_id in enumerate(offer_ids):
        if offer_id not in framework.offers:
            return f"Offer {offer_id} is no longer valid"
        if offer_id in offer_ids[:index]:
            return f"Duplicate offer {offer_id} in offer list"
    offers = [framework.offers[offer_id] for offer_id in offer_ids]
    if len({offer.agent_id for offer in offers}) > 1:
        return "Aggregated offers must belong to one single agent"
    if len({offer.role for offer in offers}) > 1:
        return "Aggregated offers must be allocated to the same role"
    return None


def _tasks_of(operation: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    kind = operation.get("type")
    if kind == "LAUNCH":
        return list(operation.get("launch", {}).get("task_infos", ()))
    if kind == "LAUNCH_GROUP":
        return list(operation.get("launch_group", {}).get("task_group", {}).get("tasks", ()))
    return []


def _drop(framework: Framework, operations: Iterable[Mapping[str, Any]], problem: str) -> None:
    state = "TASK_DROPPED" if framework.is_partition_aware else "TASK_LOST"
    message = f"Task launched with invalid offers: {problem}"
    for operation in operations:
        for info in _tasks_of(operation):
            _tell(framework, info, state, "REASON_INVALID_OFFERS", message)


def _tell(
    framework: Framework, info: Mapping[str, Any], state: str, reason: str, message: str
) -> None:
    task_id, agent_id = info["task_id"]["value"], info["agent_id"]["value"]
    framework.tell(status.from_master(task_id, agent_id, state, reason, message))


def _launch_all(
    master: Master,
    framework: Framework,
    offer: Offer,
    left: Resources,
    operations: Iterable[Mapping[str, Any]],
) -> Resources:
    """Launch what may be launched; return what is left of `left`.

    Reservations, volumes and disks are not supported and dropped without a word, as Mesos drops
    invalid ones that carry no id.
    """
    for operation in operations:
        for info in _tasks_of(operation):
            if operation["type"] == "LAUNCH_GROUP":
                message = "Task groups are not supported by local Mesos"
                _tell(framework, info, "TASK_ERROR", "REASON_TASK_GROUP_INVALID", message)
                continue
            try:
                left = _launch(master, framework, offer, left, info)
            except TaskRefused as error:
                _tell(framework, info, "TASK_ERROR", "REASON_TASK_INVALID", str(error))
    return left


def _launch(
    master: Master, framework: Framework, offer: Offer, left: Resources, info: Mapping[str, Any]
) -> Resources:
    task_id = info["task_id"]["value"]
    if task_id in framework.tasks or task_id in framework.unreachable_tasks:
        raise TaskRefused(f"Task has duplicate ID: {task_id}")
    wanted = checked_resources(info, offer.agent_id, offer.role, left)
    launch = Launch(
        framework.framework_id,
        offer.agent_id,
        info,
        offer.role,
        framework.info["user"],
        bool(framework.info.get("checkpoint")),
        "TASK_KILLING_STATE" in framework.capabilities,
        wanted,
    )
    framework.tasks[task_id] = Task(launch)
    master.agents[offer.agent_id].launch(launch, framework)
    return left - wanted
