"""Machines become nodes when the cluster first shows them."""

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from scale.core.cluster import Agent
from scale.core.resources import Resources
from scale.node.models import Node


@transaction.atomic
def register_agents(agents: Iterable[Agent], *, at: datetime) -> list[Node]:
    """Store machines as online nodes; a machine is known by its hostname, else by its agent id.

    Two queries and one write for each agent that is new or changed. An operator's pause stays.
    """
    wanted = {agent.hostname: agent for agent in agents}
    known = {
        node.hostname: node
        for node in Node.objects.select_for_update()
        .filter(
            Q(hostname__in=wanted) | Q(slave_id__in=[agent.agent_id for agent in wanted.values()])
        )
        .order_by("id")
    }
    by_agent = {node.slave_id: node for node in known.values()}
    nodes = []
    for hostname, agent in sorted(wanted.items()):
        node = known.get(hostname) or by_agent.get(agent.agent_id) or Node()
        node.hostname, node.slave_id = hostname, agent.agent_id
        node.address, node.port = agent.address, agent.port
        node.is_online, node.last_offer = True, at
        if agent.total != Resources():
            node.millicpus_total = agent.total.millicpus
            node.mem_mib_total = agent.total.mem_mib
            node.disk_mib_total = agent.total.disk_mib
        node.save()
        nodes.append(node)
    return nodes


def mark_offline(agent_ids: Iterable[str]) -> None:
    """Note that these machines left the cluster; they may come back."""
    Node.objects.filter(slave_id__in=list(agent_ids), is_online=True).update(is_online=False)
