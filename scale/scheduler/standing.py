"""How the framework stands with the master: subscribed, cut off, replaced or ended."""

import logging
from typing import Final

from scale.core.cluster import Deposed, Disconnected, FrameworkRemoved, NotSubscribed, Subscribed
from scale.core.errors import GatewayError, LeadershipLost
from scale.job.bulk import storable
from scale.scheduler.fleet import Fleet
from scale.scheduler.kills import Kills
from scale.scheduler.means import Means
from scale.scheduler.models import SchedulerState
from scale.scheduler.placing import Placing
from scale.scheduler.reconcile import Reconciler

logger = logging.getLogger(__name__)

_LONGEST_TROUBLE: Final = 500

StandingEvent = Subscribed | Disconnected | NotSubscribed | Deposed | FrameworkRemoved


class Standing:
    """Takes in each change of the connection; whatever was known by it before is void then."""

    def __init__(
        self, means: Means, fleet: Fleet, placing: Placing, kills: Kills, reconciler: Reconciler
    ) -> None:
        self._means = means
        self._fleet = fleet
        self._placing = placing
        self._kills = kills
        self._reconciler = reconciler
        self.connected = False

    def take(self, event: StandingEvent) -> None:
        """Act on one change.

        Raises:
            LeadershipLost: another scheduler has the framework, or the master has ended it.
        """
        match event:
            case Subscribed():
                self._subscribed(event)
            case Disconnected():
                self._disconnected()
            case NotSubscribed(reason):
                self._store(trouble=storable(reason)[:_LONGEST_TROUBLE])
            case Deposed(message):
                raise LeadershipLost(f"another scheduler took the framework: {message}")
            case FrameworkRemoved(message):
                self._store(framework_id="", is_connected=False)
                raise LeadershipLost(f"the master ended the framework and its tasks: {message}")

    def _subscribed(self, event: Subscribed) -> None:
        self._void()
        self._placing.begin(event.framework_id)
        self._store(
            framework_id=event.framework_id, master=event.master, is_connected=True, trouble=""
        )
        self.connected = True
        self._reconciler.begin(now_s=self._means.monotonic())
        try:
            self._fleet.muster()
        except GatewayError as error:
            self._means.failed("the agents are not known yet", error)
        logger.info("subscribed", extra={"framework": event.framework_id, "master": event.master})

    def _disconnected(self) -> None:
        if self.connected:
            logger.warning("the connection to the master ended")
        self.connected = False
        self._void()
        self._reconciler.pause()
        self._store(is_connected=False)

    def _void(self) -> None:
        self._means.book.clear()
        self._kills.forget()

    def _store(self, **fields: str | bool) -> None:
        def store() -> None:
            with self._means.leadership.fenced():
                SchedulerState.objects.update(**fields)

        self._means.stored(store)
