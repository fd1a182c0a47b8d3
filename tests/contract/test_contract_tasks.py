"""Section 6: commands as processes, their environment and their ends."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from contract_cluster import Cluster, wait_for
from contract_framework import Framework, scalar


def test_a_command_starts_runs_and_finishes(framework: Framework) -> None:
    task = framework.launch("echo out; echo err >&2")
    statuses = [framework.status(task)]
    while statuses[-1]["state"] != "TASK_FINISHED":
        framework.acknowledge(statuses[-1])
        statuses.append(framework.status(task))
    framework.acknowledge(statuses[-1])
    assert [s["state"] for s in statuses] == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    assert all(s["source"] == "SOURCE_EXECUTOR" and "uuid" in s for s in statuses)
    assert all(s["executor_id"] == task["task_id"] for s in statuses)
    assert all("container_id" in s["container_status"] for s in statuses)
    assert statuses[-1]["message"] == "Command exited with status 0"
    assert framework.output(task) == "out\n"
    assert "err\n" in framework.output(task, "stderr")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 3", "Command exited with status 3"),
        ("kill -SEGV $$", "Command terminated with signal Segmentation fault"),
    ],
)
def test_a_bad_end_is_task_failed_without_a_reason(
    framework: Framework, command: str, message: str
) -> None:
    status = framework.run_until(framework.launch(command))
    assert (status["state"], status["message"]) == ("TASK_FAILED", message)
    assert "reason" not in status
    framework.none(lambda event: event["type"] == "FAILURE", 0.1)
    assert "FAILURE" not in {event["type"] for event in framework.seen}


def test_the_environment_is_clean_and_documented(framework: Framework) -> None:
    variables = [{"name": "MINE", "value": "a b"}, {"name": "PATH", "value": "/usr/bin:/bin"}]
    task = framework.launch(
        "env; echo CWD=$(pwd)", command={"environment": {"variables": variables}}
    )
    framework.run_until(task)
    env = dict(line.split("=", 1) for line in framework.output(task).splitlines())
    assert (env["MINE"], env["PATH"]) == ("a b", "/usr/bin:/bin")
    assert env["MESOS_FRAMEWORK_ID"] == framework.framework_id
    assert env["MESOS_EXECUTOR_ID"] == task["name"]
    assert env["MESOS_SLAVE_ID"] == task["agent_id"]["value"]
    agent = framework.cluster.agents()[task["agent_id"]["value"]]
    assert env["MESOS_AGENT_ENDPOINT"] == agent
    assert env["MESOS_SLAVE_PID"] == f"slave(1)@{agent}"
    assert env["MESOS_CHECKPOINT"] == "1"
    assert env["MESOS_DIRECTORY"] == env["MESOS_SANDBOX"] == env["CWD"]
    assert "MESOS_TASK_ID" not in env
    # The last three are those of a shell; LC_CTYPE is of the agent's Mesos.
    own = {"MINE", "PATH", "PWD", "CWD", "LC_CTYPE", "_", "SHLVL", "OLDPWD"}
    assert all(name in own or name.startswith(("MESOS_", "LIBPROCESS_")) for name in env), env


def test_the_path_is_the_default_one_if_the_task_names_none(framework: Framework) -> None:
    task = framework.launch("echo $PATH")
    framework.run_until(task)
    default = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert framework.output(task) == f"{default}\n"


def test_a_task_finds_the_sandbox_of_its_sibling(framework: Framework) -> None:
    first = framework.launch("echo from the first")
    framework.run_until(first)
    framework.call("REVIVE")
    path = f"$MESOS_DIRECTORY/../../../{first['name']}/runs/latest/stdout"
    second = framework.launch(f'cat "{path}"', like=first)
    framework.run_until(second)
    assert framework.output(second) == "from the first\n"


def test_without_a_shell_the_first_argument_is_the_programs_own_name(framework: Framework) -> None:
    command = {"shell": False, "value": "/bin/echo", "arguments": ["name", "$HOME", "two  words"]}
    task = framework.launch(command)
    framework.run_until(task)
    assert framework.output(task) == "$HOME two  words\n"


def test_a_program_that_does_not_exist_fails(framework: Framework) -> None:
    task = framework.launch({"shell": False, "value": "/no/such/program"})
    assert framework.run_until(task)["state"] == "TASK_FAILED"


def launch_as(framework: Framework, user: str, command: str) -> dict[str, Any]:
    offer = framework.offer()
    if not framework.cluster.switches_users(offer["agent_id"]["value"]):
        pytest.skip("this agent runs all tasks as its own user")
    return framework.launch_on(offer, command, command={"user": user})


@pytest.mark.parametrize("user", ["no-such-user", "no-such-user\0"])
def test_an_unknown_user_fails_the_task(framework: Framework, user: str) -> None:
    task = launch_as(framework, user, "true")
    status = framework.run_until(task)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert "no-such-user" in status["message"]


def test_a_task_runs_as_its_user_and_owns_its_sandbox(framework: Framework) -> None:
    task = launch_as(framework, "nobody", "id -un; touch mine")
    assert framework.run_until(task)["state"] == "TASK_FINISHED", framework.output(task, "stderr")
    assert framework.output(task) == "nobody\n"


# --- the end ---


def test_a_kill_is_sigterm_and_ends_as_task_killed(framework: Framework) -> None:
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    framework.call("KILL", kill={"task_id": task["task_id"], "agent_id": task["agent_id"]})
    status = framework.run_until(task)
    assert status["state"] == "TASK_KILLED"
    assert status["message"] == "Command terminated with signal Terminated"
    assert "reason" not in status


def test_a_kill_for_another_agent_is_ignored(framework: Framework) -> None:
    task = framework.launch("sleep 0.3")
    framework.run_until(task, "TASK_RUNNING")
    framework.call("KILL", kill={"task_id": task["task_id"], "agent_id": {"value": "other"}})
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def test_what_ignores_sigterm_gets_sigkill_after_its_grace(framework: Framework) -> None:
    task = framework.launch(STUBBORN, kill_policy={"grace_period": {"nanoseconds": 4 * 10**8}})
    framework.run_until(task, "TASK_RUNNING")
    wait_for(lambda: "ready" in framework.output(task), "the trap")
    before = time.monotonic()
    framework.call("KILL", kill={"task_id": task["task_id"]})
    status = framework.run_until(task)
    assert 0.35 < time.monotonic() - before < 2.5
    assert status["state"] == "TASK_KILLED"
    assert status["message"] == "Command terminated with signal Killed"


def test_the_grace_is_three_seconds_if_nobody_says(framework: Framework) -> None:
    task = framework.launch(STUBBORN)
    framework.run_until(task, "TASK_RUNNING")
    wait_for(lambda: "ready" in framework.output(task), "the trap")
    before = time.monotonic()
    framework.call("KILL", kill={"task_id": task["task_id"]})
    assert framework.run_until(task)["message"] == "Command terminated with signal Killed"
    assert 2.9 < time.monotonic() - before < 6


def test_a_second_kill_can_shorten_the_grace_but_not_lengthen_it(framework: Framework) -> None:
    task = framework.launch(STUBBORN)
    framework.run_until(task, "TASK_RUNNING")
    wait_for(lambda: "ready" in framework.output(task), "the trap")
    before = time.monotonic()
    for seconds in (600, 0.3, 600):
        policy = {"grace_period": {"nanoseconds": int(seconds * 1e9)}}
        framework.call("KILL", kill={"task_id": task["task_id"], "kill_policy": policy})
    assert framework.run_until(task)["state"] == "TASK_KILLED"
    assert 0.25 < time.monotonic() - before < 2.5


def test_a_task_that_ends_well_after_sigterm_is_killed_all_the_same(framework: Framework) -> None:
    task = framework.launch(
        "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    )
    framework.run_until(task, "TASK_RUNNING")
    wait_for(lambda: "ready" in framework.output(task), "the trap")
    framework.call("KILL", kill={"task_id": task["task_id"]})
    assert framework.run_until(task)["state"] == "TASK_KILLED"
    assert framework.output(task) == "ready\nbye\n"


@pytest.mark.local_mesos("cleared")
def test_the_grace_is_for_all_processes_of_a_task(framework: Framework) -> None:
    child = "(trap 'sleep 0.2; echo cleaned; exit' TERM; echo ready; while :; do sleep 0.05; done)"
    task = framework.launch(f"{child} & wait")
    framework.run_until(task, "TASK_RUNNING")
    wait_for(lambda: "ready" in framework.output(task), "the trap")
    framework.call("KILL", kill={"task_id": task["task_id"]})
    assert framework.run_until(task)["state"] == "TASK_KILLED"
    assert framework.output(task) == "ready\ncleaned\n"


def test_a_framework_that_asks_for_it_is_told_of_the_killing(make_framework: Any) -> None:
    kinds = [{"type": "PARTITION_AWARE"}, {"type": "TASK_KILLING_STATE"}]
    framework = make_framework(capabilities=kinds).subscribe()
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    framework.call("KILL", kill={"task_id": task["task_id"]})
    assert framework.run_until(task, "TASK_KILLING")["state"] == "TASK_KILLING"
    assert framework.run_until(task)["state"] == "TASK_KILLED"


def test_a_task_may_not_live_longer_than_its_max_completion_time(framework: Framework) -> None:
    task = framework.launch(STUBBORN, max_completion_time={"nanoseconds": 3 * 10**8})
    status = framework.run_until(task)
    assert status["state"] == "TASK_FAILED"
    assert status["reason"] == "REASON_MAX_COMPLETION_TIME_REACHED"
    assert status["source"] == "SOURCE_EXECUTOR"


def test_a_task_that_lived_too_long_is_asked_to_end_before_it_is_made_to(
    framework: Framework,
) -> None:
    task = framework.launch("sleep 100", max_completion_time={"nanoseconds": 3 * 10**8})
    status = framework.run_until(task)
    assert status["reason"] == "REASON_MAX_COMPLETION_TIME_REACHED"
    assert status["message"] == "Command terminated with signal Terminated"


@pytest.mark.local_mesos("limits")
def test_a_task_over_its_memory_is_failed_and_told_how_much(framework: Framework) -> None:
    code = "import time; x = bytearray(200 << 20); time.sleep(60)"
    status = framework.run_until(framework.launch(f"python3 -c '{code}'", mem=40))
    assert status["state"] == "TASK_FAILED"
    assert status["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY"
    assert status["source"] == "SOURCE_AGENT"
    assert status["message"].startswith("Memory limit exceeded: Requested: 40MB Maximum Used: ")
    assert status["limitation"]["resources"][0]["scalar"]["value"] == 40


def test_an_infinite_limit_is_none(framework: Framework) -> None:
    endless = {"value": "Infinity"}
    code = "import time; x = bytearray(200 << 20); time.sleep(0.6)"
    task = framework.launch(f"python3 -c '{code}'", limits={"cpus": endless, "mem": endless})
    assert framework.run_until(task, "TASK_RUNNING")["state"] == "TASK_RUNNING"
    assert framework.run_until(task)["state"] == "TASK_FINISHED"


@pytest.mark.local_mesos("limits")
def test_a_task_over_its_disk_is_failed_and_told_how_much(framework: Framework) -> None:
    offer = framework.offer()
    named = [scalar("cpus", 0.1), scalar("mem", 32), scalar("disk", 10)]
    command = "head -c 40000000 /dev/zero > much; sleep 100"
    status = framework.run_until(framework.launch_on(offer, command, resources=named))
    assert (status["state"], status["source"]) == ("TASK_FAILED", "SOURCE_AGENT")
    assert status["reason"] == "REASON_CONTAINER_LIMITATION_DISK"
    assert status["message"].startswith("Disk usage (")
    assert status["message"].endswith(") exceeds quota (10MB)")
    [limit] = status["limitation"]["resources"]
    assert (limit["scalar"]["value"], limit["allocation_info"]) == (10, {"role": "*"})


OWN = f"4242.{os.getpid():08}"  # seconds, by which our sleepers differ from another run's


@pytest.mark.local_mesos("cleared")
def test_what_a_task_leaves_behind_is_killed_even_if_it_hid(
    cluster: Cluster, framework: Framework
) -> None:
    # A new session, a double fork and no environment: nothing but descent tells whose it is.
    hidden = f"(setsid env -i sleep {OWN} & ) ; setsid sleep {OWN} & sleep {OWN} & sleep 0.2"
    task = framework.launch(f"{hidden}; echo $$")
    assert framework.run_until(task)["state"] == "TASK_FINISHED"
    wait_for(lambda: not sleepers(), "the sleepers to be gone", 3)


def sleepers() -> list[str]:
    found, mark = [], f"sleep\0{OWN}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.local_mesos("docker")
def test_a_docker_task_without_an_engine_fails_with_the_reason(framework: Framework) -> None:
    if Path("/var/run/docker.sock").exists():
        pytest.skip("a docker engine answers here")
    container = {"type": "DOCKER", "docker": {"image": "busybox"}}
    task = framework.launch("true", container=container)
    status = framework.run_until(task)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert "docker" in status["message"]


# An engine of a few lines: it notes how it is called, and `run` acts as the image's command.
ENGINE = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
case $1 in
  version) echo 1 ;;
  inspect) printf '[{"State": {"Running": true, "OOMKilled": %s}}]' "${OOM:-false}" ;;
  run) shift; echo "in a container"; eval "last=\\${$#}"; exec sh -c "$last" ;;
esac
"""


def start_engine(start_local: Any, folder: Path, **env: str) -> Cluster:
    """Start local Mesos with the engine; what it is called with is in `folder`/bin/calls."""
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(ENGINE)
    program.chmod(0o755)
    started: Cluster = start_local(PATH=f"{program.parent}:{os.environ['PATH']}", **env)
    return started


@pytest.mark.local_mesos("docker")
@pytest.mark.parametrize("oom", ["false", "true"])
def test_a_docker_task_is_run_by_the_engine_and_taken_away(
    start_local: Any, make_framework: Any, tmp_path: Path, oom: str
) -> None:
    cluster = start_engine(start_local, tmp_path, OOM=oom)
    framework = make_framework(cluster).subscribe()
    container = {"type": "DOCKER", "docker": {"image": "busybox", "network": "HOST"}}
    task = framework.launch("sleep 0.3; exit 3", container=container)
    assert framework.run_until(task, "TASK_RUNNING")["state"] == "TASK_RUNNING"
    status = framework.run_until(task)
    assert status["state"] == "TASK_FAILED"
    if oom == "true":
        assert status["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY"
    else:
        assert status["message"] == "Container exited with status 3"
    assert framework.output(task) == "in a container\n"
    noted = tmp_path / "bin" / "calls"
    wait_for(lambda: "rm -f mesos-" in noted.read_text(), "the removal")
    calls = noted.read_text()
    assert f"-e MESOS_FRAMEWORK_ID={framework.framework_id}" in calls
    assert "--net host --entrypoint /bin/sh --name mesos-" in calls


@pytest.mark.local_mesos("docker")
def test_without_a_shell_a_docker_task_gets_its_value_and_arguments_as_they_are(
    start_local: Any, make_framework: Any, tmp_path: Path
) -> None:
    cluster = start_engine(start_local, tmp_path)
    framework = make_framework(cluster).subscribe()
    container = {"type": "DOCKER", "docker": {"image": "busybox"}}
    command = {"shell": False, "value": "first", "arguments": ["true"]}
    task = framework.launch(command, container=container)
    assert framework.run_until(task)["state"] == "TASK_FINISHED"
    calls = (tmp_path / "bin" / "calls").read_text()
    [run] = [line for line in calls.splitlines() if line.startswith("run ")]
    assert run.endswith(" busybox first true")
    assert "--entrypoint" not in run


def test_the_agent_shows_its_executors_and_what_they_use(
    cluster: Cluster, framework: Framework
) -> None:
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    agent = cluster.agents()[task["agent_id"]["value"]]
    state = cluster.get("/state", to=agent).json
    shown = [f for f in state["frameworks"] if f["id"] == framework.framework_id]
    executor = shown[0]["executors"][0]
    assert executor["id"] == task["name"]
    listed = cluster.get(f"/files/browse?path={executor['directory']}", to=agent).json
    assert [Path(each["path"]).name for each in listed] == ["stderr", "stdout"]
    container = cluster.get(f"/containers?executor_id={task['name']}", to=agent).json[0]
    assert container["container_id"] == executor["container"]
    statistics = cluster.get("/monitor/statistics", to=agent).json
    mine = [each for each in statistics if each["executor_id"] == task["name"]]
    assert mine[0]["statistics"]["mem_rss_bytes"] > 0
