"""Events arrive, and neither a bad one nor silence ends the driver; the master may."""

import json
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
from fake_mesos_master import (
    FRAMEWORK_ID,
    FakeMaster,
    accept,
    accept_with_heartbeat,
    error,
    refuse,
)
from watched_gateway import DEADLINE_S, FAST, OFFERS, RESCIND, Gateway

from scale.core.cluster import (
    AgentLost,
    ClusterEvent,
    Deposed,
    Disconnected,
    FrameworkRemoved,
    NotSubscribed,
    OfferRescinded,
    OffersReceived,
    Subscribed,
    TaskState,
    UpdateReceived,
)
from scale.core.errors import GatewayError
from scale.mesos.driver import Driver


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with FakeMaster() as fake:
        yield fake


@pytest.fixture
def gateway(master: FakeMaster) -> Iterator[Gateway]:
    made = Gateway(master.address)
    yield made
    made.stop()


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
    assert [type(event) for event in events] == [
        Disconnected,
        NotSubscribed,
        NotSubscribed,
        Subscribed,
    ]


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
