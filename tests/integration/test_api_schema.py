"""The description of the interface is whole, and says what the interface does."""

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import JobExecution
from scale.node.models import Node


def test_the_schema_is_valid_and_without_warnings() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


@pytest.fixture(scope="module")
def schema() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)


def test_each_address_is_described_once_and_none_of_v3(schema: Any) -> None:
    paths = set(schema["paths"])
    assert {"/job-executions/", "/jobs/{id}/", "/files/{id}/content/", "/healthz"} <= paths
    assert not any(path.startswith(("/v3", "/admin", "/agent")) for path in paths)


# Their bodies name things, or the scheduler has no row yet.
MAY_NOT_EXIST = {"/jobs/", "/scheduler/", "/queue/new-job/", "/queue/requeue-jobs/"}


def test_every_operation_says_how_it_can_fail(schema: Any) -> None:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if path in {"/healthz", "/readyz", "/schema/"} or "/logs/" in path:
                continue
            answers = set(operation["responses"])
            assert {"400", "401"} <= answers, (method, path)
            assert ("404" in answers) == ("{id}" in path) or path in MAY_NOT_EXIST
            if method in {"post", "patch", "put"}:
                assert {"413", "415"} <= answers, (method, path)


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
        assert set(part["required"]) <= set(value), where
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
        ("/healthz", None),
    ]
    for path, key in addresses:
        answer = api.get(path.replace("{id}", str(key)))
        assert answer.status_code == 200
        described = schema["paths"][path]["get"]["responses"]["200"]["content"]
        check(schema, described["application/json"]["schema"], answer.json(), path)


def test_the_documentation_is_open_and_needs_nobody_else() -> None:
    client = Client()
    assert client.get("/schema/").status_code == 200
    page = client.get("/docs/")
    assert page.status_code == 200
    found = re.findall(r"""(?:src|href)=["']([^"']+)""", page.content.decode())
    assert found
    assert [address for address in found if "//" in address] == []
    for address in found:
        answer = client.get(address)
        assert answer.status_code == 200, address
        b"".join(answer.streaming_content) if answer.streaming else answer.content
