"""Section 5: updates in order until they are acknowledged, and reconciliation."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from contract_cluster import Cluster, measured, wait_for
from contract_framework import Framework, cpus_of, is_update

Make = Callable[..., Framework]
UNKNOWN_OR_LOST = pytest.mark.parametrize(
    ("capabilities", "state"), [([{"type": "PARTITION_AWARE"}], "TASK_UNKNOWN"), ([], "TASK_LOST")]
)


def test_an_update_is_held_back_until_the_one_before_is_acknowledged(framework: Framework) -> None:
    task = framework.launch("true")
    first = framework.status(task)
    assert first["state"] == "TASK_STARTING"
    framework.none(
        lambda event: is_update(event) and event["update"]["status"]["uuid"] != first["uuid"], 0.5
    )
    framework.acknowledge(first)
    assert framework.status(task)["state"] in ("TASK_STARTING", "TASK_RUNNING")


def test_an_unacknowledged_update_is_repeated_after_the_period_and_then_twice_it(
    framework: Framework,
) -> None:
    period = framework.cluster.ack_retry_s
    expected = [period * 2**index for index in range(3 if period < 1 else 2)]

    def waits() -> list[float]:
        task = framework.launch("sleep 100")
        uuid, times = framework.status(task)["uuid"], [time.monotonic()]
        for _ in expected:
            assert framework.status(task, 5 * period + 10)["uuid"] == uuid
            times.append(time.monotonic())
        framework.call("REVIVE")
        return [after - before for before, after in itertools.pairwise(times)]

    right = pytest.approx(expected, rel=0.2, abs=0.25)
    assert measured(waits, lambda found: found == right) == right


def test_the_last_update_is_repeated_too_and_stays_the_same(framework: Framework) -> None:
    task = framework.launch("exit 3")
    while (last := framework.status(task))["state"] != "TASK_FAILED":
        framework.acknowledge(last)
    assert framework.status(task, 2 * framework.cluster.ack_retry_s + 10) == last


def test_a_wrong_uuid_or_task_acknowledges_nothing(framework: Framework) -> None:
    task = framework.launch("true")
    first = framework.status(task)
    wrong = {**first, "uuid": "AAAAAAAAAAAAAAAAAAAAAA=="}
    for status in (wrong, {**first, "task_id": {"value": "other"}}):
        framework.acknowledge(status)
    framework.acknowledge(wrong)
    assert framework.status(task, 3 * framework.cluster.ack_retry_s + 10)["uuid"] == first["uuid"]
    framework.acknowledge(first)
    framework.acknowledge(first)
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


@pytest.mark.local_mesos("resend-at-once")
def test_a_new_subscription_brings_the_unacknowledged_update_at_once(
    make_framework: Make, start_local: Callable[..., Cluster]
) -> None:
    framework = make_framework(start_local("--ack-retry-s", "60")).subscribe()
    task = framework.launch("true")
    uuid = framework.status(task)["uuid"]
    framework.disconnect()
    wait_for(lambda: framework.call("REVIVE").status == 403, "the disconnect")
    framework.subscribe()
    assert framework.status(task, 5)["uuid"] == uuid


def test_the_resources_of_an_ended_task_come_back_before_its_updates_are_acknowledged(
    framework: Framework,
) -> None:
    whole = framework.offer()
    half = cpus_of(whole) / 2
    task = framework.launch_on(whole, "true", cpus=half)
    again = framework.offer(cpus=half * 1.1, like=whole)
    assert [r for r in again["resources"] if r["name"] == "cpus"] == [
        r for r in whole["resources"] if r["name"] == "cpus"
    ]
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


def reconciled(framework: Framework, *tasks: dict[str, Any]) -> dict[str, Any]:
    framework.call("RECONCILE", reconcile={"tasks": list(tasks)})
    found = framework.until(
        lambda e: is_update(e) and e["update"]["status"].get("reason") == "REASON_RECONCILIATION"
    )
    status = dict(found["update"]["status"])
    assert status["source"] == "SOURCE_MASTER"
    assert "uuid" not in status
    return status


@pytest.mark.parametrize("capabilities", [[], [{"type": "PARTITION_AWARE"}]])
def test_a_known_task_is_reconciled_with_its_latest_state(
    make_framework: Make, capabilities: list[dict[str, str]]
) -> None:
    framework = make_framework(capabilities=capabilities).subscribe()
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    status = reconciled(framework, {"task_id": task["task_id"]})
    assert (status["state"], status["agent_id"]) == ("TASK_RUNNING", task["agent_id"])
    assert status["message"] == "Reconciliation: Latest task state"
    assert "container_status" in status


@UNKNOWN_OR_LOST
def test_a_task_that_ended_is_reconciled_with_its_end_until_that_is_acknowledged(
    make_framework: Make, capabilities: list[dict[str, str]], state: str
) -> None:
    framework = make_framework(capabilities=capabilities).subscribe()
    task = framework.launch("exit 3")
    while (last := framework.status(task))["state"] != "TASK_FAILED":
        framework.acknowledge(last)
    asked = {"task_id": task["task_id"]}
    assert reconciled(framework, asked)["state"] == "TASK_FAILED"
    framework.acknowledge(last)
    assert reconciled(framework, asked)["state"] == state


def test_implicit_reconciliation_names_every_task_that_is_known(framework: Framework) -> None:
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    framework.call("REVIVE")
    ended = framework.launch("true")
    while framework.status(ended)["state"] != "TASK_FINISHED":
        framework.acknowledge(framework.seen[-1]["update"]["status"])
    framework.call("RECONCILE", reconcile={"tasks": []})
    found: dict[str, str] = {}
    while len(found) < 2:
        status = framework.until(is_update)["update"]["status"]
        if status.get("reason") == "REASON_RECONCILIATION":
            found[status["task_id"]["value"]] = status["state"]
    assert found == {task["name"]: "TASK_RUNNING", ended["name"]: "TASK_FINISHED"}


@pytest.mark.parametrize(
    ("capabilities", "with_agent", "state"),
    [
        ([{"type": "PARTITION_AWARE"}], True, "TASK_GONE"),
        ([{"type": "PARTITION_AWARE"}], False, "TASK_UNKNOWN"),
        ([], True, "TASK_LOST"),
        ([], False, "TASK_LOST"),
    ],
)
def test_an_unknown_task_is_gone_unknown_or_lost(
    make_framework: Make, capabilities: list[dict[str, str]], with_agent: bool, state: str
) -> None:
    framework = make_framework(capabilities=capabilities).subscribe()
    asked: dict[str, Any] = {"task_id": {"value": "never-existed"}}
    if with_agent:
        asked["agent_id"] = framework.offer()["agent_id"]
    assert reconciled(framework, asked)["state"] == state


def test_several_tasks_are_answered_in_one_go(framework: Framework) -> None:
    names = [f"never-{number}" for number in range(3)]
    framework.call("RECONCILE", reconcile={"tasks": [{"task_id": {"value": n}} for n in names]})
    told = [framework.until(is_update)["update"]["status"] for _ in names]
    assert sorted(status["task_id"]["value"] for status in told) == names


@UNKNOWN_OR_LOST
def test_a_task_on_an_agent_that_never_was_is_not_known(
    make_framework: Make, capabilities: list[dict[str, str]], state: str
) -> None:
    framework = make_framework(capabilities=capabilities).subscribe()
    asked = {"task_id": {"value": "x"}, "agent_id": {"value": "never-was"}}
    assert reconciled(framework, asked)["state"] == state


@UNKNOWN_OR_LOST
def test_a_finished_and_acknowledged_task_is_not_known(
    make_framework: Make, capabilities: list[dict[str, str]], state: str
) -> None:
    framework = make_framework(capabilities=capabilities).subscribe()
    task = framework.launch("true")
    framework.run_until(task)
    assert reconciled(framework, {"task_id": task["task_id"]})["state"] == state


@UNKNOWN_OR_LOST
def test_a_kill_of_an_unknown_task_is_answered_like_a_reconciliation(
    make_framework: Make, capabilities: list[dict[str, str]], state: str
) -> None:
    framework = make_framework(capabilities=capabilities).subscribe()
    framework.call("KILL", kill={"task_id": {"value": "never-existed"}})
    status = framework.until(is_update)["update"]["status"]
    assert (status["state"], status["reason"]) == (state, "REASON_RECONCILIATION")
