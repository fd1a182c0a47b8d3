"""Sections 1.2, 1.3 and 3: subscriptions, their streams, and the life of a framework."""

import time
from collections.abc import Callable

import pytest
from contract_cluster import Cluster, measured, wait_for
from contract_framework import Framework, cpus_of

Make = Callable[..., Framework]


def test_the_first_event_is_subscribed_and_a_heartbeat_follows(framework: Framework) -> None:
    subscribed = framework.seen[0]["subscribed"]
    assert subscribed["framework_id"]["value"] == framework.framework_id
    master = subscribed["master_info"]
    assert framework.cluster.is_at(f"{master['address']['ip']}:{master['port']}")
    assert framework.next() == {"type": "HEARTBEAT"}


def test_heartbeats_keep_their_interval_while_other_events_flow(framework: Framework) -> None:
    interval = framework.seen[0]["subscribed"]["heartbeat_interval_seconds"]
    assert interval == framework.cluster.heartbeat_s
    framework.until(lambda event: event["type"] == "HEARTBEAT")
    last = time.monotonic()

    def late() -> float:
        nonlocal last
        before = last
        framework.until(lambda event: event["type"] == "HEARTBEAT", interval + 10)
        last = time.monotonic()
        return float(abs(last - before - interval))

    tolerated = 0.3 * interval + 0.2
    assert measured(late, lambda seconds: seconds < tolerated) < tolerated


def test_the_stream_is_chunked_json_with_a_stream_id(make_framework: Make) -> None:
    framework = make_framework()
    stream = framework.open()
    assert stream.headers["Transfer-Encoding"] == "chunked"
    assert stream.headers["Content-Type"] == "application/json"
    assert stream.headers["Mesos-Stream-Id"]
    assert stream.headers["Date"].endswith(" GMT")
    length = int(stream.readline())
    assert stream.read(length).startswith(b'{"type":"SUBSCRIBED"')
    stream.close()
    framework.disconnect()


def test_a_second_subscription_ends_the_first_and_its_stream_id(make_framework: Make) -> None:
    first = make_framework().subscribe()
    stale = first.offer()
    second = make_framework(id={"value": first.framework_id}).subscribe()
    assert second.framework_id == first.framework_id
    error = first.until(lambda event: event["type"] == "ERROR")
    assert error["error"]["message"] == "Framework failed over"
    assert first.next()["type"] == "CLOSED"
    assert "RESCIND" not in {event["type"] for event in first.seen}
    assert first.call("REVIVE").status == 400
    first.stream_id = ""
    assert second.offer(like=stale)["resources"] == stale["resources"]
    task = second.launch_on(stale, "true")
    assert second.status(task)["reason"] == "REASON_INVALID_OFFERS"


def test_a_disconnected_framework_gets_403_and_keeps_its_id(make_framework: Make) -> None:
    framework = make_framework().subscribe()
    framework.offer()
    framework.disconnect()
    wait_for(lambda: framework.call("REVIVE").status == 403, "403 after the disconnect")
    known = framework.framework_id
    framework.subscribe()
    assert framework.framework_id == known
    assert framework.offer()


def test_an_unknown_id_is_accepted_and_kept(make_framework: Make) -> None:
    made_up = f"mine-{time.monotonic_ns()}"
    framework = make_framework(id={"value": made_up}).subscribe()
    assert framework.framework_id == made_up


def test_a_framework_that_was_torn_down_is_told_so_in_an_error_event(make_framework: Make) -> None:
    framework = make_framework().subscribe()
    assert framework.call("TEARDOWN").status == 202
    framework.until(lambda event: event["type"] == "CLOSED")
    framework.subscribe()
    assert framework.seen[-1]["error"]["message"] == "Framework has been removed"
    assert framework.next()["type"] == "CLOSED"
    framework.stream_id = ""


def test_what_had_ended_when_its_framework_was_torn_down_is_shown_with_its_end(
    cluster: Cluster, make_framework: Make
) -> None:
    framework = make_framework().subscribe()
    ended = framework.launch("exit 3")
    while (status := framework.status(ended))["state"] != "TASK_FAILED":
        framework.acknowledge(status)
    framework.call("TEARDOWN")
    framework.stream_id = ""
    completed = cluster.get("/state").json["completed_frameworks"]
    [shown] = [each for each in completed if each["id"] == framework.framework_id]
    assert [each["state"] for each in shown["completed_tasks"]] == ["TASK_FAILED"]


def test_without_a_failover_timeout_a_disconnect_ends_the_framework(make_framework: Make) -> None:
    framework = make_framework(failover_timeout=0).subscribe()
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    framework.disconnect()
    wait_for(lambda: framework.call("REVIVE").status == 400, "the framework's removal")
    framework.subscribe()
    assert framework.seen[-1]["error"]["message"] == "Framework has been removed"
    framework.stream_id = ""


def test_the_failover_timeout_runs_from_the_disconnect(make_framework: Make) -> None:
    framework = make_framework(failover_timeout=1.5).subscribe()
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    framework.disconnect()
    wait_for(lambda: framework.call("REVIVE").status == 403, "the disconnect")
    framework.subscribe()
    framework.none(lambda event: event["type"] in ("ERROR", "CLOSED"), 1.7)
    framework.disconnect()
    wait_for(lambda: framework.call("REVIVE").status == 400, "the framework's removal")
    framework.stream_id = ""
    completed = framework.cluster.get("/state").json["completed_frameworks"]
    [shown] = [each for each in completed if each["id"] == framework.framework_id]
    states = {each["id"]: each["state"] for each in shown["completed_tasks"]}
    assert states == {task["name"]: "TASK_KILLED"}
    wait_for(framework.cluster.is_idle, "the end of its task")


MULTI_ROLE = {"capabilities": [{"type": "PARTITION_AWARE"}, {"type": "MULTI_ROLE"}]}


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"role": "a b"}, "'FrameworkInfo.role' is not a valid role: Role component 'a b' is in"),
        (
            {"roles": ["a"]},
            "'FrameworkInfo.roles' must not be set when the framework is not MULTI_",
        ),
        ({"failover_timeout": 1e30}, "The framework failover_timeout (1e+30) is invalid"),
        ({"roles": ["a"], "role": "a", **MULTI_ROLE}, "'FrameworkInfo.role' must not be set when"),
        ({"roles": ["a", "a"], **MULTI_ROLE}, "'FrameworkInfo.roles' contains duplicate items"),
        ({"roles": ["a", "b/"], **MULTI_ROLE}, "'FrameworkInfo.roles' contains invalid roles"),
    ],
)
def test_a_refused_framework_gets_one_error_event_in_a_stream(
    make_framework: Make, info: dict[str, object], text: str
) -> None:
    framework = make_framework(**info).subscribe()
    assert framework.seen[-1]["type"] == "ERROR"
    assert framework.seen[-1]["error"]["message"].startswith(text)
    assert framework.next()["type"] == "CLOSED"
    framework.stream_id = ""


def test_only_a_role_of_its_own_can_be_suppressed_at_the_subscription(
    make_framework: Make,
) -> None:
    framework = make_framework().subscribe(suppressed_roles=["other"])
    assert framework.seen[-1]["error"]["message"].startswith("Suppressed role")
    framework.stream_id = ""


@pytest.mark.parametrize(
    "info",
    [
        {"failover_timeout": -1},
        {"failover_timeout": "600"},
        {"checkpoint": "true", "role": None, "novel": {}},
        {"capabilities": [{"type": "PARTITION_AWARE"}, {"type": "NOVEL"}]},
        {"user": ""},
    ],
)
def test_a_framework_that_looks_odd_is_accepted(
    make_framework: Make, info: dict[str, object]
) -> None:
    assert make_framework(**info).subscribe().seen[-1]["type"] == "SUBSCRIBED"


def test_what_a_framework_says_of_itself_may_change_but_not_its_user(
    cluster: Cluster, make_framework: Make
) -> None:
    framework = make_framework().subscribe()
    framework.info |= {"user": "nobody", "name": "renamed", "webui_url": "http://new/"}
    framework.info |= {"checkpoint": False, "failover_timeout": 900.0}
    framework.subscribe()
    shown = cluster.get("/state").json["frameworks"]
    [mine] = [each for each in shown if each["id"] == framework.framework_id]
    assert (mine["name"], mine["webui_url"]) == ("renamed", "http://new/")
    assert mine["failover_timeout"] == 900.0
    assert (mine["user"], mine["checkpoint"]) == (cluster.user, True)
    assert mine["reregistered_time"] >= mine["registered_time"]


def test_the_length_of_a_record_counts_bytes(framework: Framework) -> None:
    task = framework.launch("exit 3", task_id="t\u00e4sk-\u2603-\U0001f600")
    assert framework.run_until(task)["state"] == "TASK_FAILED"


def test_a_framework_of_several_roles_gets_offers_that_say_for_which(make_framework: Make) -> None:
    framework = make_framework(roles=["eng/a", "eng/b"], **MULTI_ROLE)
    framework.subscribe(suppressed_roles=["eng/a"])
    offer = framework.offer()
    assert offer["allocation_info"] == {"role": "eng/b"}
    assert all(r["allocation_info"] == {"role": "eng/b"} for r in offer["resources"])


def test_a_framework_of_one_role_gets_offers_without_allocation_info(framework: Framework) -> None:
    offer = framework.offer()
    assert "allocation_info" not in offer
    assert all("allocation_info" not in r and r["role"] == "*" for r in offer["resources"])


def test_teardown_kills_the_tasks_and_their_resources_are_offered_to_others(
    make_framework: Make,
) -> None:
    framework = make_framework().subscribe()
    offer = framework.offer()
    task = framework.launch_on(offer, "sleep 100", cpus=cpus_of(offer) / 2)
    framework.run_until(task, "TASK_RUNNING")
    other = make_framework().subscribe()
    rest = other.offer(like=offer)
    framework.call("TEARDOWN")
    framework.none(lambda event: event["type"] == "UPDATE", 0.2)
    freed = other.offer(15, like=offer)
    assert cpus_of(rest) + cpus_of(freed) == pytest.approx(cpus_of(offer))


def test_the_master_shows_frameworks_agents_and_tasks(
    cluster: Cluster, framework: Framework
) -> None:
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    state = cluster.get("/state").json
    shown = [f for f in state["frameworks"] if f["id"] == framework.framework_id]
    assert [t["id"] for t in shown[0]["tasks"]] == [task["name"]]
    assert shown[0]["tasks"][0]["state"] == "TASK_RUNNING"
    slaves = cluster.get("/slaves").json["slaves"]
    used = [s["used_resources"]["cpus"] for s in slaves if s["id"] == task["agent_id"]["value"]]
    assert used[0] >= 0.1
    metrics = cluster.get("/metrics/snapshot").json
    assert metrics["master/tasks_running"] >= 1
    assert metrics["master/elected"] == 1
