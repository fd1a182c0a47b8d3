"""When to plan, what to launch then, and which offers to ask for or to give back."""

import logging
from collections.abc import Mapping
from typing import Final

from django.conf import settings

from scale.core.cluster import TaskSpec
from scale.core.errors import GatewayError
from scale.core.resources import Resources
from scale.failpoints import fail_point
from scale.scheduler.fleet import Fleet
from scale.scheduler.launch import Decided, decide
from scale.scheduler.means import Means
from scale.scheduler.reconcile import Reconciler
from scale.scheduler.snapshot import Turn, something_waits

logger = logging.getLogger(__name__)

#: Waiting work asks for offers again after this time, in case a hint was missed.
REVIVE_AGAIN_S: Final = 30.0


class Placing:
    """Brings waiting work onto offers. `wanted` says that something may start that could not."""

    def __init__(self, means: Means, fleet: Fleet, reconciler: Reconciler) -> None:
        self._means = means
        self._fleet = fleet
        self._reconciler = reconciler
        self._framework_id = ""
        # Needs -> agent id that is kept for them, as the last plan says.
        self.reserved: Mapping[Resources, str] = {}
        self._turn = Turn()
        self._revived_s = 0.0
        # Offers of an ACCEPT that Mesos may still hear, however late.
        self._doubtful: list[str] = []
        # Declined since the last revive, so that Mesos may be keeping offers back.
        self._declined = False
        self.wanted = True
        # Work was left over, and offers came since.
        self._waits = False
        self.offers_new = False

    def begin(self, framework_id: str) -> None:
        """Start anew at a new subscription: Mesos has forgotten what was declined."""
        self._framework_id = framework_id
        self._doubtful = []
        self._declined, self.wanted = False, True

    def place(self) -> None:
        """Launch what fits the offers, or ask for more; raises GatewayError."""
        wanted, self.wanted = self.wanted, False
        offers_new, self.offers_new = self.offers_new, False
        if len(self._means.book) and (wanted or (self._waits and offers_new)):
            self._decide()
        elif wanted:
            self._waits = self._means.stored(
                lambda: something_waits(now=self._means.now())
            )  # the next offers will tell more
        since_s = self._means.monotonic() - self._revived_s
        if self._waits and self._declined and (wanted or since_s >= REVIVE_AGAIN_S):
            self._means.gateway.revive()
            self._declined = False
            self._revived_s = self._means.monotonic()

    def _decide(self) -> None:
        means = self._means
        decided = means.stored(
            lambda: decide(
                means.book.offers(),
                self._fleet.node_ids,
                means.leadership,
                framework_id=self._framework_id,
                reserved=self.reserved,
                turn=self._turn,
                now=means.now(),
            )
        )
        self.reserved = decided.reserved
        self._waits = decided.waits
        means.figures.waited(decided.waited_s)
        if decided.full:  # the next round goes on with the offers that are left
            self.wanted = means.again = True
        self._launch(decided)

    def _launch(self, decided: Decided) -> None:
        means = self._means
        launched = {task.task_id: task for task in decided.launched()}
        try:
            for agent_id, tasks in decided.tasks.items():
                offer_ids = decided.offer_ids[agent_id]
                means.book.drop(offer_ids)
                self._accept(offer_ids, tasks)
                for task in tasks:
                    launched.pop(task.task_id)
        except GatewayError:
            # Their rows say that they start; the cluster knows whether they do.
            self._reconciler.ask(launched.values(), now_s=means.monotonic())
            raise
        if decided.tasks:
            count = sum(map(len, decided.tasks.values()))
            logger.debug("launched", extra={"tasks": count, "agents": len(decided.tasks)})

    def _accept(self, offer_ids: list[str], tasks: list[TaskSpec]) -> None:
        means = self._means
        means.beat()
        fail_point("before-accept")
        means.stored(means.leadership.confirm)
        try:
            # What the tasks leave is offered again at once: more may wait for it.
            means.gateway.launch(offer_ids, tasks, refuse_s=0.0)
        except GatewayError:
            self._doubtful += offer_ids
            raise
        means.count("launches", len(tasks))
        fail_point("after-accept")

    def give_back(self) -> None:
        """Decline what was held for a while and not needed, so that others may have it.

        Before anything is asked about, also what a lost ACCEPT names: should the cluster hear that
        later, after it has answered that it does not know the tasks, it starts none of them.
        """
        means = self._means
        if self._doubtful:
            means.gateway.decline(self._doubtful, refuse_s=0.0)
            self._doubtful = []
        old = means.book.older_than(settings.SCALE_OFFER_HOLD_S, now_s=means.monotonic())
        if old:
            means.book.drop(old)
            self._declined = True
            means.gateway.decline(old, refuse_s=settings.SCALE_DECLINE_S)

    def next_s(self) -> float | None:
        """Return when an offer is to be given back on the monotonic clock; None is never."""
        oldest_s = self._means.book.oldest_s()
        return None if oldest_s is None else oldest_s + settings.SCALE_OFFER_HOLD_S
