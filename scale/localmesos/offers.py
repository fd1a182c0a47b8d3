"""The offers of the master: what the allocator grants, until it is answered or rescinded."""

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from scale.localmesos.allocator import Allocator, Grant, refuse_seconds
from scale.localmesos.framework import Framework, Offer
from scale.localmesos.remote import Remote


class OfferBook:
    """All outstanding offers; each stands with its framework."""

    def __init__(
        self,
        master_id: str,
        frameworks: Mapping[str, Framework],
        agents: Mapping[str, Remote],
        *,
        shortest_refusal_s: float,
        timeout_s: float,
    ) -> None:
        """Serve the master's own `frameworks` and `agents`; `timeout_s` 0 keeps offers for ever."""
        self.allocator = Allocator()
        self._master_id = master_id
        self._frameworks = frameworks
        self._agents = agents
        self._shortest_refusal_s = shortest_refusal_s
        self._timeout_s = timeout_s
        self._numbers = itertools.count()
        self._due = False
        self._filter_timer: asyncio.TimerHandle | None = None

    def request_allocation(self) -> None:
        """Allocate once, after everything that this turn of the loop changes."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._allocate)

    def _allocate(self) -> None:
        self._due = False
        now = asyncio.get_running_loop().time()
        offered: dict[str, list[Offer]] = {}
        for grant in self.allocator.allocate(now):
            offered.setdefault(grant.framework_id, []).append(self._new_offer(grant))
        for framework_id, offers in offered.items():
            framework = self._frameworks[framework_id]
            listed = [self._offer_json(framework, offer) for offer in offers]
            framework.send(b"OFFERS", b"offers", orjson.dumps({"offers": listed}))
        self._wait_for_filters(now)

    def _wait_for_filters(self, now: float) -> None:
        if self._filter_timer is not None:
            self._filter_timer.cancel()
            self._filter_timer = None
        due = self.allocator.next_expiry(now)
        if due is not None:
            loop = asyncio.get_running_loop()
            self._filter_timer = loop.call_at(due, self.request_allocation)

    def _new_offer(self, grant: Grant) -> Offer:
        offer = Offer(
            f"{self._master_id}-O{next(self._numbers)}",
            grant.framework_id,
            grant.agent_id,
            grant.role,
            grant.resources,
        )
        self._frameworks[grant.framework_id].offers[offer.offer_id] = offer
        if self._timeout_s > 0:
            loop = asyncio.get_running_loop()
            offer.timer = loop.call_later(self._timeout_s, self._rescind, offer)
        return offer

    def _offer_json(self, framework: Framework, offer: Offer) -> dict[str, Any]:
        place = self._agents[offer.agent_id].place
        multi_role = "MULTI_ROLE" in framework.capabilities
        listed: dict[str, Any] = {
            "id": {"value": offer.offer_id},
            "framework_id": {"value": framework.framework_id},
            "agent_id": {"value": offer.agent_id},
            "hostname": place.hostname,
            "url": {
                "scheme": "http",
                "address": {"hostname": place.hostname, "ip": place.ip, "port": place.port},
                "path": "/slave(1)",
            },
            "resources": offer.resources.as_json(offer.role if multi_role else None),
        }
        if multi_role:
            listed["allocation_info"] = {"role": offer.role}
        return listed

    def _rescind(self, offer: Offer) -> None:
        framework = self._frameworks.get(offer.framework_id)
        if framework is None or offer.offer_id not in framework.offers:
            return
        self.take(framework, offer)
        rescinded = orjson.dumps({"offer_id": {"value": offer.offer_id}})
        framework.send(b"RESCIND", b"rescind", rescinded)
        self.give_back(offer)

    def take(self, framework: Framework, offer: Offer) -> None:
        """Make an offer invalid; what becomes of its resources is the caller's business."""
        del framework.offers[offer.offer_id]
        if offer.timer is not None:
            offer.timer.cancel()

    def give_back(self, offer: Offer) -> None:
        """Make the resources of an offer that was taken free again."""
        self.allocator.give_back(offer.framework_id, offer.agent_id, offer.resources)
        self.request_allocation()

    def rescind_agent(self, agent_id: str) -> None:
        """Make all offers of an agent invalid, and say so."""
        for framework in self._frameworks.values():
            for offer in list(framework.offers.values()):
                if offer.agent_id == agent_id:
                    self._rescind(offer)

    def withdraw(self, framework: Framework) -> None:
        """Make all offers of a framework invalid without a word (it is not listening)."""
        for offer in list(framework.offers.values()):
            self.take(framework, offer)
            self.give_back(offer)

    def decline(
        self, framework: Framework, offer_ids: Iterable[str], asked_s: float | None
    ) -> None:
        for offer_id in offer_ids:
            offer = framework.offers.get(offer_id)
            if offer is not None:
                self.take(framework, offer)
                self.refuse(offer, asked_s)
                self.give_back(offer)

    def refuse(self, offer: Offer, asked_s: float | None) -> None:
        """Keep offers with no more than this one from its framework for a while."""
        now = asyncio.get_running_loop().time()
        until = now + refuse_seconds(asked_s, self._shortest_refusal_s)
        self.allocator.decline(
            offer.framework_id, offer.role, offer.agent_id, offer.resources, until
        )
