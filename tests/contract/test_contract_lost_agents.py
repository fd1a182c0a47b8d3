"""What frameworks are told when an agent ends, hangs, leaves, or comes back."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_cluster import Cluster, wait_for
from contract_framework import Framework
from contract_parts import (
    TIMES,
    Parts,
    answer,
    brief,
    end_by_agent,
    is_alive,
    is_failure,
    running,
    sleeper,
)

pytestmark = pytest.mark.local_mesos("parts")
Make = Callable[..., Framework]
Start = Callable[..., Cluster]


# --- an agent that is killed ---


def test_the_tasks_of_a_killed_agent_die_and_are_told_as_gone(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework, "echo $$; exec sleep 60")
    pid, agents = sleeper(framework, task), parts.cluster.agents()
    parts.end(parts.agent_of(task))
    assert not is_alive(pid)
    told = end_by_agent(framework, task)
    assert brief(told) == ("TASK_GONE", "SOURCE_AGENT", "REASON_AGENT_RESTARTED")
    assert parts.cluster.agents() == agents
    assert "registered_time" in parts.cluster.get("/slaves").json["slaves"][0]


def test_an_agent_that_is_back_is_offered_and_runs_tasks(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    held = framework.offer()
    parts.end(parts.cluster.agents()[held["agent_id"]["value"]])
    rescinded = framework.until(lambda event: event["type"] == "RESCIND")
    assert rescinded["rescind"]["offer_id"] == held["id"]
    framework.unused.clear()
    task = framework.launch("echo back")
    assert framework.run_until(task)["state"] == "TASK_FINISHED"
    assert framework.output(task) == "back\n"


def test_an_agent_that_stays_away_is_lost_when_its_pings_run_out(
    start_local: Start, make_framework: Make
) -> None:
    parts = Parts(start_local(*TIMES, "--agent-restart-s", "600"))
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    framework.call("REVIVE")
    held = framework.offer()
    parts.send(parts.agent_of(task), signal.SIGKILL)
    after = framework.until(lambda event: event["type"] != "HEARTBEAT")
    assert (after["type"], after["rescind"]["offer_id"]) == ("RESCIND", held["id"])
    told = framework.status(task)
    assert brief(told) == ("TASK_UNREACHABLE", "SOURCE_MASTER", "REASON_AGENT_REMOVED")
    assert told["message"] == "health check timed out"
    assert framework.until(is_failure)["failure"] == {"agent_id": task["agent_id"]}
    assert not any(map(is_failure, framework.seen[:-1]))
    framework.stream_id = ""


def test_another_agent_does_not_notice(start_local: Start, make_framework: Make) -> None:
    parts = Parts(start_local(*TIMES, "--agents", "2"))
    framework = make_framework(parts.cluster).subscribe()
    first = framework.offer()
    second = framework.offer()
    assert first["agent_id"] != second["agent_id"]
    tasks = [framework.launch_on(offer, "echo $$; exec sleep 60") for offer in (first, second)]
    seen = [framework.run_until(task, "TASK_RUNNING") for task in tasks]
    assert {each["state"] for each in seen} == {"TASK_RUNNING"}
    pids = [sleeper(framework, task) for task in tasks]
    parts.end(parts.agent_of(tasks[0]))
    assert framework.run_until(tasks[0])["state"] == "TASK_GONE"
    assert [is_alive(pid) for pid in pids] == [False, True]
    assert answer(framework, tasks[1])["state"] == "TASK_RUNNING"


def test_results_that_were_not_acknowledged_are_told_at_once_by_the_new_process(
    start_local: Start, make_framework: Make
) -> None:
    parts = Parts(start_local(*TIMES, "--ack-retry-s", "30"))
    framework = make_framework(parts.cluster).subscribe()
    task = framework.launch("exit 3")
    while (last := framework.status(task))["state"] != "TASK_FAILED":
        framework.acknowledge(last)
    parts.end(parts.agent_of(task))
    repeated = framework.status(task)
    while repeated["state"] != "TASK_FAILED":
        repeated = framework.status(task)
    assert repeated["uuid"] == last["uuid"]
    framework.acknowledge(repeated)
    assert answer(framework, task, with_agent=False)["state"] == "TASK_UNKNOWN"


def test_no_task_outlives_an_agent_and_its_guard_that_are_killed_together(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework, "echo $$; exec sleep 60")
    pid, agent = sleeper(framework, task), parts.agent_of(task)
    parts.send(agent, signal.SIGSTOP)
    os.kill(guard_of(parts.pid(agent)), signal.SIGKILL)
    parts.end(agent)
    assert not is_alive(pid)
    assert brief(end_by_agent(framework, task))[0] == "TASK_GONE"


def guard_of(agent: int) -> int:
    """Return the process that an agent has for the case that it is killed."""
    below = map(int, Path(f"/proc/{agent}/task/{agent}/children").read_text().split())
    [found] = [pid for pid in below if b"guard.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def test_without_checkpoint_tasks_are_lost_at_the_disconnect_and_never_come_back(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster, checkpoint=False).subscribe()
    task = running(framework)
    agent = parts.agent_of(task)
    parts.send(agent, signal.SIGKILL)
    told = framework.status(task)
    assert brief(told) == ("TASK_LOST", "SOURCE_MASTER", "REASON_AGENT_DISCONNECTED")
    assert "uuid" not in told
    framework.offer()  # the agent is back
    framework.none(lambda event: event["type"] == "UPDATE", 0.5)


# --- an agent that hangs ---


@pytest.mark.parametrize(
    ("capabilities", "lost"),
    [([{"type": "PARTITION_AWARE"}], "TASK_UNREACHABLE"), ([], "TASK_LOST")],
)
def test_a_frozen_agent_is_unreachable_and_its_tasks_come_back_with_it(
    parts: Parts, make_framework: Make, capabilities: list[Any], lost: str
) -> None:
    framework = make_framework(parts.cluster, capabilities=capabilities).subscribe()
    task = running(framework)
    framework.call("REVIVE")
    held, agent = framework.offer(), parts.agent_of(task)
    agent_id = task["agent_id"]["value"]
    parts.send(agent, signal.SIGSTOP)
    try:
        rescinded = framework.until(lambda event: event["type"] == "RESCIND")
        assert rescinded["rescind"]["offer_id"] == held["id"]
        told = framework.status(task)
        assert brief(told) == (lost, "SOURCE_MASTER", "REASON_AGENT_REMOVED")
        assert told["unreachable_time"]["nanoseconds"] > 0
        assert "uuid" not in told
        failure = framework.until(is_failure)["failure"]
        assert failure == {"agent_id": {"value": agent_id}}
        asked = answer(framework, task)
        assert (asked["state"], asked["unreachable_time"]) == (lost, told["unreachable_time"])
        state = parts.cluster.get("/state").json
        assert state["unreachable_slaves"] == 1
        assert len(state["frameworks"][0]["unreachable_tasks"]) == 1
        assert parts.cluster.agents() == {}
    finally:
        parts.send(agent, signal.SIGCONT)
    back = framework.status(task)
    assert brief(back) == ("TASK_RUNNING", "SOURCE_MASTER", "REASON_AGENT_REREGISTERED")
    assert "uuid" not in back
    assert framework.offer()["agent_id"]["value"] == agent_id
    framework.call("KILL", kill={"task_id": task["task_id"]})
    assert framework.run_until(task)["state"] == "TASK_KILLED"


def test_what_ended_while_its_agent_hung_is_told_when_it_is_back(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework, "echo $$; exec sleep 60")
    pid, agent = sleeper(framework, task), parts.agent_of(task)
    parts.send(agent, signal.SIGSTOP)
    try:
        framework.until(is_failure)
        os.kill(pid, signal.SIGKILL)
    finally:
        parts.send(agent, signal.SIGCONT)
    told = end_by_agent(framework, task)
    assert (told["state"], told["source"]) == ("TASK_FAILED", "SOURCE_EXECUTOR")
    assert told["message"] == "Command terminated with signal Killed"
    assert answer(framework, task)["state"] == "TASK_GONE"


def test_what_is_said_to_an_agent_that_hangs_is_done_when_it_goes_on(
    start_local: Start, make_framework: Make
) -> None:
    parts = Parts(start_local("--agent-max-pings", "100", "--agent-restart-s", "0.1"))
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    agent = parts.agent_of(task)
    parts.send(agent, signal.SIGSTOP)
    framework.call("KILL", kill={"task_id": task["task_id"]})
    framework.none(lambda event: event["type"] == "UPDATE", 0.3)
    parts.send(agent, signal.SIGCONT)
    assert framework.run_until(task)["state"] == "TASK_KILLED"


def test_a_task_that_its_agent_never_heard_of_is_told_as_dropped(
    start_local: Start, make_framework: Make
) -> None:
    parts = Parts(start_local("--agent-restart-s", "0.1"))
    framework = make_framework(parts.cluster).subscribe()
    offer = framework.offer()
    agent = parts.cluster.agents()[offer["agent_id"]["value"]]
    parts.send(agent, signal.SIGSTOP)
    task = framework.launch_on(offer, "true")
    parts.end(agent)
    told = framework.run_until(task)
    assert brief(told) == ("TASK_DROPPED", "SOURCE_AGENT", "REASON_RECONCILIATION")
    framework.call("REVIVE")
    assert framework.offer()["resources"] == offer["resources"]


def test_a_short_pause_is_not_told(start_local: Start, make_framework: Make) -> None:
    parts = Parts(start_local(*TIMES, "--agent-max-pings", "25"))
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    agent = parts.agent_of(task)
    parts.send(agent, signal.SIGSTOP)
    framework.none(is_failure, 0.5)
    parts.send(agent, signal.SIGCONT)
    framework.none(lambda event: event["type"] in ("FAILURE", "UPDATE"), 0.7)


def test_a_framework_that_was_removed_meanwhile_has_no_task_left_when_the_agent_is_back(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework, "echo $$; exec sleep 60")
    pid, agent = sleeper(framework, task), parts.agent_of(task)
    parts.send(agent, signal.SIGSTOP)
    framework.until(is_failure)
    framework.call("TEARDOWN")
    framework.stream_id = ""
    parts.send(agent, signal.SIGCONT)
    wait_for(lambda: not is_alive(pid), "the end of the task")


# --- an agent that leaves, or is sent away ---


def test_an_agent_that_is_stopped_loses_its_tasks_also_for_the_partition_aware(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    framework.call("REVIVE")
    held, agents = framework.offer(), parts.cluster.agents()
    parts.send(parts.agent_of(task), signal.SIGTERM)
    told = framework.status(task)
    assert brief(told) == ("TASK_LOST", "SOURCE_MASTER", "REASON_AGENT_REMOVED")
    assert told["message"].endswith("removed: the agent unregistered")
    after = framework.next()
    assert (after["type"], after["rescind"]["offer_id"]) == ("RESCIND", held["id"])
    framework.until(is_failure)
    framework.offer()
    framework.none(lambda event: event["type"] == "UPDATE", 0.3)
    assert parts.cluster.agents() == agents


@pytest.mark.parametrize(
    ("capabilities", "state", "reason"),
    [
        (
            [{"type": "PARTITION_AWARE"}],
            "TASK_GONE_BY_OPERATOR",
            "REASON_AGENT_REMOVED_BY_OPERATOR",
        ),
        ([], "TASK_LOST", "REASON_AGENT_REMOVED"),
    ],
)
def test_an_agent_that_is_marked_gone_never_comes_back(
    parts: Parts, make_framework: Make, capabilities: list[Any], state: str, reason: str
) -> None:
    framework = make_framework(parts.cluster, capabilities=capabilities).subscribe()
    task = running(framework, "echo $$; exec sleep 60")
    pid, agent_id = sleeper(framework, task), task["agent_id"]
    call = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": agent_id}}
    assert parts.cluster.post("/api/v1", call).status == 200
    told = framework.status(task)
    assert brief(told) == (state, "SOURCE_MASTER", reason)
    assert told["message"] == "Agent has been marked gone"
    assert framework.until(is_failure)["failure"] == {"agent_id": agent_id}
    assert framework.offer()["agent_id"] != agent_id
    assert not is_alive(pid)
    assert answer(framework, task)["state"] == state
    assert parts.cluster.post("/api/v1", call).status == 404


def test_an_agent_that_was_marked_gone_while_it_hung_is_another_when_it_is_back(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    agent, agent_id = parts.agent_of(task), task["agent_id"]
    parts.send(agent, signal.SIGSTOP)
    call = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": agent_id}}
    assert parts.cluster.post("/api/v1", call).status == 200
    framework.until(is_failure)
    parts.end(agent)
    assert framework.offer()["agent_id"] != agent_id
    assert agent_id["value"] not in parts.cluster.agents()
