"""Machines become nodes when the cluster first shows them."""

import logging
from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from scale.core.cluster import Agent
from scale.core.resources import Resources
from scale.node.models import Node

logger = logging.getLogger(__name__)


@transaction.atomic
def register_agents(agents: Iterable[Agent], *, at: datetime) -> list[Node]:
    """Store machines as online nodes; a machine is known by its hostname, else by its agent id.

    One query, and one write for each agent. An operator's pause stays.
    """
    wanted: dict[str, Agent] = {}
    for agent in agents:
        _warn_of_twins(wanted.get(agent.hostname), agent)
        wanted[agent.hostname] = agent
    known = {
        node.hostname: node
        for node in Node.objects.select_for_update()
        .filter(
            Q(hostname__in=wanted) | Q(slave_id__in=[agent.agent_id for agent in wanted.values()])
        )
        .order_by("id")
    }
    by_agent = {node.slave_id: node for node in known.values() if node.hostname not in wanted}
    nodes = []
    for hostname, agent in sorted(wanted.items()):
        node = known.get(hostname) or by_agent.get(agent.agent_id) or Node(slave_id="")
        nodes.append((node, agent))
    _free_ids(known.values(), nodes)
    for node, agent in nodes:
        node.hostname, node.slave_id = agent.hostname, agent.agent_id
        node.address, node.port = agent.address, agent.port
        node.is_online, node.last_offer = True, at
        if agent.total != Resources():
            node.millicpus_total = agent.total.millicpus
            node.mem_mib_total = agent.total.mem_mib
            node.disk_mib_total = agent.total.disk_mib
        node.save()
    return [node for node, _agent in nodes]


def _warn_of_twins(first: Agent | None, second: Agent) -> None:
    """Two machines with one name are one node here: its size and address are the last one's."""
    if first and first.agent_id != second.agent_id:
        facts = {"hostname": first.hostname, "agents": [first.agent_id, second.agent_id]}
        logger.warning("two agents have the same hostname; give each its own", extra=facts)


def _free_ids(known: Iterable[Node], wanted: Iterable[tuple[Node, Agent]]) -> None:
    """Take agent ids from nodes that are not theirs any more; an id is one node's at a time."""
    owners = {agent.agent_id: node for node, agent in wanted}
    for node in known:
        if owners.get(node.slave_id, node) is not node:
            node.slave_id = f"former-{node.pk}"
            node.is_online = False
            node.save(update_fields=["slave_id", "is_online"])


def mark_offline(agent_ids: Iterable[str]) -> None:
    """Note that these machines left the cluster; they may come back."""
    Node.objects.filter(slave_id__in=list(agent_ids), is_online=True).update(is_online=False)
