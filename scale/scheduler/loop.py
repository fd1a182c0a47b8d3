"""The scheduler's round: updates, kills, placement; then it waits for the next thing to happen."""

import logging
import os
import selectors
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone

from scale.core.cluster import (
    Agent,
    AgentLost,
    ClusterEvent,
    Deposed,
    Disconnected,
    FrameworkRemoved,
    OfferRescinded,
    OffersReceived,
    Subscribed,
    TaskUpdate,
    UpdateReceived,
)
from scale.core.errors import GatewayError, LeadershipLost
from scale.core.resources import Resources
from scale.failpoints import fail_point
from scale.node.models import Node
from scale.node.registry import mark_offline, register_agents
from scale.scheduler.gateway import Gateway
from scale.scheduler.launch import Decided, decide
from scale.scheduler.leader import Leadership
from scale.scheduler.models import SchedulerState
from scale.scheduler.offers import OfferBook
from scale.scheduler.reconcile import Reconciler
from scale.scheduler.snapshot import something_waits
from scale.scheduler.stops import (
    KILL_AGAIN_S,
    expire,
    leave_agent,
    live_tasks,
    next_deadline,
    return_agents,
    tasks_to_kill,
)
from scale.scheduler.updates import apply_updates

logger = logging.getLogger(__name__)

#: The leader shows a sign of life this often.
HEARTBEAT_S: Final = 5.0
#: After a call that failed nothing is tried for this long, unless something happens.
CALL_AGAIN_S: Final = 1.0
#: Waiting work asks for offers again after this time, in case a hint was missed.
REVIVE_AGAIN_S: Final = 30.0


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
        self._book = OfferBook()
        self._reconciler = Reconciler()
        self._node_ids: dict[str, int] = {}
        self._kills_sent: dict[str, float] = {}
        self._reserved: Mapping[Resources, str] = {}
        # The earliest of all deadlines as the last round left it; only this loop sets any.
        self._deadline: datetime | None = None
        self._heartbeat_s = -HEARTBEAT_S
        self._revived_s = 0.0
        self._connected = False
        # Declined since the last revive, so that Mesos may be keeping offers back.
        self._declined = False
        # Something changed that may let waiting work start.
        self._wanted = True
        # Work was left over, and offers came since.
        self._waits = False
        self._offers_new = False
        self._again = False
        self._call_failed = False
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def stop(self) -> None:
        """Ask `run` to return after the current round; safe in a signal handler."""
        self._stopping = True
        os.write(self._wake_write, b"\0")

    def run(self) -> None:
        """Subscribe and schedule until `stop`.

        Raises:
            LeadershipLost: another scheduler leads, or the lock's session broke.
            DatabaseError: PostgreSQL does not answer. Nothing is half done; start again.
        """
        try:
            self.start()
            with selectors.DefaultSelector() as selector:
                for source in (self._gateway, self._leadership, self._wake_read):
                    selector.register(source, selectors.EVENT_READ)
                while not self._stopping:
                    selector.select(self.round())
        finally:
            self._gateway.stop()

    def start(self) -> None:
        """Read what is remembered and begin to subscribe."""
        state = SchedulerState.objects.get()
        online = Node.objects.filter(is_online=True)
        self._node_ids = dict(online.values_list("slave_id", "pk"))
        self._deadline = next_deadline()
        self._gateway.start(state.framework_id or None)

    def round(self) -> float:
        """Do what is to be done; return for how many seconds nothing more is if nothing happens."""
        self._round()
        return self._pause_s()

    def _round(self) -> None:
        self._wanted |= self._leadership.heard()
        self._again = self._call_failed = False
        self._hear(self._gateway.drain())
        self._expire()
        self._beat()
        if not self._connected:
            return
        try:
            self._kill()
            self._place()
            self._give_back()
            self._reconcile()
        except GatewayError as error:
            # Whether the cluster heard is unknown; the next connection reconciles.
            self._failed("the cluster could not be told", error)

    def _failed(self, what: str, error: GatewayError) -> None:
        self._call_failed = True
        logger.warning(what, extra={"reason": str(error)})

    # What arrived.

    def _hear(self, events: list[ClusterEvent]) -> None:
        updates = [event.update for event in events if isinstance(event, UpdateReceived)]
        for event in events:
            match event:
                case OffersReceived(offers):
                    self._book.add(offers, now_s=self._monotonic())
                    self._offers_new = True
                case OfferRescinded(offer_id):
                    self._book.drop([offer_id])
                case AgentLost(agent_id):
                    self._agent_lost(agent_id)
                case Subscribed() | Disconnected() | Deposed() | FrameworkRemoved():
                    self._stand(event)
        self._know_agents()
        if updates:
            self._apply(updates)

    def _apply(self, updates: list[TaskUpdate]) -> None:
        applied = apply_updates(updates, self._leadership, now=self._now())
        self._wanted |= applied.ended
        for update in updates:
            self._reconciler.heard_of(update.task_id)
        fail_point("before-acknowledge")
        try:
            self._gateway.acknowledge(updates)
            for task in applied.kills:
                logger.warning("a task that nobody wants is killed", extra={"task": task.task_id})
                self._gateway.kill(task, grace_s=settings.SCALE_KILL_GRACE_S)
        except GatewayError as error:
            # Unacknowledged updates come again; strays are reported again at reconciliation.
            self._failed("updates were not acknowledged", error)

    def _stand(self, event: Subscribed | Disconnected | Deposed | FrameworkRemoved) -> None:
        """Take in how the framework now stands with the master."""
        match event:
            case Subscribed():
                self._subscribed(event)
            case Disconnected():
                self._disconnected()
            case Deposed(message):
                raise LeadershipLost(f"another scheduler took the framework: {message}")
            case FrameworkRemoved(message):
                with self._leadership.fenced():
                    SchedulerState.objects.update(framework_id="", is_connected=False)
                raise LeadershipLost(f"the master ended the framework and its tasks: {message}")

    def _subscribed(self, event: Subscribed) -> None:
        self._book.clear()
        self._declined, self._wanted, self._connected = False, True, True
        self._kills_sent.clear()
        with self._leadership.fenced():
            SchedulerState.objects.update(
                framework_id=event.framework_id, master=event.master, is_connected=True
            )
        self._reconciler.begin(now_s=self._monotonic())
        try:
            agents = self._gateway.agents()
        except GatewayError as error:
            self._failed("the agents are not known yet", error)
        else:
            self._register(agents)
            self._miss(self._node_ids.keys() - {agent.agent_id for agent in agents})
        logger.info("subscribed", extra={"framework": event.framework_id, "master": event.master})

    def _disconnected(self) -> None:
        if self._connected:
            logger.warning("the connection to the master ended")
        self._connected = False
        self._book.clear()
        self._kills_sent.clear()
        self._reconciler.pause()
        with self._leadership.fenced():
            SchedulerState.objects.update(is_connected=False)

    def _agent_lost(self, agent_id: str) -> None:
        self._book.drop_agent(agent_id)
        self._miss([agent_id])
        now = self._now()
        grace = timedelta(seconds=settings.SCALE_UNREACHABLE_GRACE_S)
        leave_agent(agent_id, self._leadership, grace_until=now + grace, now=now)
        logger.warning("an agent left", extra={"agent": agent_id})

    def _miss(self, agent_ids: Collection[str]) -> None:
        """Note that these agents are not there; their next offers make them known again.

        What runs on them is told of by updates: a new master may not know its agents yet.
        """
        for agent_id in agent_ids:
            self._node_ids.pop(agent_id, None)
        if agent_ids:
            with self._leadership.fenced():
                mark_offline(agent_ids)

    def _know_agents(self) -> None:
        """Make nodes of agents that offer something and are not known.

        The master's list tells their sizes, too; without it, what they offer is enough to start.
        """
        if not self._strangers():
            return
        try:
            self._register(self._gateway.agents())
        except GatewayError as error:
            self._failed("the agents could not be listed", error)
        self._register(self._strangers())

    def _strangers(self) -> list[Agent]:
        return [
            Agent(offer.agent_id, offer.hostname, offer.address, offer.port)
            for offer in self._book.offers()
            if offer.agent_id not in self._node_ids
        ]

    def _register(self, agents: list[Agent]) -> None:
        if not agents:
            return
        with self._leadership.fenced():
            nodes = register_agents(agents, at=self._now())
            return_agents([agent.agent_id for agent in agents], now=self._now())
        self._node_ids |= {node.slave_id: node.pk for node in nodes}

    # What is to be done.

    def _expire(self) -> None:
        if self._deadline is not None and self._deadline <= self._now():
            self._wanted = True
            self._again = expire(self._leadership, now=self._now()) > 0

    def _beat(self) -> None:
        if self._monotonic() - self._heartbeat_s >= HEARTBEAT_S:
            with self._leadership.fenced():
                SchedulerState.objects.update(heartbeat=self._now())
            self._heartbeat_s = self._monotonic()

    def _kill(self) -> None:
        tasks = tasks_to_kill()
        sent = {task.task_id: self._kills_sent.get(task.task_id) for task in tasks}
        self._kills_sent = {task_id: at for task_id, at in sent.items() if at is not None}
        for task in tasks:
            at = sent[task.task_id]
            if at is None or self._monotonic() - at >= KILL_AGAIN_S:
                self._gateway.kill(task, grace_s=settings.SCALE_KILL_GRACE_S)
                self._kills_sent[task.task_id] = self._monotonic()

    def _place(self) -> None:
        wanted, self._wanted = self._wanted, False
        offers_new, self._offers_new = self._offers_new, False
        offers = self._book.offers()
        if offers and (wanted or (self._waits and offers_new)):
            decided = decide(
                offers, self._node_ids, self._leadership, reserved=self._reserved, now=self._now()
            )
            self._reserved = decided.reserved
            self._waits = decided.waits
            if decided.full:  # the next round goes on with the offers that are left
                self._wanted = self._again = True
            self._launch(decided)
        elif wanted:
            self._waits = something_waits()  # the next offers will tell more
        since_s = self._monotonic() - self._revived_s
        if self._waits and self._declined and (wanted or since_s >= REVIVE_AGAIN_S):
            self._gateway.revive()
            self._declined = False
            self._revived_s = self._monotonic()

    def _launch(self, decided: Decided) -> None:
        launched = {task.task_id: task for task in decided.launched()}
        try:
            for agent_id, tasks in decided.tasks.items():
                offer_ids = decided.offer_ids[agent_id]
                self._book.drop(offer_ids)
                # What the tasks leave is offered again at once: more may wait for it.
                fail_point("before-accept")
                self._gateway.launch(offer_ids, tasks, refuse_s=0.0)
                fail_point("after-accept")
                for task in tasks:
                    launched.pop(task.task_id)
        except GatewayError:
            # Their rows say that they start; the cluster knows whether they do.
            self._reconciler.ask(launched.values(), now_s=self._monotonic())
            raise
        if decided.tasks:
            count = sum(map(len, decided.tasks.values()))
            logger.debug("launched", extra={"tasks": count, "agents": len(decided.tasks)})

    def _give_back(self) -> None:
        """Decline what was held for a while and not needed, so that others may have it."""
        old = self._book.older_than(settings.SCALE_OFFER_HOLD_S, now_s=self._monotonic())
        if old:
            self._book.drop(old)
            self._declined = True
            self._gateway.decline(old, refuse_s=settings.SCALE_DECLINE_S)

    def _reconcile(self) -> None:
        if self._reconciler.full_due(now_s=self._monotonic()):
            self._reconcile_all()
        tasks = self._reconciler.due(now_s=self._monotonic())
        if tasks:
            self._gateway.reconcile(tasks)

    def _reconcile_all(self) -> None:
        """Ask about every task that should live, and for every task that the cluster knows."""
        self._reconciler.ask(live_tasks(), now_s=self._monotonic())
        self._gateway.reconcile(())
        fail_point("in-recovery")
        self._reconciler.began(now_s=self._monotonic())

    # When to look again.

    def _pause_s(self) -> float:
        """Return how long nothing needs to be done, in seconds, if nothing happens."""
        self._deadline = next_deadline()
        least_s = CALL_AGAIN_S if self._call_failed else 0.0
        if self._again or self._stopping:
            return least_s
        now_s = self._monotonic()
        times = [self._heartbeat_s + HEARTBEAT_S]
        oldest_s = self._book.oldest_s()
        if oldest_s is not None:
            times.append(oldest_s + settings.SCALE_OFFER_HOLD_S)
        times += [at + KILL_AGAIN_S for at in self._kills_sent.values()]
        reconcile_s = self._reconciler.next_s()
        if reconcile_s is not None:
            times.append(reconcile_s)
        if self._deadline is not None:
            times.append(now_s + (self._deadline - self._now()).total_seconds())
        return max(least_s, min(times) - now_s)
