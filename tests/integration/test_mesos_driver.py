"""The gateway against a master that misbehaves in every way that was seen to break pymesos."""

import base64
import json
import logging
import os
import resource
import select
import threading
import time
from collections.abc import Iterator
from queue import Queue
from typing import Any, TypeVar

import pytest
from fake_mesos_master import (
    FRAMEWORK_ID,
    FakeMaster,
    Peer,
    Request,
    accept,
    accept_with_heartbeat,
    close,
    end_without_closing,
    error,
    half_an_event,
    hang,
    no_http,
    no_records,
    opened,
    redirect_to,
    refuse,
    reset,
    response,
)

from scale.core.cluster import (
    AgentLost,
    ClusterEvent,
    Deposed,
    Disconnected,
    FrameworkRemoved,
    OfferRescinded,
    OffersReceived,
    Subscribed,
    TaskRef,
    TaskSpec,
    TaskState,
    TaskUpdate,
    UpdateReceived,
)
from scale.core.errors import GatewayError
from scale.core.resources import Resources
from scale.mesos.driver import Driver
from scale.mesos.framework import framework_info
from scale.mesos.gateway import MesosGateway
from scale.mesos.subscription import Timing

DEADLINE_S = 10
SECRET = "do-not-tell"
FAST = Timing(first_pause_s=0.001, longest_pause_s=0.005)

RESCIND = {"type": "RESCIND", "rescind": {"offer_id": {"value": "o1"}}}
OFFERS = {
    "type": "OFFERS",
    "offers": {
        "offers": [{"id": {"value": "o1"}, "agent_id": {"value": "a1"}, "hostname": "h"}],
    },
}
TASK = TaskSpec("t1", "a1", "n", "true", Resources(100, 32))
Event = TypeVar("Event", bound=ClusterEvent)


def update(number: int = 1, **more: Any) -> TaskUpdate:
    uuid = base64.b64encode(number.to_bytes(16)).decode()
    return TaskUpdate(f"t{number}", TaskState.RUNNING, "a1", uuid, **more)


class Gateway(MesosGateway):
    """The real one, with its events easy to wait for."""

    def __init__(self, master: str, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "principal": "scale",
            "secret": SECRET,
            "user": "root",
            "name": "scale",
            "failover_timeout_s": 604800,
            "hostname": "h",
            "webui_url": "",
            "timing": FAST,
        }
        super().__init__(master, **{**defaults, **options})
        self.seen: list[ClusterEvent] = []
        self.deadline_s = DEADLINE_S

    def until(self, kind: type[ClusterEvent]) -> list[ClusterEvent]:
        """Return the next events up to the first of this kind."""
        deadline = time.monotonic() + self.deadline_s
        while True:
            self.seen += self.drain()
            for count, event in enumerate(self.seen, 1):
                if isinstance(event, kind):
                    events, self.seen = self.seen[:count], self.seen[count:]
                    return events
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind.__name__} among {self.seen}"
            select.select([self], [], [], left)

    def expect(self, kind: type[Event]) -> Event:
        """Return the next event of this kind; forget those before it."""
        last = self.until(kind)[-1]
        assert isinstance(last, kind)
        return last

    def subscribe(self, framework_id: str | None = None) -> "Gateway":
        self.start(framework_id)
        self.expect(Subscribed)
        return self


@pytest.fixture
def gateways() -> Iterator[list[MesosGateway]]:
    """Those that the test wants stopped at its end."""
    started: list[MesosGateway] = []
    yield started
    for gateway in started:
        gateway.stop()


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with FakeMaster() as fake:
        yield fake


@pytest.fixture
def gateway(master: FakeMaster, gateways: list[MesosGateway]) -> Gateway:
    gateways.append(Gateway(master.address))
    return gateways[0]  # type: ignore[return-value]


# Subscribing.


def test_subscribing_tells_who_we_are_and_learns_our_id(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.start(None)
    assert gateway.expect(Subscribed) == Subscribed(FRAMEWORK_ID, master.address)
    (request,) = master.subscribes()
    assert request.headers["authorization"] == (
        "Basic " + base64.b64encode(f"scale:{SECRET}".encode()).decode()
    )
    assert "mesos-stream-id" not in request.headers
    assert "framework_id" not in request.json
    info = request.json["subscribe"]["framework_info"]
    assert info["checkpoint"] is True
    assert info["failover_timeout"] == 604800
    assert info["capabilities"] == [{"type": "PARTITION_AWARE"}]


def test_the_stored_id_is_sent_and_kept_over_reconnects(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.subscribe("stored")
    master.stream.close()
    gateway.expect(Disconnected)
    gateway.expect(Subscribed)
    first, second = master.subscribes()
    for request, expected in ((first, "stored"), (second, FRAMEWORK_ID)):
        assert request.json["framework_id"] == {"value": expected}
        assert request.json["subscribe"]["framework_info"]["id"] == {"value": expected}


def test_the_framework_is_sent_as_given_and_not_changed(master: FakeMaster) -> None:
    info = framework_info(
        user="root",
        name="n",
        role="*",
        principal=None,
        failover_timeout_s=1,
        hostname="",
        webui_url="",
    )
    info["capabilities"].append({"type": "GPU_RESOURCES"})  # pymesos adds and removes this one
    before, come = json.loads(json.dumps(info)), threading.Event()
    driver = Driver(
        info,
        master.address,
        emit=lambda _: come.set(),
        authorization=None,
        call_timeout_s=1,
        timing=FAST,
    )
    driver.start()
    assert come.wait(DEADLINE_S)
    driver.leave(DEADLINE_S)
    assert info == before
    assert master.subscribes()[0].json["subscribe"]["framework_info"] == before


def test_a_version_that_pymesos_cannot_read_is_never_asked_for(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.subscribe()  # the fake says 1.12.0-rc1, on which pymesos dies
    assert {request.target for request in master.requests} == {"/api/v1/scheduler"}


def test_503_is_answered_with_pauses(gateways: list[MesosGateway]) -> None:
    jitters: list[float] = []

    def jitter() -> float:
        jitters.append(1)
        return 1

    timing = Timing(first_pause_s=0.001, longest_pause_s=0.004, jitter=jitter)
    with FakeMaster(*[refuse(503, b"No leader elected")] * 5) as master:
        gateways.append(gateway := Gateway(master.address, timing=timing))
        gateway.subscribe()
        assert len(master.subscribes()) == 6
        assert len(jitters) == 5
        gateway.stop()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (refuse(401), "the master refused to subscribe us with HTTP 401"),
        (refuse(403, b"No."), "the master refused to subscribe us with HTTP 403: No."),
        (close, "the master closed the stream"),
        (half_an_event, "the master closed the stream"),
        (end_without_closing, "the master ended the stream"),
        (reset, "[Errno 104] Connection reset by peer"),
        (no_http, "broken HTTP: Expected HTTP/, RTSP/ or ICE/"),
        (no_records, "broken record length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_or_a_broken_stream_is_said_and_tried_again(
    script: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeMaster(script, script) as master:
        gateway = Gateway(master.address)
        gateway.start(None)
        master.wait(lambda: len(master.subscribes()) == 3)
        gateway.expect(Subscribed)
        gateway.stop()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.__dict__["reason"] for record in warnings] == [reason, reason]
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


def test_a_master_that_takes_the_request_and_says_nothing_is_given_up() -> None:
    with FakeMaster(hang, opened) as master:
        gateway = Gateway(master.address, timing=Timing(subscribe_s=0.02, first_pause_s=0.001))
        gateway.start(None)
        master.wait(lambda: len(master.subscribes()) >= 3)
        gateway.expect(Subscribed)
        gateway.stop()


def test_a_name_that_does_not_resolve_is_one_failed_attempt(master: FakeMaster) -> None:
    gateway = Gateway(f"no-such-host.invalid:1,{master.address}")
    gateway.start(None)
    assert gateway.expect(Subscribed).master == master.address
    gateway.stop()


def test_an_unreachable_master_is_found_when_it_comes_up() -> None:
    with FakeMaster() as gone:
        address = gone.address
    gateway = Gateway(address)
    gateway.start(None)
    deadline = time.monotonic() + DEADLINE_S
    while gateway.health().attempts < 3:
        assert time.monotonic() < deadline
    gateway.stop()
    assert gateway.drain() == []


def test_an_error_that_is_not_final_is_logged_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FakeMaster(error("Role x is not valid")) as master:
        gateway = Gateway(master.address).subscribe()
        gateway.stop()
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.__dict__["reason"] for record in logged] == ["Role x is not valid"]


def test_stopping_does_not_wait_for_the_end_of_a_pause() -> None:
    with FakeMaster(refuse(503)) as master:
        gateway = Gateway(master.address, timing=Timing(first_pause_s=60, longest_pause_s=60))
        gateway.start(None)
        master.wait(master.subscribes)
        before = time.monotonic()
        gateway.stop()
        assert time.monotonic() - before < 2
        assert len(master.subscribes()) == 1


def test_starting_again_ends_the_first_subscription(master: FakeMaster, gateway: Gateway) -> None:
    first = gateway.subscribe()._running()._io_thread
    gateway.subscribe("stored")
    assert first is not None
    assert not first.is_alive()
    assert master.subscribes()[1].json["framework_id"] == {"value": "stored"}


def test_descriptors_above_1023_work(master: FakeMaster, gateway: Gateway) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("the limit of open files is too low here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        gateway.start(None)
        deadline = time.monotonic() + DEADLINE_S
        while not gateway.drain():
            assert time.monotonic() < deadline
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Leaders.


def test_a_redirect_leads_to_the_leader_and_its_death_back_to_the_seed() -> None:
    with FakeMaster() as other, FakeMaster() as leader, FakeMaster() as seed:
        seed.scripts.extend([redirect_to(leader), redirect_to(other)])
        gateway = Gateway(seed.address)
        gateway.start(None)
        assert gateway.expect(Subscribed).master == leader.address
        leader.__exit__()
        gateway.expect(Disconnected)
        assert gateway.expect(Subscribed).master == other.address
        gateway.revive()
        assert len(other.calls("REVIVE")) == 1
        gateway.stop()


def test_masters_that_redirect_to_each_other_do_not_make_a_hot_loop() -> None:
    with FakeMaster() as one, FakeMaster() as two:
        one.scripts.extend([redirect_to(two)] * 100)
        two.scripts.extend([redirect_to(one)] * 100)
        pausing = threading.Event()
        long = Timing(first_pause_s=60, longest_pause_s=60, jitter=lambda: pausing.set() or 1)
        gateway = Gateway(one.address, timing=long)
        gateway.start(None)
        assert pausing.wait(DEADLINE_S)
        gateway.stop()
        assert len(one.subscribes()) + len(two.subscribes()) == 2


def test_zookeepers_leader_is_followed_when_it_changes(
    monkeypatch: pytest.MonkeyPatch, master: FakeMaster
) -> None:
    detectors: list[Any] = []

    class Detector:
        def __init__(self, uri: str, agent: Any) -> None:
            self.uri, self.agent, self.stopped = uri, agent, False
            detectors.append(self)

        def start(self) -> None:
            self.agent.onNoMasterDetectedMessage()

        def stop(self) -> None:
            self.stopped = True

    monkeypatch.setattr("pymesos.detector.MasterDetector", Detector)
    gateway = Gateway("zk://z1:2181,z2:2181/mesos")
    gateway.start(None)
    (detector,) = detectors
    assert detector.uri == "z1:2181,z2:2181/mesos"
    with FakeMaster() as first:
        leads = '{"address": {"ip": "127.0.0.1", "port": %d}}'
        detector.agent.onNewMasterDetectedMessage(leads % first.port)
        assert gateway.expect(Subscribed).master == first.address
        detector.agent.onNewMasterDetectedMessage(leads % master.port)
        gateway.expect(Disconnected)
        assert gateway.expect(Subscribed).master == master.address
        gateway.stop()
        assert detector.stopped


def test_zookeeper_that_is_down_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detector:
        def __init__(self, *_: object) -> None: ...

        def start(self) -> None:
            raise TimeoutError("Connection time-out")

        def stop(self) -> None: ...

    monkeypatch.setattr("pymesos.detector.MasterDetector", Detector)
    with pytest.raises(GatewayError, match="leading Mesos master cannot be found"):
        Gateway("zk://z:2181/mesos").start(None)


# The stream.


def test_events_become_values_in_order(master: FakeMaster, gateway: Gateway) -> None:
    gateway.subscribe()
    status = {"task_id": {"value": "t"}, "state": "TASK_RUNNING"}
    for event in (
        OFFERS,
        RESCIND,
        {"type": "UPDATE", "update": {"status": status}},
        {"type": "FAILURE", "failure": {"agent_id": {"value": "a1"}}},
    ):
        master.stream.event(event)
    assert gateway.expect(OffersReceived).offers[0].offer_id == "o1"
    assert gateway.expect(OfferRescinded).offer_id == "o1"
    assert gateway.expect(UpdateReceived).update.state is TaskState.RUNNING
    assert gateway.expect(AgentLost).agent_id == "a1"


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "UPDATE", "update": {"status": {"task_id": {"value": "t"}, "state": "TASK_NEW"}}},
        {"type": "OFFERS", "offers": {"offers": [{}]}},
        {"type": "RESCIND"},
        {"type": "CLOSE", "close": {}},
        {"type": "NOVELTY", "novelty": {}},
        {"type": "MESSAGE", "message": {}},
        {"no": "type"},
        {
            "type": "FAILURE",
            "failure": {"agent_id": {"value": "a"}, "executor_id": {"value": "e"}},
        },
    ],
    ids=lambda event: event.get("type", "none"),
)
def test_an_event_that_cannot_be_used_costs_nothing_else(
    master: FakeMaster, gateway: Gateway, bad: dict[str, Any]
) -> None:
    gateway.subscribe()
    master.stream.event(bad)
    master.stream.chunk(b"5\n}bad{")
    master.stream.event(RESCIND)
    assert gateway.until(OfferRescinded) == [OfferRescinded("o1")]
    assert len(master.subscribes()) == 1


def test_a_receiver_that_raises_does_not_end_the_stream(master: FakeMaster) -> None:
    received: Queue[ClusterEvent] = Queue()

    def emit(event: ClusterEvent) -> None:
        received.put(event)
        raise RuntimeError("a fault of the receiver")

    driver = Driver(
        {"user": "u", "name": "n"},
        master.address,
        emit=emit,
        authorization=None,
        call_timeout_s=1,
        timing=FAST,
    )
    driver.start()
    assert received.get(timeout=DEADLINE_S) == Subscribed(FRAMEWORK_ID, master.address)
    master.stream.event(RESCIND)
    assert received.get(timeout=DEADLINE_S) == OfferRescinded("o1")
    driver.leave(DEADLINE_S)
    assert len(master.subscribes()) == 1


def test_events_arrive_however_they_are_cut(master: FakeMaster, gateway: Gateway) -> None:
    gateway.subscribe()
    many = dict(OFFERS, offers={"offers": OFFERS["offers"]["offers"] * 2000})  # type: ignore[index]
    record = json.dumps(many).encode()
    data = b"%d\n%s" % (len(record), record) * 2
    for start in range(0, len(data), 3000):
        master.stream.chunk(data[start : start + 3000])
    assert len(gateway.expect(OffersReceived).offers) == 2000
    assert len(gateway.expect(OffersReceived).offers) == 2000


def test_a_silent_stream_is_given_up_after_five_missed_heartbeats() -> None:
    with FakeMaster(accept_with_heartbeat(0.02)) as master:
        gateway = Gateway(master.address).subscribe()
        gateway.expect(Disconnected)
        assert gateway.expect(Subscribed).framework_id == FRAMEWORK_ID
        gateway.stop()


def test_heartbeats_keep_a_quiet_stream_alive() -> None:
    with FakeMaster(accept_with_heartbeat(0.2)) as master:  # so that one second is too long
        gateway = Gateway(master.address).subscribe()
        done = threading.Event()

        def beat() -> None:
            while not done.wait(0.02):
                master.stream.event({"type": "HEARTBEAT"})

        beating = threading.Thread(target=beat)
        beating.start()
        gateway.deadline_s = 1.2
        with pytest.raises(AssertionError, match="no Disconnected"):
            gateway.expect(Disconnected)
        done.set()
        beating.join()
        gateway.stop()


def test_the_end_of_a_stream_voids_its_offers_once(master: FakeMaster, gateway: Gateway) -> None:
    master.scripts.extend([accept, refuse(503), refuse(503), accept])
    gateway.subscribe()
    master.stream.event(OFFERS)
    gateway.expect(OffersReceived)
    master.stream.close()
    events = gateway.until(Subscribed)
    assert [type(event) for event in events] == [Disconnected, Subscribed]


# The end.


def test_a_deposed_scheduler_stays_away(master: FakeMaster, gateway: Gateway) -> None:
    gateway.subscribe()
    master.stream.event({"type": "ERROR", "error": {"message": "Framework failed over"}})
    master.stream.close()
    assert gateway.expect(Deposed).message == "Framework failed over"
    with pytest.raises(GatewayError, match="not subscribed"):
        gateway.revive()
    thread = gateway._running()._io_thread
    assert thread is not None
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert len(master.subscribes()) == 1


def test_a_removed_framework_is_told_and_may_begin_anew() -> None:
    with FakeMaster(error("Framework has been removed")) as master:
        gateway = Gateway(master.address)
        gateway.start("spent")
        assert gateway.expect(FrameworkRemoved).message == "Framework has been removed"
        with pytest.raises(GatewayError):
            gateway.revive()
        gateway.subscribe(None)
        assert "framework_id" not in master.subscribes()[1].json
        gateway.stop()


def test_leaving_never_tears_the_framework_down(master: FakeMaster, gateway: Gateway) -> None:
    gateway.subscribe()
    driver = gateway._running()
    driver.abort()
    driver.leave(DEADLINE_S)
    gateway.subscribe()
    gateway.stop()
    gateway.stop()
    gateway = Gateway(master.address).subscribe()
    gateway._running().stop(failover=False)
    gateway.stop()
    assert len(master.subscribes()) == 3
    assert master.calls() == []


# Calls.


def test_a_launch_is_one_accept_on_the_present_stream(master: FakeMaster, gateway: Gateway) -> None:
    gateway.subscribe()
    gateway.launch(["o1", "o2"], [TASK, TASK], refuse_s=3)
    (call,) = master.calls()
    assert call.headers["mesos-stream-id"] == "stream-1"
    assert call.headers["content-type"] == "application/json"
    body = call.json
    assert body["framework_id"] == {"value": FRAMEWORK_ID}
    assert body["accept"]["offer_ids"] == [{"value": "o1"}, {"value": "o2"}]
    assert body["accept"]["filters"] == {"refuse_seconds": 3}
    (operation,) = body["accept"]["operations"]
    assert operation["type"] == "LAUNCH"
    assert [info["task_id"]["value"] for info in operation["launch"]["task_infos"]] == ["t1", "t1"]


def test_the_other_calls_say_what_they_are_for(master: FakeMaster, gateway: Gateway) -> None:
    gateway.subscribe()
    gateway.decline(["o1"], refuse_s=60)
    gateway.decline([], refuse_s=60)
    gateway.revive()
    gateway.kill(TaskRef("t1", "a1"), grace_s=5)
    gateway.reconcile([TaskRef("t1", "a1")])
    gateway.reconcile([])
    ref = {"task_id": {"value": "t1"}, "agent_id": {"value": "a1"}}
    grace = {"kill_policy": {"grace_period": {"nanoseconds": 5_000_000_000}}}
    expected = [
        {
            "type": "DECLINE",
            "decline": {"offer_ids": [{"value": "o1"}], "filters": {"refuse_seconds": 60}},
        },
        {"type": "REVIVE"},
        {"type": "KILL", "kill": {**ref, **grace}},
        {"type": "RECONCILE", "reconcile": {"tasks": [ref]}},
        {"type": "RECONCILE", "reconcile": {"tasks": []}},
    ]
    assert [call.json for call in master.calls()] == [
        {**body, "framework_id": {"value": FRAMEWORK_ID}} for body in expected
    ]
    assert master.connections == 2  # the stream, and one for all calls


def test_updates_are_acknowledged_only_when_told(master: FakeMaster, gateway: Gateway) -> None:
    gateway.subscribe()
    status = {
        "task_id": {"value": "t1"},
        "agent_id": {"value": "a1"},
        "state": "TASK_RUNNING",
        "uuid": "AAAAAAAAAAAAAAAAAAAAAQ==",
    }
    master.stream.event({"type": "UPDATE", "update": {"status": status}})
    received = gateway.expect(UpdateReceived).update
    gateway.revive()
    assert [call.json["type"] for call in master.calls()] == ["REVIVE"]
    gateway.acknowledge([received, TaskUpdate("t2", TaskState.LOST, "a1")])
    (acknowledged,) = master.calls("ACKNOWLEDGE")
    assert acknowledged.json["acknowledge"] == {
        "task_id": {"value": "t1"},
        "agent_id": {"value": "a1"},
        "uuid": "AAAAAAAAAAAAAAAAAAAAAQ==",
    }


def test_many_acknowledgements_are_sent_before_their_answers_are_read(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.subscribe()
    waiting: list[bytes] = []

    def answer_the_hundredth(peer: Peer, request: Request) -> None:
        waiting.append(response(202))
        if len(waiting) == 100:
            peer.raw(b"".join(waiting))

    master.answer = answer_the_hundredth
    gateway.acknowledge([update(number) for number in range(100)])
    assert len(master.calls("ACKNOWLEDGE")) == 100


def test_more_acknowledgements_than_fit_in_one_go_all_arrive(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.subscribe()
    gateway.acknowledge([update(number) for number in range(300)])
    tasks = {call.json["acknowledge"]["task_id"]["value"] for call in master.calls("ACKNOWLEDGE")}
    assert len(tasks) == 300


def test_calls_before_the_subscription_raise(master: FakeMaster, gateway: Gateway) -> None:
    for call in (
        lambda: gateway.launch(["o"], [TASK], refuse_s=1),
        lambda: gateway.decline(["o"], refuse_s=1),
        gateway.revive,
        lambda: gateway.kill(TaskRef("t", "a"), grace_s=1),
        lambda: gateway.acknowledge([update()]),
        lambda: gateway.reconcile([]),
        gateway.agents,
    ):
        with pytest.raises(GatewayError, match="not started"):
            call()
    master.scripts.append(opened)  # headers, and no SUBSCRIBED: pymesos would be "connected"
    gateway.start(None)
    master.wait(lambda: master.streams)
    with pytest.raises(GatewayError, match="not subscribed"):
        gateway.launch(["o"], [TASK], refuse_s=1)
    assert master.calls() == []


def test_a_hung_call_times_out_and_the_stream_goes_on(master: FakeMaster) -> None:
    gateway = Gateway(master.address, call_timeout_s=0.1).subscribe()
    master.answer = lambda peer, request: master.stream.event(RESCIND)
    with pytest.raises(GatewayError, match="timed out"):
        gateway.revive()
    gateway.expect(OfferRescinded)
    master.answer = lambda peer, request: peer.raw(response(202))
    gateway.revive()
    assert len(master.calls("REVIVE")) == 2
    gateway.stop()


def test_a_call_in_flight_fails_when_its_stream_ends(master: FakeMaster, gateway: Gateway) -> None:
    gateway.subscribe()
    master.answer = lambda peer, request: master.stream.close()
    with pytest.raises(GatewayError):
        gateway.revive()
    gateway.expect(Disconnected)


def test_a_call_connection_that_the_master_closed_while_idle_is_replaced(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.subscribe()
    closed = threading.Event()

    def answer_and_close(peer: Peer, request: Request) -> None:
        peer.raw(response(202))
        peer.close()
        closed.set()

    master.answer = answer_and_close
    gateway.revive()
    assert closed.wait(DEADLINE_S)
    gateway.revive()
    assert len(master.calls("REVIVE")) == 2


def test_an_answer_that_drips_in_does_not_outlast_the_time_out(master: FakeMaster) -> None:
    gateway = Gateway(master.address, call_timeout_s=0.1).subscribe()
    given_up = threading.Event()

    def drip(peer: Peer, request: Request) -> None:
        while not given_up.wait(0.001):
            peer.raw(b"H" if not peer.stream_id else b"x")
            peer.stream_id = "begun"

    master.answer = lambda peer, request: (peer.raw(b"HTTP/1.1 202 "), drip(peer, request))[1]
    with pytest.raises(GatewayError, match="timed out"):
        gateway.revive()
    given_up.set()
    gateway.stop()


def test_a_master_that_wants_the_connection_closed_gets_a_new_one(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.subscribe()
    master.answer = lambda peer, request: peer.raw(response(202, Connection="close"))
    gateway.revive()
    gateway.revive()
    assert master.connections == 3


def test_a_doubt_about_an_older_stream_leaves_the_present_one_alone(
    master: FakeMaster, gateway: Gateway
) -> None:
    driver = gateway.subscribe()._running()
    driver.subscription.kick("another stream", "it was refused")
    driver._notify()
    gateway.revive()
    master.stream.event(RESCIND)
    assert gateway.until(OfferRescinded) == [OfferRescinded("o1")]


def test_a_refused_call_says_why_and_shows_no_secret(
    master: FakeMaster, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.subscribe()
    master.answer = lambda peer, request: peer.raw(response(400, b"Expecting 'type'"))
    with pytest.raises(GatewayError, match="HTTP 400 Expecting 'type'") as raised:
        gateway.kill(TaskRef("t", "a"), grace_s=1)
    encoded = base64.b64encode(f"scale:{SECRET}".encode()).decode()
    for text in (str(raised.value), caplog.text, repr(vars(gateway._running()).keys())):
        assert SECRET not in text
        assert encoded not in text


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b"Framework is not subscribed"),
        (400, b"The stream ID 'x' didn't match the stream ID currently associated"),
        (307, b""),
    ],
)
def test_a_master_that_forgot_our_stream_gets_a_new_one(
    master: FakeMaster, gateway: Gateway, status: int, body: bytes
) -> None:
    gateway.subscribe()
    master.answer = lambda peer, request: peer.raw(response(status, body))
    with pytest.raises(GatewayError):
        gateway.revive()
    gateway.expect(Disconnected)
    gateway.expect(Subscribed)
    master.answer = lambda peer, request: peer.raw(response(202))
    gateway.revive()
    old, new = master.calls("REVIVE")
    assert (old.headers["mesos-stream-id"], new.headers["mesos-stream-id"]) == (
        "stream-1",
        "stream-2",
    )


def test_one_gateways_credentials_do_not_reach_anothers_master(
    master: FakeMaster, gateways: list[MesosGateway]
) -> None:
    with FakeMaster() as other:
        first = Gateway(master.address).subscribe()
        second = Gateway(other.address, principal=None, secret=None).subscribe()
        first.revive()
        second.revive()
        second.agents()
        first.stop()
        second.stop()
        assert all("authorization" in request.headers for request in master.requests)
        assert all("authorization" not in request.headers for request in other.requests)
        assert "principal" not in other.subscribes()[0].json["subscribe"]["framework_info"]


def test_agents_are_asked_of_the_leader_with_credentials(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.subscribe()
    slaves = (
        b'{"slaves": [{"id": "s", "hostname": "h", "active": true,'
        b' "pid": "slave(1)@10.0.0.9:5055", "resources": {"cpus": 2.5, "mem": 64}}]}'
    )
    master.agents = response(200, slaves)
    (agent,) = gateway.agents()
    assert (agent.address, agent.port) == ("10.0.0.9", 5055)
    assert agent.total == Resources(2500, 64)
    assert "authorization" in master.requests[-1].headers
    with FakeMaster() as follower:
        follower.agents, master.agents = (
            master.agents,
            response(307, Location=f"//{follower.address}/slaves"),
        )
        assert gateway.agents() == [agent]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(200, b"[]"), "no sense"),
        (response(200, b'{"slaves": [{"active": true}]}'), "no sense"),
        (response(403), "HTTP 403"),
        (response(307), "HTTP 307"),
        (b"nonsense\r\n\r\n", "Expected HTTP"),
    ],
)
def test_a_list_of_agents_that_is_none_is_an_error(
    master: FakeMaster, gateway: Gateway, answer: bytes, reason: str
) -> None:
    gateway.subscribe()
    master.agents = answer
    with pytest.raises(GatewayError, match=reason):
        gateway.agents()


def test_masters_that_redirect_in_circles_are_an_error(
    master: FakeMaster, gateway: Gateway
) -> None:
    gateway.subscribe()
    master.agents = response(307, Location=f"//{master.address}/slaves")
    with pytest.raises(GatewayError, match="in circles"):
        gateway.agents()


def test_health_shows_whether_mesos_is_heard(master: FakeMaster, gateway: Gateway) -> None:
    assert gateway.health().subscribed is False
    gateway.subscribe()
    health = gateway.health()
    assert (health.subscribed, health.attempts) == (True, 1)
    assert 0 <= health.last_event_age_s < DEADLINE_S


@pytest.mark.parametrize("text", ["", "http://m:5050", "m:x"])
def test_a_master_that_is_none_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="master"):
        Gateway(text)
