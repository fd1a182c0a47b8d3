"""Real Mesos' JSON becomes our values, and ours become Mesos' (samples: a 1.12.0-dev cluster)."""

import json
from pathlib import Path
from typing import Any

import pytest

from scale.core.cluster import (
    Agent,
    Container,
    Deposed,
    FrameworkRemoved,
    Offer,
    TaskRef,
    TaskSpec,
    TaskState,
    TaskUpdate,
    Uri,
    Volume,
)
from scale.core.resources import Resources
from scale.mesos import translate
from scale.mesos.framework import framework_info

SAMPLES = Path(__file__).parent.parent / "data" / "mesos"


def sample(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return document


def scalar(name: str, value: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, **more}


def free_of(*resources: dict[str, Any]) -> Resources:
    offer = {
        "id": {"value": "o"},
        "agent_id": {"value": "a"},
        "hostname": "h",
        "resources": resources,
    }
    return translate.offers({"offers": [offer]})[0].free


def test_an_offer_of_real_mesos_is_understood() -> None:
    assert translate.offers(sample("event-offers")["offers"]) == (
        Offer(
            offer_id="c52e861c-7944-431e-b1b4-0ea464b0d647-O1",
            agent_id="c52e861c-7944-431e-b1b4-0ea464b0d647-S0",
            hostname="127.0.0.1",
            address="127.0.0.1",
            port=5151,
            free=Resources(millicpus=7900, mem_mib=16352, disk_mib=50000),
        ),
    )


def test_an_offer_without_url_is_reached_by_its_hostname() -> None:
    offer = {"id": {"value": "o"}, "agent_id": {"value": "a"}, "hostname": "h"}
    (only,) = translate.offers({"offers": [offer]})
    assert (only.address, only.port, only.free) == ("h", 5051, Resources())


def test_scalars_of_one_name_add_up_to_three_decimals() -> None:
    total = free_of(scalar("cpus", 0.1), scalar("cpus", 0.2), scalar("mem", 31.9))
    assert total == Resources(millicpus=300, mem_mib=31)


@pytest.mark.parametrize(
    "special",
    [
        {"role": "other"},
        {"reservations": [{"role": "ours", "type": "STATIC"}]},
        {"revocable": {}},
        {"disk": {"persistence": {"id": "p"}}},
    ],
)
def test_resources_that_a_task_would_have_to_name_specially_do_not_count(
    special: dict[str, Any],
) -> None:
    assert free_of(scalar("cpus", 1), scalar("cpus", 8, **special)) == Resources(millicpus=1000)


def test_an_update_of_an_executor_is_understood() -> None:
    assert translate.task_update(sample("event-update-oom")["update"]["status"]) == TaskUpdate(
        task_id="oom",
        state=TaskState.FAILED,
        agent_id="fdccdb30-fa20-4ee8-bb92-2943fbe2d4c0-S1",
        uuid="LV2hPt89TmSbXW2FHyloXg==",
        source="SOURCE_AGENT",
        reason="REASON_CONTAINER_LIMITATION_MEMORY",
        message=sample("event-update-oom")["update"]["status"]["message"],
        timestamp_s=1795314098.462404,
    )


def test_an_update_of_the_master_has_no_uuid_and_no_confirmation() -> None:
    update = translate.task_update(sample("event-update-unreachable")["update"]["status"])
    assert (update.state, update.uuid) == (TaskState.UNREACHABLE, None)
    assert translate.acknowledgement(update) is None


def test_the_confirmation_repeats_the_uuid_as_it_came() -> None:
    update = translate.task_update(sample("event-update-running")["update"]["status"])
    assert translate.acknowledgement(update) == {
        "agent_id": {"value": "c52e861c-7944-431e-b1b4-0ea464b0d647-S0"},
        "task_id": {"value": "task-crash-legacy"},
        "uuid": "oied7i5QSta0WuBTL3R1Pw==",
    }


@pytest.mark.parametrize("state", list(TaskState))
def test_every_state_has_its_name_in_mesos(state: TaskState) -> None:
    status = {"task_id": {"value": "t"}, "state": state.value}
    assert translate.task_update(status) == TaskUpdate("t", state)


def test_a_message_holds_nothing_that_postgresql_refuses() -> None:
    status = {"task_id": {"value": "t"}, "state": "TASK_FAILED", "message": "a\0b\ud800c"}
    assert translate.task_update(status).message == "a\N{REPLACEMENT CHARACTER}b?c"


def test_active_agents_are_listed_with_what_is_not_reserved() -> None:
    agents = translate.agents(sample("master-slaves"))
    assert len(agents) == 4
    assert (
        Agent(
            agent_id="9da7fdae-d501-4eec-a84e-ddb1680a21fd-S2",
            hostname="127.0.0.1",
            address="127.0.0.1",
            port=5062,
            total=Resources(millicpus=2000, mem_mib=1024, disk_mib=1000),
        )
        in agents
    )


def test_an_agent_that_was_drained_is_not_listed() -> None:
    assert translate.agents(sample("master-slaves-draining")) == []


@pytest.mark.parametrize(
    ("active", "deactivated", "listed"),
    [(True, False, 1), (True, None, 1), (True, True, 0), (False, False, 0), (None, None, 0)],
)
def test_only_agents_that_take_tasks_are_listed(
    active: bool | None, deactivated: bool | None, listed: int
) -> None:
    agent = {"id": "s", "hostname": "h", "active": active, "deactivated": deactivated}
    assert len(translate.agents({"slaves": [agent]})) == listed


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("event-error-failed-over", Deposed("Framework failed over")),
        ("event-error-removed", FrameworkRemoved("Framework has been removed")),
        ("event-error-bad-role", None),
    ],
)
def test_only_two_errors_are_final(name: str, meaning: object) -> None:
    assert translate.ending(sample(name)["error"]["message"]) == meaning


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m1:5050", ("m1:5050",)),
        ("m1", ("m1:5050",)),
        ("m1:1, 10.0.0.2:2", ("m1:1", "10.0.0.2:2")),
        ("", ()),
        (None, ()),
    ],
)
def test_masters_are_host_and_port(text: str | None, expected: tuple[str, ...]) -> None:
    assert translate.addresses(text) == expected


@pytest.mark.parametrize("text", ["http://m:5050", "[::1]:5050", "m:port", "a b:1", "u:p@m:5050"])
def test_anything_else_is_no_master(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        translate.addresses(text)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("//10.0.0.1:5050/master/api/v1/scheduler", "10.0.0.1:5050"),
        ("http://m2:5051/", "m2:5051"),
        ("m3:5050", "m3:5050"),
        ("", None),
        ("//[::1]:1/x", None),
    ],
)
def test_a_redirect_names_the_leader(location: str, expected: str | None) -> None:
    assert translate.leader(location) == expected


def test_a_task_is_a_shell_command_with_what_it_needs_and_sees() -> None:
    task = TaskSpec(
        task_id="t.job.1",
        agent_id="a",
        name="count",
        command="wc -w",
        needs=Resources(millicpus=500, mem_mib=128, disk_mib=64),
        environment={"SCALE_JOB_ID": "7"},
        uris=(Uri("http://web/agent/steps.pyz", executable=True),),
    )
    assert translate.task_info(task) == {
        "name": "count",
        "task_id": {"value": "t.job.1"},
        "agent_id": {"value": "a"},
        "resources": [scalar("cpus", 0.5), scalar("mem", 128), scalar("disk", 64)],
        "command": {
            "shell": True,
            "value": "wc -w",
            "environment": {"variables": [{"name": "SCALE_JOB_ID", "value": "7"}]},
            "uris": [
                {
                    "value": "http://web/agent/steps.pyz",
                    "executable": True,
                    "extract": False,
                    "cache": False,
                }
            ],
        },
    }


def test_a_container_is_dockers_with_its_volumes() -> None:
    volumes = (Volume("/in", "/data/in", read_only=True), Volume("/out", "/data/out"))
    container = Container("debian:12", volumes, privileged=True)
    task = TaskSpec("t", "a", "n", "true", Resources(1, 1), container=container)
    assert translate.task_info(task)["container"] == {
        "type": "DOCKER",
        "docker": {"image": "debian:12", "privileged": True, "force_pull_image": False},
        "volumes": [
            {"container_path": "/in", "host_path": "/data/in", "mode": "RO"},
            {"container_path": "/out", "host_path": "/data/out", "mode": "RW"},
        ],
    }


def test_a_task_that_needs_nothing_still_names_a_resource() -> None:
    info = translate.task_info(TaskSpec("t", "a", "n", "true", Resources()))
    assert info["resources"] == [scalar("cpus", 0)]


def test_a_kill_names_agent_and_grace() -> None:
    assert translate.kill(TaskRef("t", "a"), grace_s=1.5) == {
        "task_id": {"value": "t"},
        "agent_id": {"value": "a"},
        "kill_policy": {"grace_period": {"nanoseconds": 1_500_000_000}},
    }


def test_the_framework_survives_restarts_of_agents_and_scheduler() -> None:
    info = framework_info(
        user="root",
        name="scale",
        role="*",
        principal="scale",
        failover_timeout_s=604800,
        hostname="h",
        webui_url="http://h/",
    )
    assert info["checkpoint"] is True
    assert info["failover_timeout"] == 604800
    assert info["principal"] == "scale"
    assert info["capabilities"] == [{"type": "PARTITION_AWARE"}]
    assert "id" not in info
