"""pymesos' scheduler driver, made fit for a daemon.

Kept is how pymesos starts and stops, detects the leader in ZooKeeper, words its calls and sorts
events. Replaced is what loses its thread, its tasks or a day of time:

- its loop ends on any error, and then sends TEARDOWN (`_run`; here `Subscription`, which does not);
- a callback that raises ends the loop (`on_event`), as does a FAILURE without status;
- a call waits for a day, with the lock held that the loop needs (`_send`);
- a call without a connection vanishes (`connected`), and one before SUBSCRIBED is an assertion;
- headers of one driver's calls, secret included, reach those of another (`_send`);
- KILL and RECONCILE leave the agent out (`kill`, `reconcile`);
- the capabilities and the id are changed in the caller's FrameworkInfo (`framework`).
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from scale.core.cluster import (
    AgentLost,
    ClusterEvent,
    Disconnected,
    NotSubscribed,
    OfferRescinded,
    OffersReceived,
    Subscribed,
    TaskRef,
    TaskUpdate,
    UpdateReceived,
)
from scale.core.errors import GatewayError
from scale.mesos import translate
from scale.mesos._pymesos import MesosSchedulerDriver, Scheduler
from scale.mesos.document import JsonObject
from scale.mesos.subscription import Subscription, Timing
from scale.mesos.wire import HttpConnection, Response, WireError, request_head, with_body

logger = logging.getLogger(__name__)

SCHEDULER_PATH: Final = "/api/v1/scheduler"
#: What the master sends when it does not say (contract, 1.2).
HEARTBEAT_S: Final = 15.0
#: Answers to calls are empty or a sentence.
MAX_ANSWER_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Session:
    """One subscription that the master confirmed."""

    master: str
    stream_id: str
    framework_id: str


class Driver(MesosSchedulerDriver):
    """Speaks for one framework until `stop`, or until the master ends it.

    `emit` is called on the driver's thread, for the life of the driver only. A driver is started
    once.
    """

    def __init__(
        self,
        framework: JsonObject,
        master: str,
        *,
        emit: Callable[[ClusterEvent], None],
        authorization: str | None,
        call_timeout_s: float,
        timing: Timing,
    ) -> None:
        super().__init__(
            Scheduler(), dict(framework), master, implicit_acknowledgements=False, failover=True
        )
        self._basic_credential = authorization
        self._events = emit
        self._call_timeout_s = call_timeout_s
        self._call_lock = threading.Lock()
        self._calls: HttpConnection | None = None
        self._session: Session | None = None
        self._trouble = self._refusal = ""
        self.subscription = Subscription(self, timing)

    # Life. `start` and `stop` run pymesos' leader detection; `_run` is its thread.

    def stop(self, failover: bool = True) -> None:
        """Leave without TEARDOWN, whatever `failover` says; the tasks run on."""
        self.subscription.end()
        super().stop(failover=True)

    def leave(self, timeout_s: float) -> None:
        """Stop, and wait for the thread unless it is stuck in a name look-up or a connect."""
        self.stop()
        if self._io_thread is not None:
            self._io_thread.join(timeout_s)
        if self._calls is not None:
            self._calls.interrupt()
            with self._call_lock:
                self._calls.close()

    def change_master(self, new_master: str | None) -> None:
        """Take what was configured, or what ZooKeeper says, as the masters to try."""
        self.subscription.follow(translate.addresses(new_master))
        self._notify()

    def _run(self) -> None:
        """Run the subscription; pymesos' own loop ends on any error, and with a TEARDOWN."""
        with self._lock:
            descriptors = self._wakeup_fds
        assert descriptors is not None  # made by pymesos' start, before the thread
        try:
            self.subscription.run(descriptors[0])
        finally:
            with self._lock:
                self._started = False
                self._wakeup_fds = None
                for descriptor in descriptors:
                    os.close(descriptor)

    # What the subscription asks for and tells.

    @property
    def framework(self) -> JsonObject:
        """FrameworkInfo as it was given; pymesos adds and removes GPU_RESOURCES here."""
        return dict(self._framework)

    def subscribe_request(self, address: str) -> bytes:
        self._master = address
        return self.gen_request()

    def on_event(self, event: JsonObject) -> None:
        try:
            super().on_event(event)
        except Exception:  # one bad event must not cost the stream: the next ones may matter more
            logger.exception("mesos event could not be used", extra={"type": event.get("type")})

    def on_trouble(self, reason: str) -> None:
        """Tell it once: attempts that fail alike go on for as long as the master is away."""
        reason, self._refusal = self._refusal or reason, ""
        if reason != self._trouble:
            self._trouble = reason
            self._emit(NotSubscribed(reason))

    def on_close(self) -> None:
        session, self._session = self._session, None
        if self._calls is not None:
            self._calls.interrupt()
        if session is not None:
            self._emit(Disconnected())

    def _emit(self, event: ClusterEvent) -> None:
        if self._started:
            self._events(event)

    # Events, called by pymesos.

    def on_subscribed(self, info: JsonObject) -> None:
        framework_id = info["framework_id"]["value"]
        master = self._master or ""
        self.framework_id = framework_id
        self._session = Session(master, self.subscription.stream_id, framework_id)
        self._trouble = ""
        self.subscription.subscribed(info.get("heartbeat_interval_seconds") or HEARTBEAT_S)
        logger.info("subscribed to mesos", extra={"master": master, "framework": framework_id})
        self._emit(Subscribed(framework_id, master))

    def on_offers(self, event: JsonObject) -> None:
        self._emit(OffersReceived(translate.offers(event)))

    def on_rescind(self, event: JsonObject) -> None:
        self._emit(OfferRescinded(event["offer_id"]["value"]))

    def on_update(self, event: JsonObject) -> None:
        self._emit(UpdateReceived(translate.task_update(event["status"])))

    def on_failure(self, event: JsonObject) -> None:
        # With an executor id it is about that executor only, and its task's update says it too.
        if "executor_id" not in event:
            self._emit(AgentLost(event["agent_id"]["value"]))

    def on_error(self, event: JsonObject) -> None:
        message = str(event.get("message", ""))
        ending = translate.ending(message)
        if ending is None:
            logger.error("mesos refused the framework", extra={"reason": message})
            self._refusal = message
            return
        logger.error("mesos ended the framework", extra={"reason": message})
        self._emit(ending)
        self.stop()

    # Calls.

    @property
    def session(self) -> Session:
        """Return the present session; raise GatewayError if there is none."""
        session = self._session
        if session is None or not self._started:
            raise GatewayError("not subscribed to a Mesos master")
        return session

    @property
    def subscribed(self) -> bool:
        return self._session is not None

    @property
    def connected(self) -> bool:
        """True, or GatewayError: where pymesos finds False, it drops the call in silence."""
        return bool(self.session)

    def kill(self, task: TaskRef, *, grace_s: float) -> None:
        self._call("KILL", [translate.kill(task, grace_s=grace_s)])

    def reconcile(self, tasks: Sequence[TaskRef]) -> None:
        self._call("RECONCILE", [{"tasks": [translate.task_ref(task) for task in tasks]}])

    def acknowledge(self, updates: Sequence[TaskUpdate]) -> None:
        confirmations = (translate.acknowledgement(update) for update in updates)
        self._call("ACKNOWLEDGE", [one for one in confirmations if one is not None])

    def _call(self, kind: str, payloads: Sequence[JsonObject]) -> None:
        framework_id = {"value": self.session.framework_id}
        field = kind.lower()
        self._send_all(
            [{"type": kind, "framework_id": framework_id, field: one} for one in payloads]
        )

    def _send(
        self,
        body: JsonObject,
        path: str = SCHEDULER_PATH,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> JsonObject:
        """Send one call of pymesos', all of which are a POST to the scheduler's path."""
        assert (path, method, headers) == (SCHEDULER_PATH, "POST", None)
        self._send_all([body])
        return {}

    def _send_all(self, bodies: Sequence[JsonObject]) -> None:
        """Send calls in one go; raise GatewayError if any was refused or may be lost."""
        if not bodies:
            return
        session = self.session
        head = self._head(session)
        requests = [with_body(head, orjson.dumps(body)) for body in bodies]
        with self._call_lock:
            connection = self._connection(session.master)
            try:
                answers = connection.exchange(requests)
            except WireError as error:
                raise GatewayError(f"call to Mesos master {session.master}: {error}") from error
        refused = [answer for answer in answers if not 200 <= answer.status < 300]
        if refused:
            self._distrust(session, refused[0])
            answer = refused[0]
            raise GatewayError(
                f"Mesos master {session.master} refused {len(refused)} of {len(bodies)} calls:"
                f" HTTP {answer.status} {answer.excerpt}"
            )

    def _head(self, session: Session) -> bytes:
        return request_head(
            "POST",
            SCHEDULER_PATH,
            {
                "Host": session.master,
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Mesos-Stream-Id": session.stream_id,
                "Authorization": self._basic_credential,
            },
        )

    def _connection(self, master: str) -> HttpConnection:
        host, _, port = master.rpartition(":")
        if self._calls is None or self._calls.peer != (host, int(port)):
            if self._calls is not None:
                self._calls.close()
            self._calls = HttpConnection(
                host,
                int(port),
                timeout_s=self._call_timeout_s,
                max_body_bytes=MAX_ANSWER_BYTES,
            )
        return self._calls

    def _distrust(self, session: Session, answer: Response) -> None:
        """Subscribe again if the master says that it does not know our stream (any more)."""
        stale = answer.status in (307, 403) or (answer.status == 400 and b"tream" in answer.body)
        if stale:
            self.subscription.kick(session.stream_id, f"calls are refused: {answer.excerpt}")
            self._notify()
