"""A node on which everything fails is set aside; a small task tells when it works again."""

import logging
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db.models import Q, QuerySet

from scale.core.cluster import ALIVE, Offer, TaskRef, TaskSpec, TaskState, TaskUpdate
from scale.core.resources import Resources
from scale.node.models import Node
from scale.scheduler.signs import Sign

logger = logging.getLogger(__name__)

#: So many different jobs must fail in a row.
PATIENCE: Final = 5
EVERY_S: Final = 60.0
#: A probe that has not ended by then is killed.
TIMEOUT_S: Final = 60.0
NEEDS: Final = Resources(millicpus=100, mem_mib=32)
_PREFIX: Final = "probe"

_WITH_PROBE: Final = ~Q(probe_task_id="")


def note_nodes(signs: Iterable[tuple[int, int, Sign, str | None]], *, now: datetime) -> None:
    """Store what was seen of nodes (id, job id, sign, error), in this order.

    One query and one for each node that changed; none without signs.
    """
    signs = list(signs)
    if not signs:
        return
    rows = Node.objects.only("hostname", "failed_jobs", "is_paused", "is_paused_errors")
    nodes = rows.in_bulk({pk for pk, *_ in signs})
    for pk in sorted(nodes):
        node = nodes[pk]
        if node.is_paused_errors:
            continue  # only a probe or an operator brings it back
        before = list(node.failed_jobs)
        error = _count(node, [each[1:] for each in signs if each[0] == pk])
        if error:
            _set_aside(node, error, now)
        elif node.failed_jobs != before:
            Node.objects.filter(pk=pk).update(failed_jobs=node.failed_jobs)


def _count(node: Node, signs: Iterable[tuple[int, Sign, str | None]]) -> str | None:
    """Bring the failed jobs up to date in memory; return the error that was one too many."""
    if len(node.failed_jobs) >= PATIENCE:
        node.failed_jobs = []  # an operator has let it go on
    for job_id, sign, error in signs:
        if sign is Sign.WORKS:
            node.failed_jobs = []
        elif job_id not in node.failed_jobs:
            node.failed_jobs = [*node.failed_jobs, job_id]
            if len(node.failed_jobs) >= PATIENCE:
                return error
    return None


def _set_aside(node: Node, error: str, now: datetime) -> None:
    reason = f"{PATIENCE} jobs in a row failed here, the last with {error}"
    fields = {} if node.is_paused else {"pause_reason": reason}
    Node.objects.filter(pk=node.pk).update(
        failed_jobs=node.failed_jobs,
        is_paused_errors=True,
        probe_task_id="",
        probe_at=now + timedelta(seconds=EVERY_S),
        **fields,
    )
    logger.error("a node is set aside", extra={"node": node.hostname, "reason": reason})


def probes_wait(*, now: datetime) -> bool:
    """Return whether a node is due for a probe; one query."""
    return _due(now).exists()


def _due(now: datetime) -> QuerySet[Node]:
    return Node.objects.filter(
        is_paused_errors=True,
        is_online=True,
        is_active=True,
        probe_task_id="",
        probe_at__lte=now,
    )


def start_probes(offers: Sequence[Offer], *, now: datetime) -> tuple[dict[str, TaskSpec], bool]:
    """Start a probe on each due node with an offer that it fits; offer id -> task.

    The second is whether a due node had none. One query, and a write for each probe.
    """
    due = {node.slave_id: node for node in _due(now).only("slave_id")}
    started = {}
    for offer in offers:
        if offer.agent_id in due and NEEDS.fits_in(offer.free):
            node = due.pop(offer.agent_id)
            task_id = f"{_PREFIX}.{uuid4()}"
            late = now + timedelta(seconds=TIMEOUT_S)
            Node.objects.filter(pk=node.pk).update(probe_task_id=task_id, probe_at=late)
            started[offer.offer_id] = TaskSpec(task_id, offer.agent_id, "probe", "true", NEEDS)
    return started, bool(due)


def is_probe(task_id: str) -> bool:
    """Return whether a task may be one of `start_probes`; the cluster may tell of anything."""
    prefix, _, number = task_id.partition(".")
    try:
        return prefix == _PREFIX and str(UUID(number)) == number
    except ValueError:
        return False


def note_probes(updates: Collection[TaskUpdate], *, now: datetime) -> set[str]:
    """Bring back nodes whose probes ended well; return probes that nobody waits for."""
    strays = set()
    for update in updates:
        node = Node.objects.filter(probe_task_id=update.task_id).first()
        if update.state in ALIVE:
            if node is None:
                strays.add(update.task_id)
        elif node and update.state is TaskState.FINISHED:
            _bring_back(node)
        elif node and update.state is not TaskState.UNREACHABLE:
            _later([node.pk], now)
    return strays


def _bring_back(node: Node) -> None:
    node.failed_jobs, node.is_paused_errors = [], False
    node.probe_task_id, node.probe_at = "", None
    if not node.is_paused:
        node.pause_reason = None
    node.save(
        update_fields=[
            "failed_jobs",
            "is_paused_errors",
            "probe_task_id",
            "probe_at",
            "pause_reason",
            "last_modified",
        ]
    )
    logger.warning("a node works again", extra={"node": node.hostname})


def _later(node_ids: Iterable[int], now: datetime) -> None:
    again = now + timedelta(seconds=EVERY_S)
    Node.objects.filter(pk__in=list(node_ids)).update(probe_task_id="", probe_at=again)


def give_up_late_probes(*, now: datetime) -> list[TaskRef]:
    """Forget probes that took too long; return them, to be killed. Two queries at most."""
    late = list(Node.objects.filter(_WITH_PROBE, probe_at__lte=now))
    if late:
        _later([node.pk for node in late], now)
    return [TaskRef(node.probe_task_id, node.slave_id) for node in late]


def live_probes() -> list[TaskRef]:
    pairs = Node.objects.filter(_WITH_PROBE).values_list("probe_task_id", "slave_id")
    return [TaskRef(*pair) for pair in pairs]
