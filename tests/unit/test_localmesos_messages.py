"""The schema of messages, the master's checks, and what is told of tasks."""

import signal
from typing import Any

import pytest

from scale.localmesos.docker import run_arguments
from scale.localmesos.resources import Resources
from scale.localmesos.run import Run, argv, ending, environment, grace_s, over_memory
from scale.localmesos.schema import Malformed, convert
from scale.localmesos.status import Cause
from scale.localmesos.tasks import Launch, launch_from, launch_record
from scale.localmesos.validation import (
    TaskRefused,
    checked_resources,
    framework_problem,
    id_problem,
    role_problem,
)

AVAILABLE = Resources({"cpus": 4000, "mem": 1024000})


def task(**changes: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "task_id": {"value": "t"},
        "agent_id": {"value": "a"},
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 64.0}},
        ],
        "command": {"value": "true"},
        **changes,
    }


def make_run(**changes: Any) -> Run:
    info = task(**changes)
    resources = Resources({"cpus": 500, "mem": 64000})
    launch = Launch("f", "a", info, "*", "root", True, False, resources)
    return Run(launch, "c", "/work/slaves/a/frameworks/f/executors/t/runs/c")


# --- schema ---


def test_unknown_fields_and_nulls_are_left_out() -> None:
    assert convert("Call", {"type": "REVIVE", "foo": [1], "kill": None}) == {"type": "REVIVE"}


def test_an_unknown_name_of_an_enum_leaves_the_field_unset() -> None:
    assert convert("Call", {"type": "revive"}) == {}


def test_numbers_and_booleans_may_be_text() -> None:
    scalar = convert("Scalar", {"value": "0.5"})
    flag = convert("FrameworkInfo", {"user": "u", "name": "n", "checkpoint": "true"})
    assert (scalar, flag["checkpoint"]) == ({"value": 0.5}, True)
    assert convert("Duration", {"nanoseconds": "9007199254740993"})["nanoseconds"] == 2**53 + 1
    assert convert("Scalar", {"value": "Infinity"})["value"] == float("inf")


@pytest.mark.parametrize(
    ("message", "body", "text"),
    [
        ("Call", [], "Expecting a JSON object"),
        ("Call", {"type": 1}, "Not expecting a JSON number for field 'type'"),
        ("Call", {"framework_id": "x"}, "Not expecting a JSON string for field 'framework_id'"),
        ("Id", {"value": 3}, "Not expecting a JSON number for field 'value'"),
        ("Id", {}, "Missing required fields: value"),
        ("Accept", {"offer_ids": {}}, "Not expecting a JSON object for field 'offer_ids'"),
        ("Accept", {"offer_ids": [{}]}, "Missing required fields: offer_ids[0].value"),
        ("Duration", {"nanoseconds": 1.5}, "Failed to convert '1.5' to an integer"),
        ("Scalar", {"value": "much"}, "Failed to convert 'much' to a number"),
        (
            "Uri",
            {"value": "x", "extract": "yes"},
            "Not expecting a JSON string for field 'extract'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(message: str, body: Any, text: str) -> None:
    with pytest.raises(Malformed) as caught:
        convert(message, body)
    assert str(caught.value).startswith(text)


# --- checks ---


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "a\\b", "a\nb", "a\x7f", "x" * 256])
def test_a_bad_id_is_refused(value: str) -> None:
    assert id_problem(value)


def test_ordinary_ids_are_taken() -> None:
    for value in ("t", "0f3c-1.job.2", "ünï cödé", "x" * 255):
        assert id_problem(value) is None


@pytest.mark.parametrize("role", ["", "/a", "a/", "a//b", "a/../b", "a/*", "-a", "a b", "a/-b"])
def test_a_bad_role_is_refused(role: str) -> None:
    assert role_problem(role)


def test_good_roles_are_taken() -> None:
    assert [role_problem(role) for role in ("*", "a", "eng/b-c")] == [None] * 3


def test_suppressed_roles_are_roles_of_the_framework() -> None:
    assert framework_problem({"user": "u", "name": "n"}, ["other"])
    assert framework_problem({"user": "u", "name": "n"}, ["*"]) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"limits": {"cpus": {"value": 0.1}}}, "Task's limit of 'cpus' is less than its request"),
        ({"limits": {"disk": {"value": 9.0}}}, "Resource limits for 'disk' are not supported"),
        ({"check": {}}, "Checks are not supported"),
        ({"command": {"value": "a\0b"}}, "The command contains a null character"),
        (
            {"command": {"environment": {"variables": [{"name": "X"}]}}},
            "Environment variable 'X' of type 'VALUE' must have a value set",
        ),
        (
            {"command": {"environment": {"variables": [{"name": "A=B", "value": ""}]}}},
            "Environment variable 'A=B' is invalid",
        ),
        ({"container": {"type": "DOCKER"}}, "DockerInfo 'docker' is not set"),
        ({"container": {"type": "MESOS", "mesos": {}}}, "Images and volumes of MESOS containers"),
    ],
)
def test_a_task_that_cannot_run_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(TaskRefused, match=text):
        checked_resources(task(**changes), "a", "*", AVAILABLE)


def test_a_task_takes_what_it_asks_for() -> None:
    taken = checked_resources(task(), "a", "*", AVAILABLE)
    assert taken == Resources({"cpus": 500, "mem": 64000})


# --- running ---


def test_a_shell_command_and_a_plain_one_have_their_argv() -> None:
    assert argv({"value": "a b"}) == (["/bin/sh", "-c", "a b"], None)
    plain = {"shell": False, "value": "/bin/x", "arguments": ["zero", "one"]}
    assert argv(plain) == (["zero", "one"], "/bin/x")
    assert argv({"shell": False, "value": "/bin/x"}) == (["/bin/x"], "/bin/x")


def test_the_agents_names_win_in_the_environment() -> None:
    variables = [{"name": "MESOS_DIRECTORY", "value": "x"}, {"name": "MINE", "value": "y"}]
    run = make_run(command={"value": "true", "environment": {"variables": variables}})
    env = environment(run, "127.0.0.1:5051")
    assert (env["MESOS_DIRECTORY"], env["MINE"]) == (run.directory, "y")
    assert env["MESOS_SLAVE_PID"] == "slave(1)@127.0.0.1:5051"


def test_the_kill_calls_grace_comes_before_the_tasks() -> None:
    run = make_run(kill_policy={"grace_period": {"nanoseconds": 2 * 10**9}})
    assert grace_s(run, {"grace_period": {"nanoseconds": 10**9}}) == 1
    assert grace_s(run, None) == 2
    assert grace_s(make_run(), None) == 3
    assert grace_s(make_run(container={"type": "DOCKER"}), None) == 5


@pytest.mark.parametrize(
    ("wait_status", "killed", "doom", "state", "message"),
    [
        (0, False, None, "TASK_FINISHED", "Command exited with status 0"),
        (3 << 8, False, None, "TASK_FAILED", "Command exited with status 3"),
        (signal.SIGSEGV, False, None, "TASK_FAILED", "Command terminated with signal Segmenta"),
        (0, True, None, "TASK_KILLED", "Command exited with status 0"),
        (signal.SIGKILL, False, Cause("full"), "TASK_FAILED", "full"),
        (
            signal.SIGKILL,
            False,
            Cause(None, "R"),
            "TASK_FAILED",
            "Command terminated with signal K",
        ),
    ],
)
def test_how_a_task_ended_is_told_in_mesos_words(
    wait_status: int, killed: bool, doom: Cause | None, state: str, message: str
) -> None:
    run = make_run()
    run.wait_status, run.killed, run.doom = wait_status, killed, doom
    told, cause = ending(run)
    assert told == state
    assert (cause.message or "").startswith(message)


def test_a_memory_limit_names_what_was_asked_and_what_was_used() -> None:
    cause = over_memory(make_run(), 150 << 20)
    assert (cause.message or "").startswith(
        "Memory limit exceeded: Requested: 64MB Maximum Used: 150MB"
    )


def test_a_limit_of_its_own_replaces_the_requested_memory() -> None:
    assert make_run().mem_asked == 64 << 20
    assert make_run(limits={"mem": {"value": 100.0}}).mem_asked == 100 << 20
    assert make_run(limits={"mem": {"value": float("inf")}}).mem_asked == 0


def test_a_launch_survives_the_journal() -> None:
    launch = make_run().launch
    assert launch_from(launch_record(launch)) == launch


# --- docker ---


def docker_arguments(**changes: Any) -> list[str]:
    container = {"type": "DOCKER", "docker": {"image": "img"}, **changes.pop("container", {})}
    return run_arguments(make_run(container=container, **changes), {"A": "b", "PATH": "/x"}, "l=1")


def test_docker_run_has_limits_mounts_environment_and_name() -> None:
    text = " ".join(docker_arguments())
    assert text.startswith("run --label l=1 --cpu-shares 512 --memory 67108864 -e A=b")
    assert "-e MESOS_SANDBOX=/mnt/mesos/sandbox -e MESOS_CONTAINER_NAME=mesos-c" in text
    assert "PATH=" not in text
    assert ":/mnt/mesos/sandbox --net host --entrypoint /bin/sh --name mesos-c img -c true" in text


def test_docker_without_a_shell_keeps_the_images_entry_point() -> None:
    arguments = docker_arguments(command={"shell": False, "value": "v", "arguments": ["w", "x"]})
    assert arguments[-4:] == ["img", "v", "w", "x"]
    assert "--entrypoint" not in arguments
    assert docker_arguments(command={"shell": False})[-1] == "img"


def test_docker_networks_ports_and_parameters() -> None:
    spec = {
        "image": "img",
        "network": "BRIDGE",
        "port_mappings": [{"host_port": 31000, "container_port": 80, "protocol": "TCP"}],
        "parameters": [{"key": "ulimit", "value": "nofile=9"}],
        "privileged": True,
        "force_pull_image": True,
    }
    text = " ".join(docker_arguments(container={"docker": spec, "hostname": "h"}))
    assert "--pull always --privileged" in text
    assert "--net bridge -p 31000:80/tcp --hostname h" in text
    assert "--ulimit=nofile=9 img" in text


@pytest.mark.parametrize(
    ("volume", "mount"),
    [
        ({"container_path": "/in", "host_path": "/out", "mode": "RO"}, "/out:/in:ro"),
        ({"container_path": "in", "host_path": "/out", "mode": "RW"}, "/out:/mnt/mesos/sandbox/in"),
        ({"container_path": "/in", "host_path": "out", "mode": "RW"}, "/runs/c/out:/in:rw"),
    ],
)
def test_docker_volumes_may_be_relative_to_the_sandbox(volume: dict[str, str], mount: str) -> None:
    assert mount in " ".join(docker_arguments(container={"volumes": [volume]}))


@pytest.mark.parametrize(
    "volume",
    [
        {"container_path": "in", "host_path": "out", "mode": "RW"},
        {"container_path": "/in", "mode": "RW"},
        {"container_path": "/in", "host_path": "../../up", "mode": "RW"},
    ],
)
def test_docker_volumes_that_cannot_be_are_refused(volume: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="volume"):
        docker_arguments(container={"volumes": [volume]})
