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
from scale.scheduler.stops import leave_agent, return_agents, tasks_out_of_reach

logger = logging.getLogger(__name__)


class Fleet:
    """Knows the nodes of the agents that are there."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._node_ids: dict[str, int] = {}
        self._back: set[str] = set()

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
        agents = self._means.gateway.agents()
        self._register(agents)
        self._miss(self._node_ids.keys() - {agent.agent_id for agent in agents})

    def lost(self, agent_id: str) -> None:
        means = self._means
        means.book.drop_agent(agent_id)
        self._miss([agent_id])
        now = means.now()
        grace = timedelta(seconds=settings.SCALE_UNREACHABLE_GRACE_S)
        means.stored(
            lambda: leave_agent(agent_id, means.leadership, grace_until=now + grace, now=now)
        )
        logger.warning("an agent left", extra={"agent": agent_id})

    def know_strangers(self) -> None:
        """Make nodes of agents that offer something and are not known.

        The master's list tells their sizes, too; without it, what they offer is enough to start.
        """
        strangers = self._strangers()
        if not strangers:
            return
        self._back |= {agent.agent_id for agent in strangers}
        try:
            self._register(self._means.gateway.agents())
        except GatewayError as error:
            self._means.failed("the agents could not be listed", error)
        self._register(self._strangers())

    def missing(self) -> list[TaskRef]:
        """Return the tasks of which agents that came back said nothing so far; asked for once.

        The cluster reports what an agent brings back, not what never reached it.
        """
        back, self._back = self._back, set()
        return self._means.stored(lambda: tasks_out_of_reach(back)) if back else []

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

        def store() -> list[Node]:
            with self._means.leadership.fenced():
                return_agents([agent.agent_id for agent in agents], now=now)
                return register_agents(agents, at=now)

        nodes = self._means.stored(store)
        self._node_ids |= {node.slave_id: node.pk for node in nodes}

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
