"""What ended pymesos' own thread, or held it up: each must cost one attempt, or one call."""

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_mesos_master import FakeMaster, response
from watched_gateway import DEADLINE_S, FAST, RESCIND, Gateway

from scale.core.cluster import Disconnected, OfferRescinded, Subscribed, TaskState, TaskUpdate
from scale.core.errors import GatewayError
from scale.mesos.driver import Driver
from scale.mesos.subscription import Timing

UPDATE = TaskUpdate("t1", TaskState.RUNNING, "a1", "AAAAAAAAAAAAAAAAAAAAAQ==")


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with FakeMaster() as fake:
        yield fake


@pytest.fixture
def full() -> Iterator[str]:
    """Give the address of a listener that takes no more connections: SYNs are dropped."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting: list[socket.socket] = []
    while _connects(listener.getsockname(), waiting):
        assert len(waiting) < 64
    yield "{}:{}".format(*listener.getsockname())
    for each in (*waiting, listener):
        each.close()


def _connects(address: tuple[str, int], waiting: list[socket.socket]) -> bool:
    trial = socket.socket()
    trial.setblocking(False)
    trial.connect_ex(address)
    waiting.append(trial)
    return bool(select.select([], [trial], [], 0.1)[1])


def test_a_master_that_takes_no_connection_is_one_failed_attempt(
    master: FakeMaster, full: str
) -> None:
    timing = Timing(connect_s=0.05, first_pause_s=0.001)
    gateway = Gateway(f"{full},{master.address}", timing=timing)
    gateway.start(None)
    assert gateway.expect(Subscribed).master == master.address
    gateway.stop()


def test_stopping_ends_a_call_that_hangs(master: FakeMaster) -> None:
    gateway = Gateway(master.address, call_timeout_s=60).subscribe()
    asked, failed = threading.Event(), threading.Event()
    master.answer = lambda peer, request: asked.set()

    def call() -> None:
        with pytest.raises(GatewayError):
            gateway.revive()
        failed.set()

    calling = threading.Thread(target=call)
    calling.start()
    assert asked.wait(DEADLINE_S)
    before = time.monotonic()
    gateway.stop()
    assert time.monotonic() - before < 2
    assert failed.wait(DEADLINE_S)
    calling.join()


def test_a_hung_call_does_not_keep_the_stream_from_being_replaced(master: FakeMaster) -> None:
    gateway = Gateway(master.address, call_timeout_s=60).subscribe()
    master.answer = lambda peer, request: master.stream.close()
    with pytest.raises(GatewayError):
        gateway.revive()
    gateway.expect(Disconnected)
    gateway.expect(Subscribed)
    gateway.stop()


def test_a_refused_acknowledgement_is_an_error_and_the_stream_goes_on(master: FakeMaster) -> None:
    gateway = Gateway(master.address).subscribe()
    master.answer = lambda peer, request: peer.raw(response(500, b"no"))
    with pytest.raises(GatewayError, match="refused 2 of 2 calls: HTTP 500 no"):
        gateway.acknowledge([UPDATE, UPDATE])
    master.stream.event(RESCIND)
    assert gateway.until(OfferRescinded) == [OfferRescinded("o1")]
    assert len(master.subscribes()) == 1
    gateway.stop()


def test_a_fault_of_our_own_does_not_end_the_thread(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Driver.subscribe_request

    def fail_once(driver: Driver, address: str) -> bytes:
        monkeypatch.setattr(Driver, "subscribe_request", real)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Driver, "subscribe_request", fail_once)
    gateway = Gateway(master.address, timing=FAST).subscribe()
    gateway.stop()
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in logged] == ["mesos subscription failed"]


def test_a_connection_that_is_cut_in_silence_is_found_out_by_the_kernel_too(
    master: FakeMaster,
) -> None:
    gateway = Gateway(master.address).subscribe()
    stream = gateway._running().subscription._stream
    assert stream is not None
    probes = stream._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert probes == 1
    gateway.stop()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("INVERSE_OFFERS", {"inverse_offers": [{"id": {"value": "i"}}]}),
        ("RESCIND_INVERSE_OFFER", {"inverse_offer_id": {"value": "i"}}),
        ("UPDATE_OPERATION_STATUS", {"status": {"state": "OPERATION_FINISHED"}}),
        (
            "MESSAGE",
            {"agent_id": {"value": "a"}, "executor_id": {"value": "e"}, "data": "aGk="},
        ),
        (
            "FAILURE",
            {"agent_id": {"value": "a"}, "executor_id": {"value": "e"}, "status": 1792},
        ),
    ],
)
def test_an_event_that_says_nothing_to_us_is_passed_over_without_a_complaint(
    master: FakeMaster, kind: str, payload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(master.address).subscribe()
    master.stream.event({"type": kind, kind.lower(): payload})
    master.stream.event(RESCIND)
    assert gateway.until(OfferRescinded) == [OfferRescinded("o1")]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    gateway.stop()
