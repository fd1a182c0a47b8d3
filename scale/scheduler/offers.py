"""The offers that the scheduler holds; memory only, void after every disconnection."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from scale.core.cluster import Offer


@dataclass(slots=True)
class OfferBook:
    """Offers by id with the time of their arrival, in seconds of a monotonic clock."""

    _held: dict[str, tuple[Offer, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._held)

    def add(self, offers: Iterable[Offer], *, now_s: float) -> None:
        for offer in offers:
            self._held[offer.offer_id] = offer, now_s

    def drop(self, offer_ids: Iterable[str]) -> None:
        """Forget offers that were used, given back or rescinded; unknown ids are fine."""
        for offer_id in offer_ids:
            self._held.pop(offer_id, None)

    def drop_agent(self, agent_id: str) -> None:
        self.drop([offer.offer_id for offer in self.offers() if offer.agent_id == agent_id])

    def clear(self) -> None:
        self._held.clear()

    def offers(self) -> tuple[Offer, ...]:
        return tuple(offer for offer, _arrived in self._held.values())

    def older_than(self, age_s: float, *, now_s: float) -> list[str]:
        """Return the ids of offers that were held for at least this long."""
        return [
            offer_id for offer_id, (_, arrived) in self._held.items() if now_s - arrived >= age_s
        ]

    def oldest_s(self) -> float | None:
        """Return when the oldest offer arrived; None without offers."""
        return min((arrived for _, arrived in self._held.values()), default=None)
