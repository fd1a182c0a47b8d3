"""Calls to the master: what they say, and what becomes of those that fail."""

import base64
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fake_mesos_master import (
    FRAMEWORK_ID,
    FakeMaster,
    Peer,
    Request,
    opened,
    response,
)
from watched_gateway import DEADLINE_S, RESCIND, SECRET, Gateway

from scale.core.cluster import (
    Disconnected,
    OfferRescinded,
    Subscribed,
    TaskRef,
    TaskSpec,
    TaskState,
    TaskUpdate,
    UpdateReceived,
)
from scale.core.errors import GatewayError
from scale.core.resources import Resources

TASK = TaskSpec("t1", "a1", "n", "true", Resources(100, 32))


def update(number: int = 1, **more: Any) -> TaskUpdate:
    uuid = base64.b64encode(number.to_bytes(16)).decode()
    return TaskUpdate(f"t{number}", TaskState.RUNNING, "a1", uuid, **more)


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with FakeMaster() as fake:
        yield fake


@pytest.fixture
def gateway(master: FakeMaster) -> Iterator[Gateway]:
    made = Gateway(master.address)
    yield made
    made.stop()


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
    master: FakeMaster,
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
        (response(200, b'{"slaves": ["none"]}'), "no sense"),
        (
            response(
                200,
                b'{"slaves": [{"id": "s", "hostname": "h", "active": true,'
                b' "resources": {"cpus": "Infinity"}}]}',
            ),
            "no sense",
        ),
        (2 * response(200, b'{"slaves": []}'), "what was not asked"),
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


def test_masters_that_redirect_slowly_take_no_longer_than_one_call() -> None:
    class Slow(FakeMaster):
        def handle(self, peer: Peer, request: Request) -> None:
            if request.target == "/slaves":
                threading.Event().wait(0.3)
            super().handle(peer, request)

    with Slow() as master:
        gateway = Gateway(master.address, call_timeout_s=0.5).subscribe()
        master.agents = response(307, Location=f"//{master.address}/slaves")
        with pytest.raises(GatewayError, match="timed out"):
            gateway.agents()
        gateway.stop()


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
