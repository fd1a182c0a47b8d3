"""What lives on when the master ends, and what does not when the keeper of all does."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from contract_cluster import Cluster, wait_for
from contract_framework import Framework
from contract_parts import (
    TIMES,
    Parts,
    again,
    answer,
    ask,
    brief,
    is_alive,
    is_failure,
    running,
    sleeper,
)

pytestmark = pytest.mark.local_mesos("parts")
Make = Callable[..., Framework]
Start = Callable[..., Cluster]


# --- a master that is killed ---


def test_tasks_outlive_the_master_and_their_results_arrive(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework, "echo $$; mkfifo gate; read x < gate; exit 5")
    pid, agents = sleeper(framework, task), parts.cluster.agents()
    known, directory = framework.framework_id, Path(f"/proc/{pid}/cwd")
    gate = directory.readlink() / "gate"
    parts.end(parts.cluster.master)
    again(framework)
    assert framework.framework_id == known
    wait_for(lambda: parts.cluster.agents() == agents, "the agent to register")
    assert is_alive(pid)
    assert brief(answer(framework, task)) == (
        "TASK_RUNNING",
        "SOURCE_MASTER",
        "REASON_RECONCILIATION",
    )
    gate.write_text("go\n")
    told = framework.run_until(task)
    assert (told["state"], told["message"]) == ("TASK_FAILED", "Command exited with status 5")
    framework.call("REVIVE")
    assert framework.run_until(framework.launch("true"))["state"] == "TASK_FINISHED"


def test_what_a_running_task_uses_is_not_offered_by_the_new_master(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    running(framework, cpus=3)
    parts.end(parts.cluster.master)
    again(framework)
    cpus = [each for each in framework.offer()["resources"] if each["name"] == "cpus"]
    assert cpus[0]["scalar"]["value"] == 1.0


def test_a_new_master_says_nothing_of_agents_that_may_still_come_back(
    start_local: Start, make_framework: Make
) -> None:
    parts = Parts(start_local(*TIMES, "--agent-reregister-s", "3"))
    framework = make_framework(parts.cluster).subscribe()
    legacy = make_framework(parts.cluster, capabilities=[]).subscribe()
    task = running(framework)
    agent = parts.agent_of(task)
    parts.send(agent, signal.SIGSTOP)
    try:
        parts.end(parts.cluster.master)
        again(framework)
        again(legacy)
        ask(legacy, task)
        recovered = parts.cluster.get("/slaves").json["recovered_slaves"]
        assert [each["id"] for each in recovered] == [task["agent_id"]["value"]]
        ask(framework, task)
        ask(framework, task, with_agent=False)
        framework.none(lambda event: event["type"] == "UPDATE", 0.5)
        legacy.none(lambda event: event["type"] == "UPDATE", 0.1)
        assert framework.until(is_failure)["failure"] == {"agent_id": task["agent_id"]}
        assert answer(framework, task)["state"] == "TASK_UNREACHABLE"
        assert answer(framework, task, with_agent=False)["state"] == "TASK_UNKNOWN"
    finally:
        parts.send(agent, signal.SIGCONT)
    wait_for(lambda: task["agent_id"]["value"] in parts.cluster.agents(), "the agent")
    assert answer(framework, task)["state"] == "TASK_RUNNING"


def test_master_and_agent_killed_together_are_the_same_again(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    told, agents = parts.announced, parts.cluster.agents()
    parts.send(parts.agent_of(task), signal.SIGKILL)
    parts.end(told["master"])
    before = (0, *told["pids"]["agents"])
    wait_for(lambda: parts.announced["pids"]["agents"][0] not in before, "the agent")
    again(framework)
    while (last := framework.status(task))["state"] != "TASK_GONE":
        framework.acknowledge(last)
    assert last["reason"] == "REASON_AGENT_RESTARTED"
    assert parts.cluster.agents() == agents
    now = parts.announced
    assert {**now, "pids": None} == {**told, "pids": None}


# --- the keeper ---


def test_parts_that_are_killed_before_they_are_ready_are_started_again(
    parts: Parts, make_framework: Make
) -> None:
    keeper = parts.announced["pid"]
    below = Path(f"/proc/{keeper}/task/{keeper}/children")
    for _ in range(20):
        for pid in map(int, below.read_text().split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # long enough for some to be started, too short to be ready
    wait_for(parts.whole, "all parts")
    framework = make_framework(parts.cluster).subscribe()
    assert framework.run_until(framework.launch("true"))["state"] == "TASK_FINISHED"


def test_a_stranger_on_the_link_changes_nothing(parts: Parts, make_framework: Make) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task, agents = running(framework), parts.cluster.agents()
    assert parts.cluster.work_dir is not None
    path = parts.cluster.work_dir / "meta" / "links"
    assert path.stat().st_mode & 0o777 == 0o600
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\5\3\0\0\0\0", bytes(100), b"\xff" * 9):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.connect(str(path))
            stranger.sendall(nonsense)
            stranger.settimeout(10)
            assert stranger.recv(1) == b""
    assert parts.cluster.agents() == agents
    assert answer(framework, task)["state"] == "TASK_RUNNING"


def test_nothing_outlives_a_killed_keeper(start_local: Start, make_framework: Make) -> None:
    parts = Parts(start_local(*TIMES, "--agents", "2"))
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework, "echo $$; exec sleep 60")
    told = parts.announced["pids"]
    everything = [sleeper(framework, task), told["master"], *told["agents"]]
    for agent in told["agents"]:
        os.kill(agent, signal.SIGSTOP)
    parts.cluster.kill()
    framework.stream_id = ""
    wait_for(lambda: not any(map(is_alive, everything)), "the end of all")
