"""Section 1 of the contract: which request gets which answer, in the order of the checks."""

import email.utils
import http.client
import json
import time
from typing import Any

import pytest
from contract_cluster import Cluster, wait_for
from contract_framework import Framework

JSON = {"Content-Type": "application/json", "Accept": "application/json"}
INFO = {"user": "root", "name": "x"}


def refused(cluster: Cluster, status: int, text: str, body: Any, **headers: str) -> None:
    sent = body if isinstance(body, str) else json.dumps(body)
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    merged = {name: value for name, value in {**JSON, **changed}.items() if value}
    answer = cluster.send("POST", "/api/v1/scheduler", body=sent, headers=merged)
    assert (answer.status, text in answer.text) == (status, True), answer


def call_of(framework: Framework, kind: str = "REVIVE") -> dict[str, Any]:
    return {"type": kind, "framework_id": {"value": framework.framework_id}}


@pytest.mark.parametrize("given", [None, "Basic bm86bm8=", "Basic !", "Bearer x"])
def test_a_caller_without_the_secret_gets_401_and_a_challenge_before_all_else(
    cluster: Cluster, given: str | None
) -> None:
    if not cluster.secret:
        pytest.skip("this cluster asks for no credentials")
    headers = {"Authorization": given} if given else {}
    for method in ("GET", "POST"):
        answer = cluster.send(method, "/api/v1/scheduler", known=False, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="mesos-master-scheduler"'


@pytest.mark.local_mesos("closed")
def test_everything_that_tells_something_asks_for_credentials(cluster: Cluster) -> None:
    agent = next(iter(cluster.agents().values()))
    for address, method, path, realm in (
        (cluster.master, "GET", "/state", "mesos-master-readonly"),
        (cluster.master, "GET", "/master/slaves", "mesos-master-readonly"),
        (cluster.master, "GET", "/metrics/snapshot", "mesos-master-readonly"),
        (cluster.master, "POST", "/api/v1", "mesos-master-readwrite"),
        (cluster.master, "POST", "/teardown", "mesos-master-readwrite"),
        (agent, "GET", "/state", "mesos-agent-readonly"),
        (agent, "GET", "/files/read?path=x", "mesos-agent-readonly"),
        (agent, "GET", "/files/download?path=x", "mesos-agent-readonly"),
        (agent, "GET", "/slave(1)/containers", "mesos-agent-readonly"),
        (agent, "POST", "/api/v1", "mesos-agent-readwrite"),
    ):
        answer = cluster.send(method, path, to=address, known=False)
        assert answer.status == 401, path
        assert answer.headers["WWW-Authenticate"] == f'Basic realm="{realm}"', path


def test_version_and_health_are_open_and_the_version_is_digits_and_dots(cluster: Cluster) -> None:
    for address in (cluster.master, *cluster.agents().values()):
        version = cluster.send("GET", "/version", to=address, known=False)
        assert version.json["version"].replace(".", "").isdigit()
        health = cluster.send("GET", "/health", to=address, known=False)
        assert (health.status, health.body) == (200, b"")


def test_a_wrong_method_is_told_before_anything_about_the_body(cluster: Cluster) -> None:
    for method in ("GET", "PUT"):
        answer = cluster.send(method, "/api/v1/scheduler", body="{")
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert answer.text == (
            f"405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{method}'."
        )


def test_the_content_type_must_be_there_and_be_exactly_json(cluster: Cluster) -> None:
    refused(cluster, 400, "Expecting 'Content-Type' to be present", "{", Content_Type="")
    for kind in ("text/plain", "application/json; charset=utf-8"):
        refused(cluster, 415, "Expecting 'Content-Type' of", "{", Content_Type=kind)


@pytest.mark.parametrize("body", ["", "{", '{"type": '])
def test_what_is_not_json_is_400(cluster: Cluster, body: str) -> None:
    refused(cluster, 400, "Failed to parse body into JSON", body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([], "Expecting a JSON object"),
        ({"framework_id": "str"}, "Not expecting a JSON string for field 'framework_id'"),
        ({"type": 3}, "Not expecting a JSON number"),
        ({"type": "SUBSCRIBE", "subscribe": {}}, "Missing required fields: subscribe.framework_in"),
        (
            {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"name": "x"}}},
            "Missing required fields: subscribe.framework_info.user",
        ),
        (
            {
                "type": "ACKNOWLEDGE",
                "acknowledge": {"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": "!"},
            },
            "base64",
        ),
    ],
)
def test_a_body_that_is_no_call_is_400(cluster: Cluster, body: Any, text: str) -> None:
    refused(cluster, 400, text, body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Expecting 'type' to be present"),
        ({"type": "NOSUCH"}, "Expecting 'type' to be present"),
        ({"type": "revive"}, "Expecting 'type' to be present"),
        ({"type": "REVIVE"}, "Expecting 'framework_id' to be present"),
        ({"type": "ACCEPT", "framework_id": {"value": "x"}}, "Expecting 'accept' to be present"),
        (
            {
                "type": "SUBSCRIBE",
                "framework_id": {"value": "a"},
                "subscribe": {"framework_info": {**INFO, "id": {"value": "b"}}},
            },
            "'framework_id' differs from 'subscribe.framework_info.id'",
        ),
    ],
)
def test_an_invalid_call_is_400(cluster: Cluster, body: Any, text: str) -> None:
    refused(cluster, 400, f"Failed to validate scheduler::Call: {text}", body)


def test_an_acknowledged_uuid_has_sixteen_bytes(cluster: Cluster, framework: Framework) -> None:
    told = {"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": "YWJj"}
    body = {**call_of(framework, "ACKNOWLEDGE"), "acknowledge": told}
    refused(cluster, 400, "Not a valid UUID", body, Mesos_Stream_Id=framework.stream_id)


def test_subscribe_wants_an_accept_of_json_and_no_stream_id(cluster: Cluster) -> None:
    body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO}}
    refused(cluster, 406, "Expecting 'Accept' to allow", body, Accept="text/plain")
    refused(cluster, 400, "should not include the 'Mesos-Stream-Id'", body, Mesos_Stream_Id="x")


def test_a_principal_that_is_not_the_authenticated_one_is_400(cluster: Cluster) -> None:
    if not cluster.secret:
        pytest.skip("this cluster asks for no credentials")
    body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {**INFO, "principal": "other"}}}
    refused(cluster, 400, f"Authenticated principal '{cluster.principal}' does not match", body)


UNKNOWN = {"type": "REVIVE", "framework_id": {"value": "nope"}}
BAD_ID = {
    "type": "SUBSCRIBE",
    "framework_id": {"value": "a"},
    "subscribe": {"framework_info": INFO},
}


@pytest.mark.parametrize(
    ("status", "text", "body", "headers"),
    [
        (415, "", "{", {"Content_Type": "text/plain", "Accept": "text/plain"}),
        (400, "Failed to parse", "{", {"Accept": "text/plain", "Mesos_Stream_Id": "x"}),
        (400, "Failed to convert", {"type": "SUBSCRIBE", "subscribe": 1}, {"Accept": "text/plain"}),
        (400, "Failed to validate", BAD_ID, {"Accept": "text/plain", "Mesos_Stream_Id": "x"}),
        (
            406,
            "",
            {"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO}},
            {"Accept": "text/plain", "Mesos_Stream_Id": "x"},
        ),
        (400, "Framework cannot be found", UNKNOWN, {"Accept": "text/plain"}),
    ],
)
def test_of_several_faults_the_first_in_the_order_of_the_checks_is_told(
    cluster: Cluster, status: int, text: str, body: Any, headers: dict[str, str]
) -> None:
    refused(cluster, status, text, body, **headers)


@pytest.mark.parametrize(
    "kind",
    [
        *("ACCEPT", "DECLINE", "KILL", "SHUTDOWN", "ACKNOWLEDGE", "RECONCILE", "MESSAGE"),
        *("REQUEST", "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS", "RECONCILE_OPERATIONS"),
        *("ACKNOWLEDGE_OPERATION_STATUS", "UPDATE_FRAMEWORK"),
    ],
)
def test_a_call_without_its_own_message_is_400(cluster: Cluster, kind: str) -> None:
    call = {"type": kind, "framework_id": {"value": "x"}}
    refused(cluster, 400, f"Expecting '{kind.lower()}' to be present", call)


def test_a_call_of_a_disconnected_framework_is_403_whatever_its_stream(
    cluster: Cluster, framework: Framework
) -> None:
    framework.disconnect()
    wait_for(lambda: framework.call("REVIVE").status == 403, "403 after the disconnect")
    for stream_id in ("", "x", framework.stream_id):
        text = "Framework is not subscribed"
        refused(cluster, 403, text, call_of(framework), Mesos_Stream_Id=stream_id)
    framework.subscribe()


def test_a_call_of_type_unknown_is_not_implemented(cluster: Cluster, framework: Framework) -> None:
    refused(cluster, 400, "", call_of(framework, "UNKNOWN"))
    stream = {"Mesos_Stream_Id": framework.stream_id}
    refused(cluster, 501, "", call_of(framework, "UNKNOWN"), **stream)


def test_the_accept_header_counts_for_subscribe_only(
    cluster: Cluster, framework: Framework
) -> None:
    headers = {**JSON, "Accept": "text/plain", "Mesos-Stream-Id": framework.stream_id}
    body = json.dumps(call_of(framework))
    assert cluster.send("POST", "/api/v1/scheduler", body=body, headers=headers).status == 202


def test_redirect_points_to_the_leader_without_a_scheme(cluster: Cluster) -> None:
    for path in ("/redirect", "/master/redirect"):
        answer = cluster.get(path)
        assert answer.status == 307
        location = answer.headers["Location"]
        assert location.startswith("//")
        assert cluster.is_at(location.removeprefix("//"))


def test_operator_calls_are_checked_like_those_of_frameworks(cluster: Cluster) -> None:
    for method, body, headers, status, text in (
        ("GET", "", JSON, 405, "405 Method Not Allowed"),
        ("POST", "{}", {}, 400, "Expecting 'Content-Type' to be present"),
        ("POST", "{}", {"Content-Type": "text/plain"}, 415, "Expecting 'Content-Type' of"),
        ("POST", "{", JSON, 400, "Failed to parse body into JSON"),
        (
            "POST",
            '{"type":"NOSUCH"}',
            JSON,
            400,
            "Failed to validate master::Call: Expecting 'type'",
        ),
        ("POST", '{"type":"TEARDOWN"}', JSON, 400, "Expecting 'teardown' to be present"),
    ):
        answer = cluster.send(method, "/api/v1", body=body, headers=headers)
        assert (answer.status, text in answer.text) == (status, True), answer


@pytest.mark.parametrize("how", ["form", "call"])
def test_an_operator_can_tear_a_framework_down(
    cluster: Cluster, framework: Framework, how: str
) -> None:
    def tear_down(framework_id: str) -> int:
        if how == "form":
            return cluster.send("POST", "/teardown", body=f"frameworkId={framework_id}").status
        named = {"framework_id": {"value": framework_id}}
        return cluster.post("/api/v1", {"type": "TEARDOWN", "teardown": named}).status

    assert tear_down("no-such-framework") == 400
    assert tear_down(framework.framework_id) == 200
    framework.until(lambda event: event["type"] == "CLOSED")
    framework.stream_id = ""


def test_a_call_names_a_known_framework_and_its_present_stream(
    cluster: Cluster, framework: Framework
) -> None:
    refused(cluster, 400, "Framework cannot be found", UNKNOWN, Mesos_Stream_Id="x")
    refused(cluster, 400, "All non-subscribe calls should include", call_of(framework))
    text = "The stream ID 'x' included in this request didn't match the stream ID currently"
    refused(cluster, 400, text, call_of(framework), Mesos_Stream_Id="x")


def test_every_other_call_gets_202_without_a_body_on_a_connection_that_lives(
    framework: Framework,
) -> None:
    nobody, none = {"value": "none"}, {"value": "no-offer"}
    for kind, fields in (
        ("REVIVE", {}),
        ("REVIVE", {"revive": {"roles": ["not-mine"]}}),
        ("SUPPRESS", {"suppress": {"roles": []}, "unknown_field": [1], "accept": None}),
        ("DECLINE", {"decline": {"offer_ids": [none], "filters": {"refuse_seconds": "1"}}}),
        ("KILL", {"kill": {"task_id": nobody}}),
        ("RECONCILE", {"reconcile": {}}),
        ("REQUEST", {"request": {"requests": []}}),
        ("MESSAGE", {"message": {"agent_id": nobody, "executor_id": nobody, "data": "YQ=="}}),
        ("SHUTDOWN", {"shutdown": {"executor_id": nobody, "agent_id": nobody}}),
    ):
        answer = framework.call(kind, **fields)
        assert (answer.status, answer.body) == (202, b""), kind
        assert answer.headers["Content-Length"] == "0"


def test_the_longest_prefix_of_a_path_counts_and_a_trailing_slash_does_not(
    cluster: Cluster, framework: Framework
) -> None:
    headers = {**JSON, "Mesos-Stream-Id": framework.stream_id}
    body = json.dumps(call_of(framework))
    for path in ("/api/v1/scheduler/", "/master/api/v1/scheduler"):
        assert cluster.send("POST", path, body=body, headers=headers).status == 202
    health = {"type": "GET_HEALTH"}
    for path in ("/api/v1", "/api/v1/operator", "/api/v1/"):
        assert cluster.post(path, health).json == {
            "type": "GET_HEALTH",
            "get_health": {"healthy": True},
        }
    for path in ("/nope", "/state.json", "/api/v2/scheduler"):
        assert cluster.get(path).status == 404
    agent = next(iter(cluster.agents().values()))
    for path in ("/state/", "/slave(1)/state", "/slave%281%29/state"):
        assert cluster.get(path, to=agent).json["pid"] == f"slave(1)@{agent}"


def test_every_answer_has_a_date(cluster: Cluster, framework: Framework) -> None:
    answers = [
        framework.call("REVIVE"),
        cluster.get("/version"),
        cluster.get("/nope"),
        cluster.send("GET", "/api/v1/scheduler"),
        cluster.get("/files/browse", to=next(iter(cluster.agents().values()))),
    ]
    for answer in answers:
        sent = email.utils.parsedate_to_datetime(answer.headers["Date"])
        assert abs(sent.timestamp() - time.time()) < 60


def test_two_calls_sent_at_once_on_one_connection_are_answered_in_order(cluster: Cluster) -> None:
    connection = http.client.HTTPConnection(cluster.master, timeout=10)
    connection.connect()
    request = f"GET /health HTTP/1.1\r\nHost: {cluster.master}\r\n\r\n".encode()
    connection.sock.sendall(request * 2)
    got = b""
    while got.count(b"200 OK") < 2:
        data = connection.sock.recv(4096)
        assert data, got
        got += data
    connection.close()


@pytest.mark.local_mesos("unsupported")
def test_what_is_not_served_says_so(cluster: Cluster, framework: Framework) -> None:
    agent = next(iter(cluster.agents().values()))
    for path in ("/quota", "/weights", "/maintenance/status", "/roles"):
        assert cluster.get(path).status == 501
    for call in ("GET_QUOTA", "DRAIN_AGENT", "SUBSCRIBE"):
        answer = cluster.post("/api/v1", {"type": call})
        assert (answer.status, answer.text) == (501, f"{call} is not supported by local Mesos")
    assert cluster.post("/api/v1", {"type": "LAUNCH_NESTED_CONTAINER"}, to=agent).status == 501
    assert (
        framework.call("UPDATE_FRAMEWORK", update_framework={"framework_info": INFO}).status == 501
    )
