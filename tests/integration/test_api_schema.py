"""The description of the interface is whole, and says what the interface does."""

import re
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from api_world import described
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client
from jsonschema import Draft202012Validator
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import JobExecution
from scale.node.models import Node


def test_the_schema_is_valid_and_without_warnings() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


@pytest.fixture(scope="module")
def schema() -> Any:
    return described()


def test_each_address_is_described_once_and_none_of_v3(schema: Any) -> None:
    paths = set(schema["paths"])
    assert {"/job-executions/", "/jobs/{id}/", "/files/{id}/content/", "/healthz"} <= paths
    assert not any(path.startswith(("/v3", "/admin", "/agent")) for path in paths)


def each_operation(schema: Any) -> Iterator[tuple[str, Any]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def resolved(schema: Any, part: Any) -> Any:
    while "$ref" in part:
        _, _, kind, name = part["$ref"].split("/")
        part = schema["components"][kind][name]
    return part


def examples_of(part: Any) -> list[Any]:
    return [each["value"] for each in part.get("examples", {}).values()] or (
        [part["example"]] if "example" in part else []
    )


def valid(schema: Any, part: Any, value: Any) -> list[str]:
    """Return what is wrong with a value by a part of the schema."""
    whole = {**part, "components": schema["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def test_every_operation_says_what_it_is_and_who_may(schema: Any) -> None:
    names = []
    for name, operation in each_operation(schema):
        names.append(operation["operationId"])
        assert operation["summary"], name
        assert operation["tags"], name
        assert operation["description"], name
        assert operation["x-roles"], name
        assert ("x-permission" in operation) == (operation["x-roles"][-1] == "admin"), name
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), (name, parameter["name"])
    assert len(names) == len(set(names))


def test_every_parameter_has_an_example_that_fits(schema: Any) -> None:
    for name, operation in each_operation(schema):
        for parameter in operation.get("parameters", ()):
            assert examples_of(parameter), (name, parameter["name"])
            for value in examples_of(parameter):
                where = (name, parameter["name"], value)
                assert valid(schema, parameter["schema"], value) == [], where


def test_every_body_and_every_answer_has_an_example_that_fits(schema: Any) -> None:
    for name, operation in each_operation(schema):
        body = operation.get("requestBody", {"content": {}})
        assert body.get("required", True), name
        parts = [("body", media) for media in body["content"].values()]
        for status, given in operation["responses"].items():
            response = resolved(schema, given)
            assert response["description"], (name, status)
            contents = response.get("content", {})
            assert contents or status in {"204", "304"}, (name, status)
            parts += [(status, media) for media in contents.values()]
            parts += [(status, header) for header in response.get("headers", {}).values()]
        for where, part in parts:
            assert examples_of(part), (name, where)
            for value in examples_of(part):
                assert valid(schema, part["schema"], value) == [], (name, where, value)


PROBLEM = {"$ref": "#/components/schemas/Problem"}


def test_every_operation_says_how_it_can_fail(schema: Any) -> None:
    for name, operation in each_operation(schema):
        answers = set(operation["responses"])
        wanted = {"400"}
        if operation["x-roles"] != ["anybody"]:
            wanted |= {"401", "503"}
        if "x-permission" in operation:
            wanted |= {"403"}
        if "{" in name:
            wanted |= {"404"}
        if "requestBody" in operation:
            wanted |= {"413", "415"}
        assert wanted <= answers, name
        for status in answers - {"503"}:
            if status >= "400":
                content = resolved(schema, operation["responses"][status])["content"]
                assert content["application/json"]["schema"] == PROBLEM, (name, status)


def test_the_headers_that_matter_are_described(schema: Any) -> None:
    def headers(path: str, method: str, status: str) -> set[str]:
        given = schema["paths"][path][method]["responses"][status]
        return set(resolved(schema, given).get("headers", {}))

    assert "Location" in headers("/jobs/", "post", "201")
    assert "Location" in headers("/jobs/cancel/", "post", "202")
    assert "WWW-Authenticate" in headers("/jobs/", "get", "401")
    assert "Retry-After" in headers("/jobs/", "get", "503")
    for path in ("/files/{id}/content/", "/job-executions/{id}/logs/{stream}/"):
        assert {"ETag", "Accept-Ranges"} <= headers(path, "get", "200")
        assert {"ETag", "Content-Range"} <= headers(path, "get", "206")
        assert {"ETag"} <= headers(path, "get", "304")
        assert {"Content-Range"} <= headers(path, "get", "416")


# What the interface has always ignored fields of.
OPEN = {"POST /job-types/", "POST /job-types/validation/", "PATCH /job-types/{id}/"}


def test_bodies_have_no_other_fields_than_those_described(schema: Any) -> None:
    for name, operation in each_operation(schema):
        for media in operation.get("requestBody", {"content": {}})["content"].values():
            shape = resolved(schema, media["schema"])
            assert shape["additionalProperties"] is (name in OPEN), name


def test_each_part_of_the_document_is_a_good_json_schema(schema: Any) -> None:
    for part in schema["components"]["schemas"].values():
        Draft202012Validator.check_schema(part)


def shape_of(schema: Any, part: Any) -> Any:
    """Follow references; return the schema itself."""
    while True:
        if "$ref" in part:
            part = schema["components"]["schemas"][part["$ref"].rpartition("/")[2]]
        elif "allOf" in part and len(part["allOf"]) == 1:
            part = part["allOf"][0]
        elif "oneOf" in part:
            part = next(each for each in part["oneOf"] if each != {"type": "null"})
        else:
            return part


def check(schema: Any, part: Any, value: Any, where: str) -> None:
    """Check that an answer has the fields of its description, no more and no less."""
    part = shape_of(schema, part)
    if value is None:
        return
    if "properties" in part:
        assert set(value) <= set(part["properties"]), where
        assert set(part.get("required", ())) <= set(value), where
        for name, inner in value.items():
            check(schema, part["properties"][name], inner, f"{where}.{name}")
    elif part.get("type") == "array":
        for inner in value:
            check(schema, part["items"], inner, f"{where}[]")
    elif "enum" in part:
        assert value in part["enum"], where


def test_answers_have_the_fields_that_are_described(
    schema: Any,
    api: APIClient,
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Node],
) -> None:
    failed = make_execution(State.FAILED)
    make_execution(State.QUEUED)
    running = make_execution(State.RUNNING, has_steps=True)
    absent = make_node(is_online=False)
    upload = SimpleUploadedFile("a.txt", b"text")
    file = api.post("/files/", {"file": upload}, format="multipart").json()["id"]
    body = {"job_ids": [failed.job_id]}
    action = api.post("/jobs/requeue/", body, format="json").json()["id"]
    addresses = [
        ("/bulk-actions/", None),
        ("/bulk-actions/{id}/", action),
        ("/job-executions/", None),
        ("/job-executions/{id}/", failed.pk),
        ("/job-executions/{id}/", running.pk),
        ("/jobs/", None),
        ("/jobs/{id}/", failed.job_id),
        ("/jobs/{id}/", running.job_id),
        ("/jobs/{id}/executions/", failed.job_id),
        ("/jobs/{id}/history/", failed.job_id),
        ("/job-executions/{id}/history/", failed.pk),
        ("/jobs/executions/", None),
        ("/jobs/updates/", None),
        ("/job-types/{id}/revisions/", running.job_type_id),
        ("/job-types/", None),
        ("/job-types/{id}/", running.job_type_id),
        ("/nodes/", None),
        ("/nodes/{id}/", running.node_id),
        ("/nodes/{id}/", absent.pk),
        ("/nodes/status/", None),
        ("/job-types/status/", None),
        ("/job-types/running/", None),
        ("/job-types/system-failures/", None),
        ("/errors/", None),
        ("/errors/{id}/", failed.error_id),
        ("/files/", None),
        ("/files/{id}/", file),
        ("/queue/status/", None),
        ("/scheduler/", None),
        ("/scheduler/queued-resources/", None),
        ("/version/", None),
        ("/load/", None),
        ("/metrics/", None),
        ("/metrics/{name}/", "errors"),
        ("/metrics/{name}/plot-data/", "errors"),
        ("/timeline/job-types/", None),
        ("/healthz", None),
    ]
    for path, key in addresses:
        answer = api.get(re.sub(r"\{\w+\}", str(key), path))
        assert answer.status_code == 200
        described = schema["paths"][path]["get"]["responses"]["200"]["content"]
        check(schema, described["application/json"]["schema"], answer.json(), path)


def test_the_documentation_is_open_and_needs_nobody_else() -> None:
    client = Client()
    document = client.get("/schema/")
    assert document.json()["openapi"].startswith("3.1")
    known = client.get("/schema/", headers={"If-None-Match": document["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
    page = client.get("/docs/")
    assert page.status_code == 200
    found = re.findall(r"""(?:src|href)=["']([^"']+)""", page.content.decode())
    assert found
    assert [address for address in found if "//" in address] == []
    for address in found:
        answer = client.get(address)
        assert answer.status_code == 200, address
        b"".join(answer)
