"""A Mesos cluster as the scheduler sees it: implements its `Gateway` protocol, by structure."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from scale.core.cluster import Agent, ClusterEvent, TaskRef, TaskSpec, TaskUpdate
from scale.core.errors import GatewayError
from scale.mesos import translate
from scale.mesos.document import parse
from scale.mesos.driver import Driver
from scale.mesos.events import EventQueue
from scale.mesos.framework import framework_info
from scale.mesos.subscription import Timing
from scale.mesos.wire import HttpConnection, WireError, credential, request_head, with_body

#: How long `stop` waits for the driver's thread. It is longer only in a connect or name look-up.
STOP_TIMEOUT_S: Final = 3.0
#: 35,000 agents, the most that was seen in one cluster, at 3 KB each.
MAX_AGENTS_BYTES: Final = 128 * 1024 * 1024
MAX_REDIRECTS: Final = 3


@dataclass(frozen=True, slots=True)
class Health:
    """For people and probes. `attempts` counts the connections to masters since the start."""

    subscribed: bool
    last_event_age_s: float
    attempts: int


class MesosGateway:
    """One framework at one Mesos cluster.

    `master` is `host[:port]`, several of them with commas, or `zk://host:port,…/path`. The
    constructor raises ValueError for anything else and does not touch the network.
    """

    def __init__(
        self,
        master: str,
        *,
        principal: str | None,
        secret: str | None,
        user: str,
        name: str,
        failover_timeout_s: float,
        hostname: str,
        webui_url: str,
        role: str = "*",
        call_timeout_s: float = 30,
        timing: Timing | None = None,
    ) -> None:
        if not master.startswith("zk://") and not translate.addresses(master):
            raise ValueError("no Mesos master given")
        self._master = master
        self._authorization = credential(principal, secret)
        self._call_timeout_s = call_timeout_s
        self._timing = timing or Timing()
        self._framework = framework_info(
            user=user,
            name=name,
            role=role,
            principal=principal,
            failover_timeout_s=failover_timeout_s,
            hostname=hostname,
            webui_url=webui_url,
        )
        self._events = EventQueue()
        self._driver: Driver | None = None

    def start(self, framework_id: str | None) -> None:
        """Subscribe with this id, or as a new framework.

        Starts over if it runs already, or has ended by Deposed or FrameworkRemoved. Raises
        GatewayError if ZooKeeper cannot be reached; an unreachable master is tried again for ever.
        """
        self.stop()
        framework = dict(self._framework)
        if framework_id is not None:
            framework["id"] = {"value": framework_id}
        self._driver = Driver(
            framework,
            self._master,
            emit=self._events.put,
            authorization=self._authorization,
            call_timeout_s=self._call_timeout_s,
            timing=self._timing,
        )
        try:
            self._driver.start()
        except Exception as error:
            self.stop()
            raise GatewayError(f"the leading Mesos master cannot be found: {error}") from error

    def stop(self) -> None:
        """Leave; the framework stays registered and its tasks run on. Repeatable."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.leave(STOP_TIMEOUT_S)

    def fileno(self) -> int:
        return self._events.fileno()

    def drain(self) -> list[ClusterEvent]:
        return self._events.drain()

    def launch(
        self, offer_ids: Sequence[str], tasks: Sequence[TaskSpec], *, refuse_s: float
    ) -> None:
        """Send one ACCEPT. It is not repeated on failure: a second one would fail live tasks."""
        self._running().launchTasks(
            translate.offer_ids(offer_ids),
            [translate.task_info(task) for task in tasks],
            {"refuse_seconds": refuse_s},
        )

    def decline(self, offer_ids: Sequence[str], *, refuse_s: float) -> None:
        if offer_ids:
            ids = translate.offer_ids(offer_ids)
            self._running().declineOffer(ids, {"refuse_seconds": refuse_s})

    def revive(self) -> None:
        self._running().reviveOffers()

    def kill(self, task: TaskRef, *, grace_s: float) -> None:
        self._running().kill(task, grace_s=grace_s)

    def acknowledge(self, updates: Sequence[TaskUpdate]) -> None:
        self._running().acknowledge(updates)

    def reconcile(self, tasks: Sequence[TaskRef]) -> None:
        self._running().reconcile(tasks)

    def agents(self) -> list[Agent]:
        """Ask the leading master; agents that are away or being drained are left out.

        Takes no longer than one call, however often it is sent elsewhere.
        """
        address = self._running().session.master
        until = monotonic() + self._call_timeout_s
        for _ in range(MAX_REDIRECTS):
            status, where, body = self._get(address, "/slaves", until - monotonic())
            if status == 200:
                return _agents(body)
            if status != 307 or where is None:
                raise GatewayError(f"Mesos master {address} answered HTTP {status} for its agents")
            address = where
        raise GatewayError("Mesos masters redirect in circles")

    def health(self) -> Health:
        driver = self._driver
        if driver is None:
            return Health(subscribed=False, last_event_age_s=0, attempts=0)
        subscription = driver.subscription
        return Health(driver.subscribed, subscription.last_event_age_s, subscription.attempts)

    def _running(self) -> Driver:
        if self._driver is None:
            raise GatewayError("the Mesos gateway is not started")
        return self._driver

    def _get(self, address: str, path: str, timeout_s: float) -> tuple[int, str | None, bytes]:
        """Return status, address to go to instead, body."""
        host, _, port = address.rpartition(":")
        headers = {"Host": address, "Authorization": self._authorization}
        connection = HttpConnection(
            host, int(port), timeout_s=timeout_s, max_body_bytes=MAX_AGENTS_BYTES
        )
        try:
            [answer] = connection.exchange([with_body(request_head("GET", path, headers))])
        except WireError as error:
            raise GatewayError(f"Mesos master {address}: {error}") from error
        finally:
            connection.close()
        return answer.status, translate.leader(answer.headers.get("location", "")), answer.body


def _agents(body: bytes) -> list[Agent]:
    try:
        return translate.agents(parse(body))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise GatewayError(f"the Mesos master's list of agents makes no sense: {error}") from error
