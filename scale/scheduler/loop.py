"""The scheduler's round: updates, kills, placement; then it waits for the next thing to happen."""

import logging
import selectors
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from django.utils import timezone

from scale.core.cluster import (
    AgentLost,
    ClusterEvent,
    OfferRescinded,
    OffersReceived,
    TaskUpdate,
    UpdateReceived,
)
from scale.core.errors import GatewayError, LeadershipLost
from scale.core.lifecycle import Event
from scale.failpoints import fail_point
from scale.scheduler.clock import Clocks, shift_deadlines
from scale.scheduler.ending import Ending
from scale.scheduler.explaining import Explaining
from scale.scheduler.figures import Figures
from scale.scheduler.fleet import Fleet
from scale.scheduler.gateway import Gateway
from scale.scheduler.kills import Kills
from scale.scheduler.leader import Leadership, LockLost
from scale.scheduler.means import Means
from scale.scheduler.models import SchedulerState
from scale.scheduler.offers import OfferBook
from scale.scheduler.patience import DATABASE_ERRORS, DatabaseFailed, Patience, Trouble, trouble
from scale.scheduler.placing import Placing
from scale.scheduler.reconcile import Reconciler
from scale.scheduler.standing import Standing, StandingEvent
from scale.scheduler.stops import expire, expire_errands, live_tasks, next_deadline
from scale.scheduler.updates import apply_updates

logger = logging.getLogger(__name__)

#: No more updates than this are one transaction, so that a sign of life comes in between.
UPDATES_AT_ONCE: Final = 1000
#: After a call that failed nothing is tried for this long, unless something happens.
CALL_AGAIN_S: Final = 1.0


class SchedulerLoop:
    """One leader's work. Everything that must survive is in PostgreSQL; what is here may be lost.

    `now` and `monotonic` are the clocks: wall time for rows, the other for waiting.
    """

    def __init__(
        self,
        gateway: Gateway,
        leadership: Leadership,
        *,
        now: Callable[[], datetime] = timezone.now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._leadership = leadership
        self._now = now
        self._monotonic = monotonic
        self._clocks = Clocks(now, monotonic)
        self._book = OfferBook()
        self._ending = Ending()
        self._patience = Patience(pause=self._ending.rest)
        figures = Figures(began=now(), now_s=monotonic())
        self._means = Means(
            gateway, leadership, now, monotonic, self._book, self._patience, figures
        )
        self._reconciler = Reconciler()
        self._fleet = Fleet(self._means)
        self._kills = Kills(self._means)
        self._placing = Placing(self._means, self._fleet, self._reconciler)
        self._explaining = Explaining(self._means, self._placing)
        self._standing = Standing(
            self._means, self._fleet, self._placing, self._kills, self._reconciler
        )
        # The earliest of all deadlines as the last round left it; only this loop sets any.
        self._deadline: datetime | None = None

    def stop(self) -> None:
        """Ask `run` to return after the current round; safe in a signal handler."""
        self._ending.ask()

    def run(self) -> None:
        """Subscribe and schedule until `stop`.

        Raises:
            LeadershipLost: another scheduler leads, or no master can be looked for.
            DatabaseFailed: PostgreSQL is away for too long, or refused what was written. Nothing
                is half done; start again.
        """
        try:
            self.start()
            while not self._ending.wanted:
                self._sleep(self.round())
        except DATABASE_ERRORS as error:
            if not self._ending.wanted:
                raise _final(error) from error
        finally:
            self._gateway.stop()

    def _sleep(self, seconds: float) -> None:
        """Wait until something happens; the session with the lock may be another one each time."""
        with selectors.PollSelector() as selector:
            for source in (self._gateway, self._leadership, self._ending):
                selector.register(source, selectors.EVENT_READ)
            selector.select(seconds)

    def start(self) -> None:
        """Read what is remembered and begin to subscribe."""
        state = self._means.stored(SchedulerState.objects.get)
        self._fleet.remember()
        self._deadline = self._means.stored(lambda: next_deadline(now=self._now()))
        try:
            self._gateway.start(state.framework_id or None)
        except GatewayError as error:
            raise LeadershipLost(str(error)) from error

    def round(self) -> float:
        """Do what is to be done; return for how many seconds nothing more is if nothing happens."""
        began_s = self._monotonic()
        self._round()
        pause_s = self._pause_s()
        now_s = self._monotonic()
        self._means.figures.round_took(now_s - began_s, now_s=now_s)
        return pause_s

    def _round(self) -> None:
        heard = self._heard()
        self._placing.wanted |= heard
        self._explaining.wanted |= heard
        self._means.again = self._means.call_failed = False
        self._follow_clock()
        self._hear(self._gateway.drain())
        self._means.beat()
        self._expire()
        self._means.beat()
        if self._standing.connected:
            self._act()
        self._explaining.explain(connected=self._standing.connected)

    def _act(self) -> None:
        try:
            for step in (
                self._kills.send,
                self._placing.place,
                self._placing.give_back,
                self._reconcile,
            ):
                step()
                self._means.beat()
        except GatewayError as error:
            # Whether the cluster heard is unknown; the next connection reconciles.
            self._means.failed("the cluster could not be told", error)

    def _heard(self) -> bool:
        """Return whether there may be new work; take the lock again if it was lost."""
        try:
            heard = self._leadership.heard()
        except LockLost:
            self._means.stored(lambda: self._leadership.retake(now=self._now()))
            self._patience.broke = True
        if not self._patience.broke:
            return heard
        # Hints were missed; and perhaps a commit: then Mesos was not told of what it stored.
        self._patience.broke = False
        if self._standing.connected:
            self._reconciler.begin(now_s=self._monotonic())
        return True

    def _follow_clock(self) -> None:
        step = self._clocks.step()
        if step:
            logger.warning("the clock was stepped", extra={"seconds": step.total_seconds()})
            self._means.stored(lambda: shift_deadlines(step, self._leadership))
            self._deadline = self._means.stored(lambda: next_deadline(now=self._now()))

    # What arrived.

    def _hear(self, events: list[ClusterEvent]) -> None:
        updates: list[TaskUpdate] = []
        for event in events:
            if isinstance(event, UpdateReceived):
                updates.append(event.update)
                continue
            self._explaining.wanted = True
            if not isinstance(event, OffersReceived | OfferRescinded):
                # What was said of tasks before an agent left, or the framework ended, comes first.
                self._apply(updates)
                updates = []
            self._take(event)
        self._apply(updates)
        self._fleet.know_strangers()
        if missing := self._fleet.missing():
            self._reconciler.ask(missing, now_s=self._monotonic())

    def _take(self, event: ClusterEvent) -> None:
        """Act on something that is not an update."""
        match event:
            case OffersReceived(offers):
                self._means.count("offers", len(offers))
                self._book.add(offers, now_s=self._monotonic())
                self._placing.offers_new = True
            case OfferRescinded(offer_id):
                self._book.drop([offer_id])
            case AgentLost(agent_id):
                self._fleet.lost(agent_id)
            case _ if isinstance(event, StandingEvent):
                self._standing.take(event)

    def _apply(self, updates: list[TaskUpdate]) -> None:
        for start in range(0, len(updates), UPDATES_AT_ONCE):
            self._apply_some(updates[start : start + UPDATES_AT_ONCE])

    def _apply_some(self, updates: list[TaskUpdate]) -> None:
        applied = self._means.stored(
            lambda: apply_updates(updates, self._leadership, now=self._now())
        )
        self._placing.wanted |= applied.ended
        self._explaining.wanted |= applied.ended
        self._means.count("updates", len(updates))
        self._means.count("finished", applied.moves[Event.FINISH])
        self._means.count("failed", applied.moves[Event.FAIL])
        self._fleet.heard_of(applied.back)
        for update in updates:
            self._reconciler.heard_of(update.task_id)
        fail_point("before-acknowledge")
        self._means.stored(self._leadership.confirm)
        self._means.beat()
        try:
            self._gateway.acknowledge(updates)
            for task in applied.kills:
                logger.warning("a task that nobody wants is killed", extra={"task": task.task_id})
                self._kills.kill(task)
        except GatewayError as error:
            # Unacknowledged updates come again; strays are reported again at reconciliation.
            self._means.failed("updates were not acknowledged", error)

    # What is to be done.

    def _expire(self) -> None:
        if self._deadline is not None and self._deadline <= self._now():
            self._placing.wanted = self._explaining.wanted = True
            expired = self._means.stored(lambda: expire(self._leadership, now=self._now()))
            self._means.again = expired.late > 0
            self._means.count("failed", expired.failed)
            errands = self._means.stored(lambda: expire_errands(self._leadership, now=self._now()))
            self._kills.send_now(errands)

    def _reconcile(self) -> None:
        if self._reconciler.full_due(now_s=self._monotonic()):
            self._reconcile_all()
        tasks = self._reconciler.due(now_s=self._monotonic())
        if tasks:
            self._gateway.reconcile(tasks)

    def _reconcile_all(self) -> None:
        """Ask about every task that should live, and for every task that the cluster knows."""
        self._reconciler.ask(self._means.stored(live_tasks), now_s=self._monotonic())
        self._gateway.reconcile(())
        fail_point("in-recovery")
        self._reconciler.began(now_s=self._monotonic())

    # When to look again.

    def _pause_s(self) -> float:
        """Return how long nothing needs to be done, in seconds, if nothing happens."""
        self._deadline = self._means.stored(lambda: next_deadline(now=self._now()))
        least_s = CALL_AGAIN_S if self._means.call_failed else 0.0
        if self._means.again or self._ending.wanted:
            return least_s
        now_s = self._monotonic()
        parts = (self._placing, self._kills, self._reconciler, self._explaining)
        times = [at for part in parts if (at := part.next_s()) is not None]
        times.append(self._means.next_beat_s)
        if self._deadline is not None:
            times.append(now_s + (self._deadline - self._now()).total_seconds())
        return max(least_s, min(times) - now_s)


def _final(error: Exception) -> DatabaseFailed:
    """Say for people why the scheduler cannot go on."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if trouble(error) is Trouble.FAULT:
        logger.error("PostgreSQL refused; nothing of that transaction is stored", exc_info=error)
        return DatabaseFailed(f"PostgreSQL refused what the scheduler wrote: {reason}")
    return DatabaseFailed(f"PostgreSQL did not come back in time: {reason}")
