"""What the parts of the scheduler's loop work with, and what they tell it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from scale.core.errors import GatewayError
from scale.scheduler.figures import Figures
from scale.scheduler.gateway import Gateway
from scale.scheduler.leader import Leadership
from scale.scheduler.offers import OfferBook
from scale.scheduler.patience import Patience

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class Means:
    """One for a loop and all of its parts.

    `now` and `monotonic` are the clocks: wall time for rows, the other for waiting. `again` asks
    for a round at once, `call_failed` for a short rest before the next; each round begins with
    neither.
    """

    gateway: Gateway
    leadership: Leadership
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    book: OfferBook
    patience: Patience
    figures: Figures
    again: bool = False
    call_failed: bool = False

    def count(self, what: str, how_many: int) -> None:
        """Count for whoever looks at the scheduler; see `figures.COUNTED`."""
        self.figures.count(what, how_many, now_s=self.monotonic())

    def stored(self, work: Callable[[], T]) -> T:
        """Do whole transactions, again if that may help; see `Patience.repeat`."""
        return self.patience.repeat(work)

    def failed(self, what: str, error: GatewayError) -> None:
        """Note that the cluster did not take a call; whether it heard is unknown."""
        self.call_failed = True
        logger.warning(what, extra={"reason": str(error)})
