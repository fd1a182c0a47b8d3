"""Section 6: commands as processes, their environment, their files and their ends."""

import http.server
import io
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_cluster import Cluster, wait_for
from contract_framework import Framework


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
    assert not {"HOME", "USER", "MESOS_TASK_ID"} & set(env)


def test_a_task_finds_the_sandbox_of_its_sibling(framework: Framework) -> None:
    first = framework.launch("echo from the first")
    framework.run_until(first)
    framework.call("REVIVE")
    path = f"$MESOS_DIRECTORY/../../../{first['name']}/runs/latest/stdout"
    second = framework.launch(f'cat "{path}"')
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


def test_an_unknown_user_fails_the_task(framework: Framework) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs tasks as others")
    task = framework.launch("true", command={"user": "no-such-user"})
    status = framework.run_until(task)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert "no-such-user" in status["message"]


def test_a_task_runs_as_its_user_and_owns_its_sandbox(framework: Framework) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs tasks as others")
    task = framework.launch("id -un; touch mine", command={"user": "nobody"})
    assert framework.run_until(task)["state"] == "TASK_FINISHED", framework.output(task, "stderr")
    assert framework.output(task) == "nobody\n"


# --- URIs ---


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve files over HTTP; return the base URL."""
    (tmp_path / "plain.txt").write_text("plain\n")
    (tmp_path / "script").write_text("#!/bin/sh\necho it ran\n")
    with tarfile.open(tmp_path / "good.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("inside/file")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"inner"))
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../evil-tar"), io.BytesIO(b""))
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as zipped:
        zipped.writestr("../evil-zip", "out")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_uris_are_fetched_extracted_and_made_executable(
    framework: Framework, served: str, tmp_path: Path
) -> None:
    uris = [
        {"value": f"{served}/script", "executable": True},
        {"value": f"{served}/good.tar.gz"},
        {"value": f"{served}/plain.txt", "output_file": "under/name.txt"},
        {"value": f"file://{tmp_path}/plain.txt"},
    ]
    task = framework.launch(
        "./script; cat inside/file under/name.txt plain.txt", command={"uris": uris}
    )
    assert framework.run_until(task)["state"] == "TASK_FINISHED"
    assert framework.output(task) == "it ran\ninnerplain\nplain\n"


@pytest.mark.parametrize("name", ["missing", "evil.zip", "evil.tar"])
def test_a_uri_that_cannot_be_fetched_safely_fails_the_launch(
    framework: Framework, served: str, name: str
) -> None:
    task = framework.launch("true", command={"uris": [{"value": f"{served}/{name}"}]})
    status = framework.status(task)
    framework.acknowledge(status)
    assert (status["state"], status["source"]) == ("TASK_FAILED", "SOURCE_AGENT")
    assert status["reason"] == "REASON_CONTAINER_LAUNCH_FAILED"
    assert status["message"].startswith("Failed to launch container: Failed to fetch all URIs")


def test_an_output_file_cannot_leave_the_sandbox(framework: Framework, served: str) -> None:
    uri = {"value": f"{served}/plain.txt", "output_file": "../../up.txt"}
    task = framework.launch("true", command={"uris": [uri]})
    assert framework.run_until(task)["reason"] == "REASON_CONTAINER_LAUNCH_FAILED"


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


def test_a_kill_before_the_start_says_so(framework: Framework, served: str) -> None:
    # A FIFO as an input: the fetch waits until somebody opens it for writing.
    pipe = Path(os.environ.get("TMPDIR", "/tmp"), f"fifo-{time.monotonic_ns()}")
    os.mkfifo(pipe)
    try:
        uris = [{"value": f"{pipe}", "extract": False}]
        task = framework.launch("true", command={"uris": uris})
        framework.call("KILL", kill={"task_id": task["task_id"]})
        with pipe.open("w") as writer:
            writer.write("x")
        status = framework.run_until(task)
    finally:
        pipe.unlink()
    assert (status["state"], status["reason"]) == (
        "TASK_KILLED",
        "REASON_TASK_KILLED_DURING_LAUNCH",
    )


def test_a_task_may_not_live_longer_than_its_max_completion_time(framework: Framework) -> None:
    task = framework.launch(STUBBORN, max_completion_time={"nanoseconds": 3 * 10**8})
    status = framework.run_until(task)
    assert status["state"] == "TASK_FAILED"
    assert status["reason"] == "REASON_MAX_COMPLETION_TIME_REACHED"
    assert status["source"] == "SOURCE_EXECUTOR"


@pytest.mark.local_mesos("memory")
def test_a_task_over_its_memory_is_failed_and_told_how_much(framework: Framework) -> None:
    code = "import time; x = bytearray(200 << 20); time.sleep(60)"
    status = framework.run_until(framework.launch(f"python3 -c '{code}'", mem=40))
    assert status["state"] == "TASK_FAILED"
    assert status["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY"
    assert status["source"] == "SOURCE_AGENT"
    assert status["message"].startswith("Memory limit exceeded: Requested: 40MB Maximum Used: ")
    assert status["limitation"]["resources"][0]["scalar"]["value"] == 40


@pytest.mark.local_mesos("cleared")
def test_what_a_task_leaves_behind_is_killed_even_if_it_hid(
    cluster: Cluster, framework: Framework
) -> None:
    # A new session, a double fork and no environment: nothing but descent tells whose it is.
    hidden = "(setsid env -i sleep 4242 & ) ; setsid sleep 4242 & sleep 4242 & sleep 0.2"
    task = framework.launch(f"{hidden}; echo $$")
    assert framework.run_until(task)["state"] == "TASK_FINISHED"
    wait_for(lambda: not sleepers(), "the sleepers to be gone", 3)


def sleepers() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"sleep\x004242" in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


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
  inspect) printf '[{"State": {"Running": true, "OOMKilled": %s}}]' "$OOM" ;;
  run) shift; echo "in a container"; eval "last=\\${$#}"; exec sh -c "$last" ;;
esac
"""


@pytest.mark.local_mesos("periods")
@pytest.mark.parametrize("oom", ["false", "true"])
def test_a_docker_task_is_run_by_the_engine_and_taken_away(
    start_local: Any, make_framework: Any, tmp_path: Path, oom: str
) -> None:
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(ENGINE)
    program.chmod(0o755)
    cluster = start_local(PATH=f"{program.parent}:{os.environ['PATH']}", OOM=oom)
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
    wait_for(lambda: "rm -f mesos-" in (program.parent / "calls").read_text(), "the removal")
    calls = (program.parent / "calls").read_text()
    assert f"-e MESOS_FRAMEWORK_ID={framework.framework_id}" in calls
    assert "--net host --entrypoint /bin/sh --name mesos-" in calls


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
