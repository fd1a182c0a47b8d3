"""The gateway subscribes, whatever the master does to keep it from that."""

import base64
import json
import logging
import os
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_mesos_master import (
    FRAMEWORK_ID,
    FakeMaster,
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
)
from watched_gateway import DEADLINE_S, FAST, SECRET, Gateway

from scale.core.cluster import (
    Disconnected,
    NotSubscribed,
    Subscribed,
)
from scale.core.errors import GatewayError
from scale.mesos.driver import Driver
from scale.mesos.framework import framework_info
from scale.mesos.subscription import Timing


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with FakeMaster() as fake:
        yield fake


@pytest.fixture
def gateway(master: FakeMaster) -> Iterator[Gateway]:
    made = Gateway(master.address)
    yield made
    made.stop()


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


def test_503_is_answered_with_pauses() -> None:
    jitters: list[float] = []

    def jitter() -> float:
        jitters.append(1)
        return 1

    timing = Timing(first_pause_s=0.001, longest_pause_s=0.004, jitter=jitter)
    with FakeMaster(*[refuse(503, b"No leader elected")] * 5) as master:
        gateway = Gateway(master.address, timing=timing).subscribe()
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


def test_why_there_is_no_subscription_is_told_once_for_each_reason() -> None:
    with FakeMaster(refuse(401), refuse(401), refuse(503)) as master:
        gateway = Gateway(master.address)
        gateway.start(None)
        told = gateway.until(Subscribed)
        gateway.stop()
    refused = "the master refused to subscribe us with HTTP"
    assert told[:-1] == [NotSubscribed(f"{refused} 401"), NotSubscribed(f"{refused} 503")]


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
    [told] = gateway.drain()
    assert told == NotSubscribed(f"{address} cannot be reached: [Errno 111] Connection refused")


def test_an_error_that_is_not_final_is_logged_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FakeMaster(error("Role x is not valid")) as master:
        gateway = Gateway(master.address)
        gateway.start(None)
        told = gateway.until(Subscribed)
        gateway.stop()
    assert told[:-1] == [NotSubscribed("Role x is not valid")]
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
