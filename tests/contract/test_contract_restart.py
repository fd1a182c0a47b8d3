"""What survives `kill -9` of local Mesos, and what does not live on after it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_cluster import Cluster, wait_for
from contract_framework import Framework

pytestmark = pytest.mark.local_mesos("lost")
Make = Callable[..., Framework]
Start = Callable[..., Cluster]

# Seconds to sleep, by which the tests' sleepers are found; another run has others.
OWN = f"31.{os.getpid():08}"
SLEEPER = f"sleep\0{OWN}"


def restart(cluster: Cluster, start_local: Start) -> None:
    """Kill and start again on the same folder and port; the cluster object stays."""
    cluster.kill()
    started = start_local("--port", cluster.master.partition(":")[2])
    assert started.master == cluster.master
    cluster.process = started.process


def is_alive(mark: str) -> bool:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def running(framework: Framework) -> dict[str, Any]:
    task = framework.launch(f"exec sleep {OWN}")
    framework.run_until(task, "TASK_RUNNING")
    wait_for(lambda: is_alive(SLEEPER), "the sleeper")
    return task


def test_ids_stay_and_a_task_that_died_is_told_as_gone(
    start_local: Start, make_framework: Make
) -> None:
    cluster = start_local()
    framework = make_framework(cluster).subscribe()
    known, agents = framework.framework_id, set(cluster.agents())
    task = running(framework)
    restart(cluster, start_local)
    framework.disconnect()
    framework.subscribe()
    assert framework.framework_id == known
    assert set(cluster.agents()) == agents
    # What was acknowledged just before the end may be told once more.
    while (told := framework.status(task))["state"] != "TASK_GONE":
        framework.acknowledge(told)
    assert told["reason"] == "REASON_AGENT_RESTARTED"
    framework.call("RECONCILE", reconcile={"tasks": [{"task_id": task["task_id"]}]})
    assert framework.status(task)["state"] == "TASK_GONE"
    framework.acknowledge(told)
    assert not is_alive(SLEEPER)
    framework.call("RECONCILE", reconcile={"tasks": [{"task_id": task["task_id"]}]})
    assert framework.status(task)["state"] == "TASK_UNKNOWN"


def test_a_legacy_framework_is_told_lost(start_local: Start, make_framework: Make) -> None:
    cluster = start_local()
    framework = make_framework(cluster, capabilities=[]).subscribe()
    task = running(framework)
    restart(cluster, start_local)
    framework.disconnect()
    framework.subscribe()
    assert framework.run_until(task)["state"] == "TASK_LOST"


def test_a_result_that_was_not_acknowledged_is_told_again_after_the_restart(
    start_local: Start, make_framework: Make
) -> None:
    cluster = start_local()
    framework = make_framework(cluster).subscribe()
    good, bad = framework.launch("true"), None
    while (last := framework.status(good))["state"] != "TASK_FINISHED":
        framework.acknowledge(last)
    framework.call("REVIVE")
    bad = framework.launch("exit 3")
    first = framework.status(bad)
    assert first["state"] == "TASK_STARTING"
    wait_for(lambda: framework.output(bad) == "", "the sandbox")
    restart(cluster, start_local)
    framework.disconnect()
    framework.subscribe()
    repeated = framework.status(good)
    assert (repeated["state"], repeated["uuid"]) == ("TASK_FINISHED", last["uuid"])
    framework.acknowledge(repeated)
    assert framework.run_until(bad)["state"] in ("TASK_FAILED", "TASK_GONE")


def test_what_was_acknowledged_stays_forgotten(start_local: Start, make_framework: Make) -> None:
    cluster = start_local()
    framework = make_framework(cluster).subscribe()
    task = framework.launch("echo kept")
    framework.run_until(task)
    framework.call("RECONCILE", reconcile={"tasks": []})
    restart(cluster, start_local)
    framework.disconnect()
    framework.subscribe()
    framework.none(lambda event: event["type"] == "UPDATE", 0.5)
    assert framework.output(task) == "kept\n"


def test_a_removed_framework_stays_removed(start_local: Start, make_framework: Make) -> None:
    cluster = start_local()
    framework = make_framework(cluster).subscribe()
    framework.call("TEARDOWN")
    framework.until(lambda event: event["type"] == "CLOSED")
    cluster.get("/health")
    restart(cluster, start_local)
    framework.subscribe()
    assert framework.seen[-1]["error"]["message"] == "Framework has been removed"
    framework.stream_id = ""


def test_no_process_of_a_task_outlives_a_killed_local_mesos(
    start_local: Start, make_framework: Make
) -> None:
    cluster = start_local()
    framework = make_framework(cluster).subscribe()
    # One hides its environment, one its session, one both and its parent too.
    task = framework.launch(
        f"env -i sleep {OWN} & setsid sleep {OWN} & (setsid sleep {OWN} &) ; sleep {OWN}"
    )
    framework.run_until(task, "TASK_RUNNING")
    wait_for(lambda: is_alive(SLEEPER), "the sleepers")
    cluster.kill()
    wait_for(lambda: not is_alive(SLEEPER), "the guard to kill them", 5)
    framework.stream_id = ""


def test_sigterm_ends_the_tasks_and_leaves_nothing(
    start_local: Start, make_framework: Make
) -> None:
    cluster = start_local()
    framework = make_framework(cluster).subscribe()
    task = framework.launch(f"trap '' TERM; setsid sleep {OWN} & while :; do sleep 0.1; done")
    framework.run_until(task, "TASK_RUNNING")
    wait_for(lambda: is_alive(SLEEPER), "the sleeper")
    cluster.stop()
    assert not is_alive(SLEEPER)
    assert not is_alive(str(cluster.work_dir))
    framework.stream_id = ""


def test_a_fetch_that_hangs_does_not_hold_up_the_end(
    start_local: Start, make_framework: Make, tmp_path: Path
) -> None:
    cluster = start_local()
    framework = make_framework(cluster).subscribe()
    os.mkfifo(tmp_path / "never")
    uris = [{"value": str(tmp_path / "never"), "extract": False}]
    task = framework.launch("true", command={"uris": uris})
    agent = cluster.agents()[task["agent_id"]["value"]]
    metrics = "/metrics/snapshot"
    staging = "slave/tasks_staging"
    wait_for(lambda: cluster.get(metrics, to=agent).json[staging] == 1, "the fetch to begin")
    before = time.monotonic()
    cluster.stop()
    assert time.monotonic() - before < 5
    framework.stream_id = ""


def start_again(announced: Path, *options: str) -> int:
    """Start another keeper on the folder of `announced`; return its exit status."""
    command = [sys.executable, "-m", "scale.localmesos", "--work-dir", str(announced.parent)]
    command += ["--announce-file", str(announced), *options]
    quiet = subprocess.DEVNULL
    return subprocess.run(command, stdout=quiet, stderr=quiet, timeout=40).returncode


def test_a_second_keeper_of_the_same_folder_is_refused_and_changes_nothing(
    start_local: Start, tmp_path: Path
) -> None:
    cluster, announced = start_local(), tmp_path / "announced"
    before = announced.read_bytes()
    assert start_again(announced) == 1
    assert announced.read_bytes() == before
    assert cluster.agents()


def test_what_an_earlier_run_announced_is_gone_before_anything_is_started(tmp_path: Path) -> None:
    announced = tmp_path / "announced"
    announced.write_text('{"master":"127.0.0.1:1","agents":[],"pid":1,"pids":{}}')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert start_again(announced, "--port", str(taken.getsockname()[1])) == 1
    assert not announced.exists()
