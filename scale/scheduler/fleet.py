"""The machines of the cluster as nodes: who is there, who left, who is new."""

import logging
from collections.abc import Collection, Mapping
from datetime import timedelta

from django.conf import settings

from scale.core.cluster import Agent, TaskRef
from scale.core.errors import GatewayError
from scale.node.models import Node
from scale.node.registry import mark_offline, register_agents
from scale.scheduler.means import Means
from scale.scheduler.stops import (
    leave_agent,
    leave_former_agents,
    return_agents,
    tasks_out_of_reach,
)

logger = logging.getLogger(__name__)


class Fleet:
    """Knows the nodes of the agents that are there."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._node_ids: dict[str, int] = {}
        self._back: set[str] = set()
        self._returned: set[str] = set()

    @property
    def node_ids(self) -> Mapping[str, int]:
        """Agent id -> primary key of its node."""
        return self._node_ids

    def remember(self) -> None:
        """Begin with the nodes that were there when the last scheduler looked; one query."""
        online = Node.objects.filter(is_online=True).values_list("slave_id", "pk")
        self._node_ids = self._means.stored(lambda: dict(online.all()))

    def muster(self) -> None:
        """Take in who is there according to the master, and who is not.

        Raises GatewayError when the master does not tell; nothing is changed then.
        """
        agents = self._listed()
        self._miss(self._node_ids.keys() - {agent.agent_id for agent in agents})
        self._register(agents)

    def lost(self, agent_id: str) -> None:
        means = self._means
        means.book.drop_agent(agent_id)
        self._miss([agent_id])
        now = means.now()
        until = now + _grace()
        means.stored(lambda: leave_agent(agent_id, means.leadership, grace_until=until, now=now))
        logger.warning("an agent left", extra={"agent": agent_id})

    def heard_of(self, agent_ids: Collection[str]) -> None:
        """Note that tasks of these agents live: one may be back, and too full to offer anything."""
        self._returned |= set(agent_ids) - self._node_ids.keys()

    def know_strangers(self) -> None:
        """Make nodes of agents that are not known and offer something, or have come back.

        The master's list tells their sizes, too; without it, what they offer is enough to start.
        """
        strangers = self._strangers()
        if not strangers and not self._returned:
            return
        self._back |= self._returned | {agent.agent_id for agent in strangers}
        try:
            self._register(self._listed())
            self._returned.clear()
        except GatewayError as error:
            self._means.failed("the agents could not be listed", error)
        self._register(self._strangers())

    def missing(self) -> list[TaskRef]:
        """Return the tasks of which machines that came back said nothing so far; asked for once.

        The cluster reports what an agent brings back, not what never reached it, and nothing of
        the agent that a machine had before.
        """
        back, self._back = self._back, set()
        return self._means.stored(lambda: tasks_out_of_reach(back)) if back else []

    def _listed(self) -> list[Agent]:
        self._means.beat()
        return self._means.gateway.agents()

    def _strangers(self) -> list[Agent]:
        return [
            Agent(offer.agent_id, offer.hostname, offer.address, offer.port)
            for offer in self._means.book.offers()
            if offer.agent_id not in self._node_ids
        ]

    def _register(self, agents: list[Agent]) -> None:
        if not agents:
            return
        now = self._means.now()
        there = self._node_ids.keys() | {agent.agent_id for agent in agents}

        def store() -> list[Node]:
            with self._means.leadership.fenced():
                return_agents([agent.agent_id for agent in agents], now=now)
                nodes = register_agents(agents, at=now)
                leave_former_agents(nodes, there, grace_until=now + _grace(), now=now)
                return nodes

        node_of = {node.hostname: node.pk for node in self._means.stored(store)}
        self._node_ids |= {agent.agent_id: node_of[agent.hostname] for agent in agents}

    def _miss(self, agent_ids: Collection[str]) -> None:
        """Note that these agents are not there; their next offers make them known again.

        What runs on them is told of by updates: a new master may not know its agents yet.
        """

        def store() -> None:
            with self._means.leadership.fenced():
                mark_offline(agent_ids)

        if agent_ids:
            self._means.stored(store)
        for agent_id in list(agent_ids):
            self._node_ids.pop(agent_id, None)


def _grace() -> timedelta:
    return timedelta(seconds=settings.SCALE_UNREACHABLE_GRACE_S)
