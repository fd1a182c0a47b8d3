"""What frameworks are told when an agent or the master ends, hangs, leaves, or comes back."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import contract_cluster
import pytest
from contract_cluster import SHORT, Cluster, wait_for
from contract_framework import Event, Framework

pytestmark = pytest.mark.local_mesos("parts")
Make = Callable[..., Framework]
Start = Callable[..., Cluster]

# An agent is lost after 0.6 s without an answer; it is started again 0.1 s after its end.
TIMES = (
    *("--agent-ping-s", "0.2", "--agent-max-pings", "3", "--agent-restart-s", "0.1"),
    *("--ack-retry-s", "0.3", "--allocation-interval-s", "0.2"),
)


class Parts:
    """The processes of a cluster of one's own, as it announces them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @property
    def announced(self) -> dict[str, Any]:
        assert self.cluster.work_dir is not None
        found: dict[str, Any] = json.loads((self.cluster.work_dir / "announced").read_bytes())
        return found

    def pid(self, address: str) -> int:
        """Return the process that serves an address."""
        told = self.announced
        if address == told["master"]:
            return int(told["pids"]["master"])
        return int(told["pids"]["agents"][told["agents"].index(address)])

    def whole(self) -> bool:
        """Tell whether the master answers and has its agents."""
        try:
            state = self.cluster.get("/state").json
        except OSError:
            return False
        return bool(state["activated_slaves"] == len(self.announced["agents"]))

    def agent_of(self, task: dict[str, Any]) -> str:
        return self.cluster.agents()[task["agent_id"]["value"]]

    def send(self, address: str, number: int) -> None:
        os.kill(self.pid(address), number)

    def end(self, address: str, number: int = signal.SIGKILL) -> None:
        """End a part and wait until it has been started again."""
        before = self.pid(address)
        os.kill(before, number)
        wait_for(lambda: self.pid(address) != before, "the part to be started again")


@pytest.fixture(scope="module")
def one_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    if contract_cluster.ONLY_GIVEN:
        pytest.skip(contract_cluster.DIFFERENCES["parts"])
    cluster = contract_cluster.start(tmp_path_factory.mktemp("parts"), *SHORT, *TIMES)
    yield Parts(cluster)
    cluster.stop()


@pytest.fixture
def parts(one_agent: Parts) -> Iterator[Parts]:
    """A cluster whose parts may be killed, and are there again for the next test."""
    yield one_agent
    for pid in one_agent.announced["pids"]["agents"]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_for(one_agent.whole, "all parts")


def running(framework: Framework, command: str = "exec sleep 60", **more: Any) -> dict[str, Any]:
    task = framework.launch(command, **more)
    framework.run_until(task, "TASK_RUNNING")
    return task


def again(framework: Framework) -> Framework:
    """Subscribe anew, with the same id, when the master answers."""
    framework.disconnect()

    def answers() -> bool:
        try:
            return framework.cluster.get("/health").status == 200
        except OSError:
            return False

    wait_for(answers, "the master")
    return framework.subscribe()


def sleeper(framework: Framework, task: dict[str, Any]) -> int:
    """Return the process id that a task wrote to its output."""
    wait_for(lambda: framework.output(task).strip(), "the task's process id")
    return int(framework.output(task))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_failure(event: Event) -> bool:
    return bool(event["type"] == "FAILURE")


def ask(framework: Framework, task: dict[str, Any], *, with_agent: bool = True) -> None:
    asked = {"task_id": task["task_id"]}
    if with_agent:
        asked["agent_id"] = task["agent_id"]
    assert framework.call("RECONCILE", reconcile={"tasks": [asked]}).status == 202


def end_by_agent(framework: Framework, task: dict[str, Any]) -> dict[str, Any]:
    """Return a task's end in the words of its agent; the master may have told it before."""
    while "uuid" not in (status := framework.run_until(task)):
        assert status["reason"] == "REASON_AGENT_REREGISTERED"
    return status


def brief(status: dict[str, Any]) -> tuple[str, str, str]:
    return status["state"], status["source"], status["reason"]


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
    ask(framework, tasks[1])
    assert framework.status(tasks[1])["state"] == "TASK_RUNNING"


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
    ask(framework, task, with_agent=False)
    assert framework.status(task)["reason"] == "REASON_RECONCILIATION"


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
        ask(framework, task)
        asked = framework.status(task)
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
    ask(framework, task)
    assert framework.status(task)["state"] == "TASK_GONE"


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


def test_a_short_pause_is_not_told(parts: Parts, make_framework: Make) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    agent = parts.agent_of(task)
    parts.send(agent, signal.SIGSTOP)
    framework.none(is_failure, 0.2)
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
    agents = parts.cluster.agents()
    parts.send(parts.agent_of(task), signal.SIGTERM)
    told = framework.status(task)
    assert brief(told) == ("TASK_LOST", "SOURCE_MASTER", "REASON_AGENT_REMOVED")
    assert told["message"].endswith("removed: the agent unregistered")
    framework.until(is_failure)
    framework.offer()
    framework.none(lambda event: event["type"] == "UPDATE", 0.3)
    assert parts.cluster.agents() == agents


def test_an_agent_that_is_marked_gone_never_comes_back(parts: Parts, make_framework: Make) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework, "echo $$; exec sleep 60")
    pid, agent_id = sleeper(framework, task), task["agent_id"]
    call = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": agent_id}}
    assert parts.cluster.post("/api/v1", call).status == 200
    told = framework.status(task)
    assert told["state"] == "TASK_GONE_BY_OPERATOR"
    assert told["reason"] == "REASON_AGENT_REMOVED_BY_OPERATOR"
    assert framework.until(is_failure)["failure"] == {"agent_id": agent_id}
    assert framework.offer()["agent_id"] != agent_id
    assert not is_alive(pid)
    ask(framework, task)
    assert framework.status(task)["state"] == "TASK_GONE_BY_OPERATOR"
    assert parts.cluster.post("/api/v1", call).status == 404


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
    ask(framework, task)
    assert brief(framework.status(task)) == (
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
    parts = Parts(start_local(*TIMES, "--agent-reregister-s", "2"))
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    agent = parts.agent_of(task)
    parts.send(agent, signal.SIGSTOP)
    try:
        parts.end(parts.cluster.master)
        again(framework)
        recovered = parts.cluster.get("/slaves").json["recovered_slaves"]
        assert [each["id"] for each in recovered] == [task["agent_id"]["value"]]
        ask(framework, task)
        ask(framework, task, with_agent=False)
        framework.none(lambda event: event["type"] == "UPDATE", 0.5)
        assert framework.until(is_failure)["failure"] == {"agent_id": task["agent_id"]}
        ask(framework, task)
        assert framework.status(task)["state"] == "TASK_UNREACHABLE"
        ask(framework, task, with_agent=False)
        assert framework.status(task)["state"] == "TASK_UNKNOWN"
    finally:
        parts.send(agent, signal.SIGCONT)
    wait_for(lambda: task["agent_id"]["value"] in parts.cluster.agents(), "the agent")
    ask(framework, task)
    assert framework.status(task)["state"] == "TASK_RUNNING"


def test_master_and_agent_killed_together_are_the_same_again(
    parts: Parts, make_framework: Make
) -> None:
    framework = make_framework(parts.cluster).subscribe()
    task = running(framework)
    told, agents = parts.announced, parts.cluster.agents()
    parts.send(parts.agent_of(task), signal.SIGKILL)
    parts.end(told["master"])
    wait_for(lambda: parts.announced["pids"]["agents"] != told["pids"]["agents"], "the agent")
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
    ask(framework, task)
    assert framework.status(task)["state"] == "TASK_RUNNING"


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
