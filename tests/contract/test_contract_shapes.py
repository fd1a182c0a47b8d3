"""The fields of what is sent, and their types, as in the captures of a Mesos 1.12 cluster.

A number with a point there is a `float` here. What is listed must be there. Local Mesos sends
nothing else either, a real cluster may.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from contract_cluster import ONLY_GIVEN, Cluster
from contract_framework import Framework, is_update, make_task

Shape = Mapping[str, Any]

ID = {"value": str}
AMOUNTS = {"cpus": float, "mem": float, "disk": float, "gpus": float, "ports?": str}
RESOURCE = {
    "name": str,
    "type": str,
    "scalar?": {"value": float},
    "ranges?": {"range": [{"begin": int, "end": int}]},
    "role": str,
}
ALLOCATED = {**RESOURCE, "allocation_info": {"role": str}}
ADDRESS = {"hostname": str, "ip": str, "port": int}
MASTER = {
    **dict.fromkeys(("id", "pid", "hostname", "version"), str),
    "ip": int,
    "port": int,
    "address": ADDRESS,
    "capabilities": [{"type": str}],
}
SUBSCRIBED = {"framework_id": ID, "heartbeat_interval_seconds": float, "master_info": MASTER}
OFFER = {
    "id": ID,
    "framework_id": ID,
    "agent_id": ID,
    "hostname": str,
    "attributes?": [None],
    "url": {"scheme": str, "address": ADDRESS, "path": str},
    "resources": [RESOURCE],
}
NETWORK = {"ip_addresses": [{"protocol": str, "ip_address": str}]}
CONTAINER = {"container_id": ID, "network_infos": [NETWORK], "executor_pid?": int}
SHOWN_CONTAINER = {"container_id": ID, "network_infos": [NETWORK]}

BY_MASTER = {
    "task_id": ID,
    "state": str,
    "message": str,
    "source": str,
    "reason": str,
    "agent_id": ID,
    "timestamp": float,
}
WITH_UUID = {
    "task_id": ID,
    "state": str,
    "source": str,
    "agent_id": ID,
    "executor_id": ID,
    "timestamp": float,
    "uuid": str,
}
BY_EXECUTOR = {**WITH_UUID, "container_status": CONTAINER}
BY_AGENT = {**WITH_UUID, "message": str, "reason": str}

SLAVE = {
    **dict.fromkeys(("id", "hostname", "pid", "version"), str),
    "port": int,
    "attributes": {},
    "registered_time": float,
    "reregistered_time?": float,
    "resources": AMOUNTS,
    "used_resources": AMOUNTS,
    "offered_resources": AMOUNTS,
    "unreserved_resources": AMOUNTS,
    "reserved_resources": {},
    "active": bool,
    "deactivated": bool,
    "capabilities": [str],
}
FULL_SLAVE = {
    **SLAVE,
    "reserved_resources_full": {},
    "unreserved_resources_full": [RESOURCE],
    "used_resources_full": [ALLOCATED],
    "offered_resources_full": [ALLOCATED],
}
LABEL = {"key": str, "value": str}
PORT = {"number": int, "name": str, "protocol": str}
TASK = {
    **dict.fromkeys(("id", "name", "framework_id", "executor_id", "slave_id", "state"), str),
    "role": str,
    "resources": AMOUNTS,
    "statuses": [{"state": str, "timestamp": float, "container_status?": SHOWN_CONTAINER}],
    "labels?": [LABEL],
    "discovery?": {"visibility": str, "name": str, "ports": {"ports": [PORT]}},
}
FRAMEWORK = {
    **dict.fromkeys(("id", "name", "hostname", "webui_url", "user", "role"), str),
    "principal?": str,
    "capabilities": [str],
    "active": bool,
    "connected": bool,
    "recovered": bool,
    "checkpoint": bool,
    "failover_timeout": float,
    "registered_time": float,
    "unregistered_time": float,
    "reregistered_time?": float,
    "resources": AMOUNTS,
    "used_resources": AMOUNTS,
    "offered_resources": AMOUNTS,
    "tasks": [TASK],
    "completed_tasks": [TASK],
    "unreachable_tasks": [TASK],
    "offers": [None],
    "executors": [None],
    "offer_constraints": {},
    "labels?": [LABEL],
}
VERSION = {"version": str, "build_date": str, "build_time": float, "build_user": str}
STATE = {
    **VERSION,
    **dict.fromkeys(("id", "pid", "hostname", "leader"), str),
    "start_time": float,
    "elected_time": float,
    "flags": {},
    "capabilities": [str],
    **{f"{how}_slaves": float for how in ("activated", "deactivated", "unreachable")},
    "leader_info": {"id": str, "pid": str, "port": int, "hostname": str},
    "slaves": [SLAVE],
    "recovered_slaves": [None],
    "orphan_tasks": [None],
    "frameworks": [None],
    "completed_frameworks": [None],
    "unregistered_frameworks": [None],
}
EXECUTOR = {
    **dict.fromkeys(("id", "name", "source", "container", "directory", "role"), str),
    "resources": AMOUNTS,
    "labels?": [LABEL],
    "tasks": [TASK],
    "queued_tasks": [TASK],
    "completed_tasks": [TASK],
}
OF_AGENT = {
    **dict.fromkeys(("id", "name", "user", "hostname"), str),
    "principal?": str,
    "failover_timeout": float,
    "checkpoint": bool,
    "roles": [str],
    "executors": [EXECUTOR],
    "completed_executors": [EXECUTOR],
}
AGENT_STATE = {
    **VERSION,
    **dict.fromkeys(("id", "pid", "hostname", "master_hostname"), str),
    "start_time": float,
    "flags": {},
    "capabilities": [str],
    "attributes": {},
    "resources": AMOUNTS,
    "unreserved_resources": AMOUNTS,
    "reserved_resources": {},
    "unreserved_resources_full": [RESOURCE],
    "reserved_resources_full": {},
    "unreserved_resources_allocated": AMOUNTS,
    "reserved_resources_allocated": {},
    "resource_providers": [None],
    "frameworks": [OF_AGENT],
    "completed_frameworks": [None],
}
STATISTICS = {
    "timestamp": float,
    **{f"cpus_{name}": float for name in ("user_time_secs", "system_time_secs", "soft_limit")},
    **{f"mem_{name}_bytes": int for name in ("limit", "soft_limit", "rss")},
}
SHOWN_STATUS = {"container_id": ID, "executor_pid": int}
MONITORED = {
    **dict.fromkeys(("executor_id", "executor_name", "framework_id", "source"), str),
    "statistics": STATISTICS,
}
UNRESERVED = {name: kind for name, kind in RESOURCE.items() if name != "role"}
AGENT_INFO = {"hostname": str, "port": int, "resources": [UNRESERVED], "id": ID}
V1_AGENT = {
    "agent_info": {**AGENT_INFO, "checkpoint": bool},
    "active": bool,
    "deactivated": bool,
    **dict.fromkeys(("version", "pid"), str),
    "registered_time": {"nanoseconds": int},
    "reregistered_time?": {"nanoseconds": int},
    "total_resources": [RESOURCE],
    "allocated_resources": [ALLOCATED],
    "offered_resources": [ALLOCATED],
    "capabilities": [{"type": str}],
}
V1_CONTAINER = {
    **dict.fromkeys(("framework_id", "executor_id", "container_id"), ID),
    "executor_name": str,
    "container_status": SHOWN_STATUS,
    "resource_statistics": STATISTICS,
}
METRIC = re.compile(
    r"master/(uptime_secs|elected|outstanding_offers|tasks_[a-z_]+|slaves_[a-z]+|frameworks_[a-z]+"
    r"|(cpus|mem|disk|gpus)_(total|used|percent))"
    r"|system/(cpus_total|load_\d+min|mem_(total|free)_bytes)"
)
FILE = {"path": str, "nlink": int, "size": int, "mtime": float, "mode": str, "uid": str, "gid": str}
FILE_INFO = {**FILE, "mtime": {"nanoseconds": int}, "mode": int}


def agrees(value: Any, shape: Any, path: str = "") -> None:
    """Check a value against a shape: a type, a list of one shape, fields; None is anything."""
    if isinstance(shape, list):
        assert isinstance(value, list), path
        for index, each in enumerate(value):
            agrees(each, shape[0], f"{path}[{index}]")
    elif isinstance(shape, Mapping):
        assert isinstance(value, dict), path
        shapes = {name.rstrip("?"): each for name, each in shape.items()}
        missing = {name for name in shape if not name.endswith("?")} - set(value)
        extra = set(value) - set(shapes) if shapes and not ONLY_GIVEN else set()
        assert (missing, extra) == (set(), set()), path
        for name in set(shapes) & set(value):
            agrees(value[name], shapes[name], f"{path}.{name}")
    elif shape is not None:
        assert type(value) is shape, (path, value)


def test_subscribed_and_offers(framework: Framework) -> None:
    agrees(framework.seen[0], {"type": str, "subscribed": SUBSCRIBED})
    framework.offer()
    [event] = [event for event in framework.seen if event["type"] == "OFFERS"][:1]
    agrees(event, {"type": str, "offers": {"offers": [OFFER]}})


def test_the_updates_of_a_task_that_ends_by_itself(framework: Framework) -> None:
    task = framework.launch("exit 3")
    for state, shape in (
        ("TASK_STARTING", BY_EXECUTOR),
        ("TASK_RUNNING", BY_EXECUTOR),
        ("TASK_FAILED", {**BY_EXECUTOR, "message": str}),
    ):
        event = framework.until(is_update)
        status = event["update"]["status"]
        assert (status["task_id"], status["state"]) == (task["task_id"], state)
        agrees(event, {"type": str, "update": {"status": shape}})
        framework.acknowledge(status)


def test_the_update_of_a_task_that_could_not_be_started(framework: Framework) -> None:
    uris = [{"value": "file:///no/such/file"}]
    status = framework.run_until(framework.launch("true", command={"uris": uris}))
    agrees(status, BY_AGENT)


def test_the_update_of_a_task_that_lived_too_long(framework: Framework) -> None:
    life = {"nanoseconds": 100_000_000}
    status = framework.run_until(framework.launch("sleep 100", max_completion_time=life))
    agrees(status, {**BY_EXECUTOR, "message": str, "reason": str})


@pytest.mark.local_mesos("limits")
def test_the_update_of_a_task_over_its_memory(framework: Framework) -> None:
    code = "import time; x = bytearray(200 << 20); time.sleep(60)"
    status = framework.run_until(framework.launch(f"python3 -c '{code}'", mem=40))
    limit = {"name": str, "type": str, "scalar": {"value": float}}
    agrees(status, {**BY_AGENT, "limitation": {"resources": [limit]}})


def test_the_updates_of_the_master(framework: Framework) -> None:
    offer = framework.offer()
    framework.decline(offer, 600)
    stale = make_task(offer, "true")
    framework.accept([offer], [stale])
    agrees(framework.status(stale), BY_MASTER)
    framework.call("REVIVE")
    bad = framework.launch("true", resources=[])
    agrees(framework.status(bad), BY_MASTER)
    framework.call("REVIVE")
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    unknown = {"task_id": {"value": "unknown"}, "agent_id": task["agent_id"]}
    asked = {"task_id": task["task_id"], "agent_id": task["agent_id"]}
    framework.call("RECONCILE", reconcile={"tasks": [asked, unknown]})
    agrees(framework.status(task), {**BY_MASTER, "container_status": CONTAINER})
    agrees(framework.status(unknown), BY_MASTER)


def test_what_the_master_shows(cluster: Cluster, framework: Framework) -> None:
    framework.run_until(framework.launch("true"))
    framework.call("REVIVE")
    framework.run_until(framework.launch("sleep 100"), "TASK_RUNNING")
    framework.call("REVIVE")
    framework.offer()
    slaves = cluster.get("/slaves").json
    agrees(slaves, {"slaves": [FULL_SLAVE], "recovered_slaves": [None]})
    assert sum(len(each["offered_resources_full"]) for each in slaves["slaves"])
    state = cluster.get("/state").json
    agrees(state, {**STATE, "cluster?": str, "log_dir?": str})
    [mine] = [each for each in state["frameworks"] if each["id"] == framework.framework_id]
    agrees(mine, FRAMEWORK)
    assert len(mine["tasks"]) == len(mine["completed_tasks"]) == 1
    agrees(cluster.get("/version").json, VERSION)
    metrics = cluster.get("/metrics/snapshot").json
    assert all(type(value) is float for value in metrics.values())
    assert ONLY_GIVEN or [name for name in metrics if not METRIC.fullmatch(name)] == []


def test_a_single_slave_can_be_asked_for(cluster: Cluster) -> None:
    for agent_id in cluster.agents():
        [only] = cluster.get(f"/slaves?slave_id={agent_id}").json["slaves"]
        assert only["id"] == agent_id
    assert cluster.get("/slaves?slave_id=none").json["slaves"] == []


def test_what_an_agent_shows(cluster: Cluster, framework: Framework) -> None:
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    agent = cluster.agents()[task["agent_id"]["value"]]
    state = cluster.get("/state", to=agent).json
    agrees(state, AGENT_STATE if not ONLY_GIVEN else {**AGENT_STATE, "log_dir?": str})
    [mine] = [each for each in state["frameworks"] if each["id"] == framework.framework_id]
    [executor] = mine["executors"]
    [shown] = executor["tasks"]
    assert [each["state"] for each in shown["statuses"]] == ["TASK_STARTING", "TASK_RUNNING"]
    path = framework.sandbox(task)
    agrees(cluster.get(f"/files/browse?path={path}", to=agent).json, [FILE])
    call = {"type": "LIST_FILES", "list_files": {"path": path}}
    listed = cluster.post("/api/v1", call, to=agent).json
    agrees(listed, {"type": str, "list_files": {"file_infos": [FILE_INFO]}})
    agrees(cluster.get("/version", to=agent).json, VERSION)


def test_what_operator_calls_answer(cluster: Cluster) -> None:
    agent = next(iter(cluster.agents().values()))
    times = {"start_time": float, "elected_time": float}
    for address, kind, shape in (
        (cluster.master, "GET_MASTER", {"master_info": MASTER, **times}),
        (cluster.master, "GET_HEALTH", {"healthy": bool}),
        (cluster.master, "GET_VERSION", {"version_info": VERSION}),
        (cluster.master, "GET_METRICS", {"metrics": [{"name": str, "value": float}]}),
        (cluster.master, "GET_AGENTS", {"agents": [V1_AGENT], "recovered_agents": [None]}),
        (agent, "GET_HEALTH", {"healthy": bool}),
        (agent, "GET_VERSION", {"version_info": VERSION}),
        (agent, "GET_AGENT", {"agent_info": AGENT_INFO}),
    ):
        answer = cluster.post("/api/v1", {"type": kind}, to=address).json
        agrees(answer, {"type": str, kind.lower(): shape})


def test_what_runs_is_shown_in_the_form_of_each_api(cluster: Cluster, framework: Framework) -> None:
    task = framework.launch("sleep 100", cpus=0.2, mem=64)
    status = framework.run_until(task, "TASK_RUNNING")
    agent = cluster.agents()[task["agent_id"]["value"]]
    container = status["container_status"]["container_id"]
    legacy = cluster.get(f"/containers?container_id={container['value']}", to=agent).json
    agrees(legacy, [{**MONITORED, "container_id": str, "status": SHOWN_STATUS}])
    assert [each["container_id"] for each in legacy] == [container["value"]]
    monitored = cluster.get("/monitor/statistics", to=agent).json
    agrees(monitored, [MONITORED])
    assert task["name"] in {each["executor_id"] for each in monitored}
    answer = cluster.post("/api/v1", {"type": "GET_CONTAINERS"}, to=agent).json
    agrees(answer, {"type": str, "get_containers": {"containers": [V1_CONTAINER]}})
    [mine] = [
        each for each in answer["get_containers"]["containers"] if each["container_id"] == container
    ]
    assert mine["framework_id"] == {"value": framework.framework_id}
    assert mine["executor_id"] == task["task_id"]
    # The agent adds a tenth of a core and 32 MiB to what the task asked for (section 6.1).
    used = mine["resource_statistics"]
    assert used["cpus_soft_limit"] == pytest.approx(0.3)
    assert used["mem_limit_bytes"] == used["mem_soft_limit_bytes"] == 96 << 20
    state = cluster.get("/state", to=agent).json
    [executor] = [
        each for shown in state["frameworks"] for each in shown["executors"]
        if each["id"] == task["name"]
    ]  # fmt: skip
    assert executor["resources"]["cpus"] == pytest.approx(0.3)
    assert executor["resources"]["mem"] == 96
    assert executor["tasks"][0]["resources"]["mem"] == 64
    assert state["unreserved_resources_allocated"]["mem"] >= 96


def test_what_is_used_is_shown_by_role(cluster: Cluster, framework: Framework) -> None:
    task = framework.launch("sleep 100")
    framework.run_until(task, "TASK_RUNNING")
    [slave] = cluster.get(f"/slaves?slave_id={task['agent_id']['value']}").json["slaves"]
    assert {each["allocation_info"]["role"] for each in slave["used_resources_full"]} == {"*"}
    agents = cluster.post("/api/v1", {"type": "GET_AGENTS"}).json["get_agents"]["agents"]
    [mine] = [each for each in agents if each["agent_info"]["id"] == task["agent_id"]]
    assert mine["allocated_resources"] == slave["used_resources_full"]
    cpus = [each for each in mine["allocated_resources"] if each["name"] == "cpus"]
    assert sum(each["scalar"]["value"] for each in cpus) >= 0.1


def test_labels_and_discovery_are_shown_as_they_were_given(
    cluster: Cluster, make_framework: Callable[..., Framework]
) -> None:
    of_framework = {"labels": [{"key": "lk", "value": "lv"}]}
    framework = make_framework(labels=of_framework).subscribe()
    ports = {"ports": [{"number": 31001, "name": "grpc", "protocol": "tcp"}]}
    discovery = {"visibility": "CLUSTER", "name": "svc", "ports": ports}
    labels = {"labels": [{"key": "a", "value": "b"}]}
    task = framework.launch("sleep 100", labels=labels, discovery=discovery)
    framework.run_until(task, "TASK_RUNNING")
    frameworks = cluster.get("/state").json["frameworks"]
    [mine] = [each for each in frameworks if each["id"] == framework.framework_id]
    assert mine["labels"] == of_framework["labels"]
    agent = cluster.agents()[task["agent_id"]["value"]]
    [there] = [
        each for each in cluster.get("/state", to=agent).json["frameworks"]
        if each["id"] == framework.framework_id
    ]  # fmt: skip
    assert there["executors"][0]["labels"] == labels["labels"]
    for shown in (mine["tasks"][0], there["executors"][0]["tasks"][0]):
        assert (shown["labels"], shown["discovery"]) == (labels["labels"], discovery)


def test_in_the_v1_api_an_empty_list_is_left_out(cluster: Cluster, framework: Framework) -> None:
    task = framework.launch("mkdir empty")
    framework.run_until(task)
    agent = cluster.agents()[task["agent_id"]["value"]]
    call = {"type": "LIST_FILES", "list_files": {"path": f"{framework.sandbox(task)}/empty"}}
    assert cluster.post("/api/v1", call, to=agent).json == {"type": "LIST_FILES", "list_files": {}}
