"""/job-types/: the kinds of work."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from scale.job.models import JobType, JobTypeRevision
from scale.job.selectors import JOB_TYPE_ORDER

WORD_COUNT: dict[str, Any] = {
    "name": "word-count",
    "version": "1.0",
    "title": "Word count",
    "category": "text",
    "cpus_required": 0.5,
    "mem_required": 128,
    "disk_out_const_required": 64,
    "timeout": 600,
    "max_tries": 3,
    "priority": 100,
    "interface": {
        "version": "1.0",
        "command": "sh",
        "command_arguments": '-c \'wc -w "$1" | tee "$SCALE_OUTPUT_DIR/count.txt"; '
        'sleep "$2"\' - ${text} ${pause}',
        "input_data": [
            {"name": "text", "type": "file", "media_types": ["text/plain"]},
            {
                "name": "pause",
                "type": "property",
                "value_type": "number",
                "required": False,
                "default": 0,
            },
        ],
        "output_data": [
            {"name": "count", "type": "file", "pattern": "count.txt", "media_type": "text/plain"}
        ],
    },
    "error_mapping": {"version": "1.0", "exit_codes": {"3": "bad-data"}},
}
BAD_DATA = {
    "name": "bad-data",
    "title": "Bad data",
    "description": "It cannot be read.",
    "category": "DATA",
}


def post(api: APIClient, body: Any) -> Any:
    return api.post("/job-types/", body, format="json")


def test_the_example_of_the_documentation_works(api: APIClient) -> None:
    refused = post(api, WORD_COUNT)
    assert refused.status_code == 400
    assert refused.json()["field"] == "error_mapping.exit_codes.3"
    assert "bad-data" in refused.json()["detail"]

    error = api.post("/errors/", BAD_DATA, format="json").json()
    answer = post(api, WORD_COUNT)
    assert answer.status_code == 201
    found = answer.json()
    assert answer["Location"] == f"http://testserver/job-types/{found['id']}/"
    assert api.get(answer["Location"]).json() == found
    assert found["errors"] == [error]
    assert found["trigger_rule"] is None
    assert found["max_scheduled"] is None
    assert found["revision_num"] == 1
    assert {name: found[name] for name in WORD_COUNT} == WORD_COUNT
    assert JobTypeRevision.objects.get(job_type=found["id"]).interface == WORD_COUNT["interface"]

    again = post(api, WORD_COUNT)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_numbers_may_come_as_text(api: APIClient) -> None:
    body = {"name": "a", "version": "1", "interface": {"command": "true"}, "priority": "1"}
    assert post(api, body).json()["priority"] == 1


def test_what_an_author_may_set_is_stored(api: APIClient) -> None:
    parts = {
        "description": "Two\nlines.",
        "author_name": "A. Author",
        "author_url": "https://example.org",
        "icon_code": "f013",
        "is_operational": False,
        "is_paused": True,
        "docker_image": "debian:12",
        "docker_privileged": True,
        "volumes": [{"container_path": "/in", "host_path": "/data", "mode": "RO"}],
        "environment": {"LANG": "C"},
        "max_scheduled": 5,
        "disk_out_mult_required": 1.5,
    }
    body = {"name": "a", "version": "1", "interface": {"command": "true"}, **parts}
    found = post(api, body).json()
    assert {name: found[name] for name in parts} == parts
    assert found["uses_docker"] is True
    assert found["paused"] is not None


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"name": "a\tb"}, "name"),
        ({"version": 1}, "version"),
        ({"interface": None}, "interface"),
        ({"interface": "true"}, "interface"),
        ({"interface": {}}, "interface"),
        ({"interface": {"command": "a", "version": "BAD"}}, "interface.version"),
        ({"interface": {"command": "a", "x": 1}}, "interface"),
        (
            {"interface": {"command": "a", "command_arguments": "${b}"}},
            "interface.command_arguments",
        ),
        ({"error_mapping": {"version": "BAD"}}, "error_mapping.version"),
        ({"error_mapping": {"exit_codes": {"1": "nobody"}}}, "error_mapping.exit_codes.1"),
        ({"error_mapping": {"exit_codes": {"0": "unknown"}}}, "error_mapping.exit_codes.0"),
        ({"priority": "BAD"}, "priority"),
        ({"timeout": 0}, "timeout"),
        ({"max_tries": 0}, "max_tries"),
        ({"max_tries": 2**31}, "max_tries"),
        ({"max_scheduled": 0}, "max_scheduled"),
        ({"cpus_required": 0}, "cpus_required"),
        ({"cpus_required": "NaN"}, "cpus_required"),
        ({"cpus_required": True}, "cpus_required"),
        ({"mem_required": 1e300}, "mem_required"),
        ({"mem_required": "1 GiB"}, "mem_required"),
        ({"disk_out_const_required": -1}, "disk_out_const_required"),
        ({"environment": None}, "environment"),
        ({"environment": {"A": 1}}, "environment.A"),
        ({"environment": {"SCALE_X": "1"}}, "environment"),
        ({"volumes": {"a": 1}}, "volumes"),
        ({"volumes": [{"container_path": "in", "host_path": "/a"}]}, "volumes[0].container_path"),
        ({"docker_image": ""}, "docker_image"),
        ({"is_paused": "perhaps"}, "is_paused"),
        ({"trigger_rule": {"type": "INGEST", "configuration": {}}}, "trigger_rule"),
        ({"trigger_rule": {"is_active": False}}, "trigger_rule"),
        ({"trigger_rule": []}, "trigger_rule"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(
    part: dict[str, Any], field: str, api: APIClient
) -> None:
    body = {"name": "a", "version": "1", "interface": {"command": "true"}, **part}
    answer = post(api, body)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert answer.json()["detail"]
    assert not JobType.objects.exists()


@pytest.mark.parametrize("missing", ["name", "version", "interface"])
def test_three_fields_are_required(missing: str, api: APIClient) -> None:
    body: dict[str, Any] = {"name": "a", "version": "1", "interface": {"command": "true"}}
    del body[missing]
    answer = post(api, body)
    assert (answer.status_code, answer.json()["field"]) == (400, missing)
    assert answer.json()["code"] == "required"


def test_an_empty_mapping_may_be_null(api: APIClient) -> None:
    body = {"name": "a", "version": "1", "interface": {"command": "a"}, "error_mapping": None}
    assert post(api, body).json()["error_mapping"] == {}


def test_a_type_can_be_paused_and_resumed(
    make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    url = f"/job-types/{make_job_type().pk}/"
    paused = api.patch(url, {"is_paused": True}, format="json")
    assert paused.status_code == 200
    assert paused.json()["is_paused"] is True
    assert paused.json()["paused"] is not None
    assert paused.json()["revision_num"] == 1
    resumed = api.patch(url, {"is_paused": False}, format="json").json()
    assert (resumed["is_paused"], resumed["paused"]) == (False, None)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "No fields specified for update."),
        ({"foo": 1, "revision_num": 7}, "No fields specified for update."),
        ({"is_paused": "x"}, "is_paused: Must be a valid boolean."),
    ],
)
def test_a_bad_change_changes_nothing(
    body: dict[str, Any], detail: str, make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    answer = api.patch(f"/job-types/{make_job_type().pk}/", body, format="json")
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)


def test_a_type_that_does_not_exist(api: APIClient, db: None) -> None:
    assert api.get("/job-types/999999/").status_code == 404
    assert api.get("/job-types/x/").json()["field"] == "id"
    answer = api.patch("/job-types/999999/", {"is_paused": True}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_list_restricts_and_orders(
    make_job_type: Callable[..., JobType], api: APIClient
) -> None:
    for name, version, category in (("b", "2", "x"), ("a", "1", "x"), ("b", "1", "y")):
        make_job_type(name=name, version=version, category=category)

    def found(query: str) -> list[str]:
        results = api.get(f"/job-types/?{query}").json()["results"]
        return [each["name"] + each["version"] for each in results]

    assert found("") == ["a1", "b1", "b2"]
    assert found("order=-name&order=-version") == ["b2", "b1", "a1"]
    assert found("name=b") == ["b1", "b2"]
    assert found("name=a&name=b") == ["a1", "b1", "b2"]
    assert found("category=y") == ["b1"]
    assert api.get("/job-types/?order=interface").json()["field"] == "order"
    assert api.get("/job-types/?is_active=true").json()["field"] == "is_active"


def test_every_offered_order_works(api: APIClient, db: None) -> None:
    for field in JOB_TYPE_ORDER:
        assert api.get(f"/job-types/?order={field}&order=-{field}").status_code == 200, field


def test_queries_do_not_grow_with_the_list(
    make_job_type: Callable[..., JobType],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    mapping = {"exit_codes": {"1": "unknown", "2": "timeout"}}
    made = [make_job_type(error_mapping=mapping) for _ in range(5)]
    with django_assert_num_queries(2) as queries:
        assert len(api.get("/job-types/").json()["results"]) == 5
    assert "interface" not in queries.captured_queries[1]["sql"]
    with django_assert_num_queries(3):
        assert len(api.get(f"/job-types/{made[0].pk}/").json()["errors"]) == 2
