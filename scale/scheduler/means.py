"""What the parts of the scheduler's loop work with, and what they tell it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from scale.core.errors import GatewayError
from scale.core.resources import Resources
from scale.scheduler.figures import Figures
from scale.scheduler.gateway import Gateway
from scale.scheduler.leader import Leadership
from scale.scheduler.models import SchedulerState
from scale.scheduler.offers import OfferBook
from scale.scheduler.overview import used
from scale.scheduler.patience import Patience

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The leader shows a sign of life this often.
HEARTBEAT_S: Final = 5.0


@dataclass(slots=True)
class Means:
    """One for a loop and all of its parts.

    `now` and `monotonic` are the clocks: wall time for rows, the other for waiting. `again` asks
    for a round at once, `call_failed` for a short rest before the next; each round begins with
    neither. `next_beat_s` is when a sign of life is due, on the monotonic clock.
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
    next_beat_s: float = float("-inf")

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

    def beat(self) -> None:
        """Show a sign of life if one is due: between any two things that may take long.

        A call that hangs takes half of the lease, two would take all of it.
        """
        if self.monotonic() >= self.next_beat_s:
            self.stored(self._show_life)
            self.next_beat_s = self.monotonic() + HEARTBEAT_S

    def _show_life(self) -> None:
        offered = sum((offer.free for offer in self.book.offers()), Resources())
        with self.leadership.fenced():
            figures = self.figures.document(offered=offered, used=used(), now_s=self.monotonic())
            SchedulerState.objects.update(heartbeat=self.now(), figures=figures)
