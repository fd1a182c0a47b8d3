"""Who is offered what: free resources, decline filters, suppressed roles; pure, time is passed in.

Allocation follows events, not a tick: whoever changes something here calls `allocate` afterwards.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from scale.localmesos.resources import Resources

DEFAULT_REFUSE_S: Final = 5.0
LONGEST_REFUSE_S: Final = 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Grant:
    """All free resources of one agent, for one role of one framework."""

    framework_id: str
    role: str
    agent_id: str
    resources: Resources


@dataclass(frozen=True, slots=True)
class Filter:
    """A declined offer: it hides offers that hold no more than `refused` until `expires`."""

    refused: Resources
    expires: float


@dataclass(slots=True)
class Pool:
    """One agent's resources; `free` plus everything handed out is `total`."""

    total: Resources
    free: Resources


@dataclass(slots=True)
class Client:
    """One framework as the allocator sees it."""

    roles: tuple[str, ...]
    gpus: bool = False
    active: bool = False
    suppressed: set[str] = field(default_factory=set)
    filters: dict[tuple[str, str], list[Filter]] = field(default_factory=dict)
    holds: Resources = field(default_factory=Resources)

    def is_filtered(self, role: str, agent_id: str, resources: Resources, now: float) -> bool:
        live = [f for f in self.filters.get((role, agent_id), ()) if f.expires > now]
        if live:
            self.filters[role, agent_id] = live
        else:
            self.filters.pop((role, agent_id), None)
        return any(f.refused.contains(resources) for f in live)


def refuse_seconds(asked: float | None, shortest: float) -> float:
    """Return how long a decline holds.

    Negative or not a number counts as the default of 5 s, more than a year as a year. 0 means "no
    filter" in Mesos, whose next batch comes after `--allocation_interval`; here, where nothing
    waits for a batch, it holds for that interval, so that a framework and we do not spin.
    """
    if asked is None or math.isnan(asked) or asked < 0:
        asked = DEFAULT_REFUSE_S
    return min(max(asked, shortest), LONGEST_REFUSE_S)


class Allocator:
    """Keeps what is free on every agent and gives it to those who want it, poorest first."""

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.clients: dict[str, Client] = {}

    def add_agent(self, agent_id: str, total: Resources) -> None:
        self.pools[agent_id] = Pool(total, total)

    def remove_agent(self, agent_id: str) -> None:
        """Offer nothing of an agent any more; what is handed out is to be given back before."""
        self.pools.pop(agent_id, None)

    def take(self, framework_id: str, agent_id: str, resources: Resources) -> None:
        """Mark `resources` as handed out: offered, or used by a recovered task."""
        pool = self.pools[agent_id]
        pool.free = pool.free - resources
        if client := self.clients.get(framework_id):
            client.holds = client.holds + resources

    def give_back(self, framework_id: str, agent_id: str, resources: Resources) -> None:
        if pool := self.pools.get(agent_id):
            pool.free = pool.free + resources
        if client := self.clients.get(framework_id):
            client.holds = client.holds - resources

    def decline(
        self, framework_id: str, role: str, agent_id: str, refused: Resources, until: float
    ) -> None:
        """Hide offers of this agent that hold no more than `refused`, for this role."""
        if client := self.clients.get(framework_id):
            client.filters.setdefault((role, agent_id), []).append(Filter(refused, until))

    def revive(self, framework_id: str, roles: Iterable[str]) -> None:
        client = self.clients[framework_id]
        wanted = set(roles) or set(client.roles)
        client.suppressed -= wanted
        for key in [key for key in client.filters if key[0] in wanted]:
            del client.filters[key]

    def suppress(self, framework_id: str, roles: Iterable[str]) -> None:
        client = self.clients[framework_id]
        client.suppressed |= (set(roles) or set(client.roles)) & set(client.roles)

    def allocate(self, now: float) -> list[Grant]:
        """Hand out every free resource that somebody wants; O(agents x frameworks x roles)."""
        grants: list[Grant] = []
        whole = Resources()
        for agent_id, pool in self.pools.items():
            if not pool.free.is_offerable():
                continue
            if len(self.clients) > 1 and not whole:
                for each in self.pools.values():
                    whole = whole + each.total
            for framework_id, role in self._by_share(whole):
                client = self.clients[framework_id]
                if pool.total.scalars.get("gpus") and not client.gpus:
                    continue
                if client.is_filtered(role, agent_id, pool.free, now):
                    continue
                grants.append(Grant(framework_id, role, agent_id, pool.free))
                self.take(framework_id, agent_id, pool.free)
                break
        return grants

    def _by_share(self, whole: Resources) -> Iterator[tuple[str, str]]:
        """Yield (framework, role) pairs that want offers, the smallest dominant share first."""
        wanting = [item for item in self.clients.items() if item[1].active]
        if len(wanting) > 1:
            of_role: dict[str, Resources] = {}
            for _, client in wanting:
                for role in client.roles:
                    of_role[role] = of_role.get(role, Resources()) + client.holds
            wanting.sort(
                key=lambda item: (
                    min((of_role[r].share_of(whole) for r in item[1].roles), default=0.0),
                    item[1].holds.share_of(whole),
                )
            )
        for framework_id, client in wanting:
            for role in client.roles:
                if role not in client.suppressed:
                    yield framework_id, role

    def next_expiry(self, now: float) -> float | None:
        """Return when the next filter ends, None if there is none."""
        return min(
            (
                each.expires
                for client in self.clients.values()
                if client.active
                for filters in client.filters.values()
                for each in filters
                if each.expires > now
            ),
            default=None,
        )
