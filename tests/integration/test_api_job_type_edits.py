"""PATCH /job-types/{id}/ and /job-types/validation/: what may change, and what is advised."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import Job, JobExecution, JobType, JobTypeRevision
from scale.job.orders import recipe_of
from scale.node.models import Node

OTHER = {"version": "1.0", "command": "echo"}
EVERYTHING: dict[str, Any] = {
    "title": "T",
    "description": "Two\nlines.",
    "category": "c",
    "author_name": "A",
    "author_url": "https://example.org",
    "icon_code": "f013",
    "is_operational": False,
    "docker_image": "debian:12",
    "docker_privileged": True,
    "volumes": [{"container_path": "/in", "host_path": "/data", "mode": "RO"}],
    "environment": {"LANG": "C"},
    "interface": OTHER,
    "error_mapping": {"version": "1.0", "exit_codes": {"3": "unknown"}},
    "priority": 7,
    "max_scheduled": 5,
    "timeout": 60,
    "max_tries": 9,
    "cpus_required": 2.5,
    "mem_required": 100.0,
    "disk_out_const_required": 1.0,
    "disk_out_mult_required": 1.5,
}


def change(api: APIClient, job_type: JobType, body: Any) -> Any:
    return api.patch(f"/job-types/{job_type.pk}/", body, format="json")


def body(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "version": "1", "interface": {"command": "true"}, **fields}


def advice(api: APIClient, **fields: Any) -> list[str]:
    answer = api.post("/job-types/validation/", body(**fields), format="json")
    assert answer.status_code == 200, answer.json()
    assert not JobType.objects.filter(name="a", version="1").exists() or fields.get("name")
    return [each["id"] for each in answer.json()["warnings"]]


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_every_field_can_be_changed_alone(
    name: str, api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    job_type = make_job_type()
    before = api.get(f"/job-types/{job_type.pk}/").json()
    answer = change(api, job_type, {name: EVERYTHING[name]})
    assert answer.status_code == 200
    after = api.get(f"/job-types/{job_type.pk}/").json()
    assert after == answer.json()
    assert after[name] == EVERYTHING[name] != before[name]
    follows = {"last_modified", name, "revision_num", "uses_docker", "errors"}
    assert {each for each in after if after[each] != before[each]} <= follows
    assert after["revision_num"] == (2 if name == "interface" else 1)
    assert after["uses_docker"] is (name == "docker_image")


def test_all_can_be_changed_at_once_and_an_image_taken_away(
    api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    job_type = make_job_type()
    found = change(api, job_type, EVERYTHING).json()
    assert {name: found[name] for name in EVERYTHING} == EVERYTHING
    assert [each["name"] for each in found["errors"]] == ["unknown"]
    found = change(api, job_type, {"docker_image": None, "error_mapping": None}).json()
    assert (found["uses_docker"], found["error_mapping"], found["errors"]) == (False, {}, [])


def test_another_interface_is_a_revision_and_the_same_is_not(
    api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    job_type = make_job_type()
    assert change(api, job_type, {"interface": OTHER}).json()["revision_num"] == 2
    assert change(api, job_type, {"interface": OTHER}).json()["revision_num"] == 2
    assert JobTypeRevision.objects.get(job_type=job_type, revision_num=2).interface == OTHER
    assert JobTypeRevision.objects.filter(job_type=job_type).count() == 2


def test_jobs_that_wait_keep_their_revision(
    api: APIClient, make_job_type: Callable[..., JobType], make_job: Callable[..., Job]
) -> None:
    job_type = make_job_type(interface={"command": "before"})
    before = make_job(job_type)
    change(api, job_type, {"interface": {"command": "after"}})
    after = make_job(JobType.objects.get(pk=job_type.pk))
    for job, command, number in [(before, "before", 1), (after, "after", 2)]:
        execution = JobExecution.objects.get(job=job)
        assert recipe_of(execution.job.job_type_rev).interface.command == command
        found = api.get(f"/jobs/{job.pk}/").json()["job_type_rev"]
        assert (found["revision_num"], found["interface"]["command"]) == (number, command)


def test_a_pause_and_a_retirement_are_stamped_once(
    api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    job_type = make_job_type()
    paused = change(api, job_type, {"is_paused": True}).json()["paused"]
    assert change(api, job_type, {"is_paused": True}).json()["paused"] == paused is not None
    found = change(api, job_type, {"is_active": False, "is_paused": False}).json()
    assert (found["paused"], found["archived"] is None) == (None, False)
    refused = api.post("/jobs/", {"job_type_id": job_type.pk}, format="json")
    assert refused.status_code == 409
    assert change(api, job_type, {"is_active": True}).json()["archived"] is None


def test_what_was_read_can_be_sent_back(
    api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    job_type = make_job_type()
    found = api.get(f"/job-types/{job_type.pk}/").json()
    ignored = {"name": "other", "version": "9", "is_system": True, "revision_num": 9, "foo": 1}
    again = change(api, job_type, {**found, **ignored, "title": "New"}).json()
    assert again == {**found, "title": "New", "last_modified": again["last_modified"]}


def test_fields_that_cannot_be_set_are_ignored_when_a_type_is_made(api: APIClient) -> None:
    ignored = {"is_system": True, "is_long_running": True, "revision_num": 5, "trigger_rule": None}
    answer = api.post("/job-types/", body(**ignored), format="json")
    assert answer.status_code == 201
    found = answer.json()
    assert (found["is_system"], found["is_long_running"], found["revision_num"]) == (
        False,
        False,
        1,
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"interface": {"command": "a", "version": "BAD"}}, "interface.version"),
        ({"interface": None}, "interface"),
        ({"error_mapping": {"version": "BAD"}}, "error_mapping.version"),
        ({"error_mapping": {"exit_codes": {"1": "nobody"}}}, "error_mapping.exit_codes.1"),
        ({"environment": {"SCALE_X": "1"}}, "environment"),
        ({"volumes": [1]}, "volumes[0]"),
        ({"timeout": 0}, "timeout"),
        ({"max_tries": 0}, "max_tries"),
        ({"cpus_required": 0}, "cpus_required"),
        ({"title": "x" * 51}, "title"),
        ({"is_active": None}, "is_active"),
        ({"trigger_rule": {"type": "PARSE"}}, "trigger_rule"),
        ([], "body"),
    ],
)
def test_a_bad_change_is_refused_by_its_field_and_changes_nothing(
    changes: Any, field: str, api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    job_type = make_job_type()
    before = api.get(f"/job-types/{job_type.pk}/").json()
    if isinstance(changes, dict):
        changes = {"priority": 3, **changes}
    answer = change(api, job_type, changes)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert api.get(f"/job-types/{job_type.pk}/").json() == before


@pytest.mark.parametrize("rule", [None, {}])
def test_no_trigger_rule_may_be_said(
    rule: Any, api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    answer = change(api, make_job_type(), {"trigger_rule": rule})
    assert (answer.status_code, answer.json()["trigger_rule"]) == (200, None)


def test_a_type_of_the_system_can_be_paused_only(
    api: APIClient, make_job_type: Callable[..., JobType]
) -> None:
    job_type = make_job_type()
    JobType.objects.filter(pk=job_type.pk).update(is_system=True)
    refused = change(api, job_type, {"title": "New", "is_paused": True})
    assert (refused.status_code, refused.json()["field"]) == (400, "title")
    assert change(api, job_type, {"is_paused": True}).json()["is_paused"] is True


def test_an_operator_holds_back_and_an_admin_says_what_runs(
    make_user: Callable[..., Any], make_job_type: Callable[..., JobType]
) -> None:
    operator, boss = APIClient(), APIClient()
    operator.force_authenticate(make_user(role="operator"))
    boss.force_authenticate(make_user(role="admin"))
    job_type = make_job_type()
    for changes in ({"is_paused": True}, {"priority": 1}, {"max_scheduled": 2}):
        assert change(operator, job_type, changes).status_code == 200
    for name, value in EVERYTHING.items():
        if name not in {"priority", "max_scheduled"}:
            assert change(operator, job_type, {name: value}).status_code == 403, name
    assert change(boss, job_type, EVERYTHING).status_code == 200


def test_recent_jobs_are_counted_by_status_and_category(
    api: APIClient,
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
) -> None:
    job_type, now = make_job_type(max_tries=1), timezone.now()
    for hours, state, error in [
        (1, State.FAILED, "node-lost"),
        (8, State.FAILED, "node-lost"),
        (8, State.FAILED, "timeout"),
        (13, State.RUNNING, ""),
        (23, State.COMPLETED, ""),
        (25, State.COMPLETED, ""),
    ]:
        make_execution(state, job_type=job_type, error=error, at=now - timedelta(hours=hours))
    make_execution(State.COMPLETED)
    found = api.get(f"/job-types/{job_type.pk}/").json()

    def counts(hours: int) -> dict[tuple[str, str | None], int]:
        rows = found[f"job_counts_{hours}h"]
        assert all(set(row) == {"status", "count", "most_recent", "category"} for row in rows)
        return {(row["status"], row["category"]): row["count"] for row in rows}

    assert counts(6) == {("FAILED", "SYSTEM"): 1}
    assert counts(12) == {("FAILED", "SYSTEM"): 2, ("FAILED", "ALGORITHM"): 1}
    assert counts(24) == {**counts(12), ("RUNNING", None): 1, ("COMPLETED", None): 1}


def test_a_plain_type_is_fine(api: APIClient, make_node: Callable[..., Node]) -> None:
    make_node()
    assert advice(api) == []


def test_what_no_node_can_hold_is_told(api: APIClient, make_node: Callable[..., Node]) -> None:
    assert advice(api) == ["no_nodes"]
    make_node(millicpus_total=2000, mem_mib_total=100, disk_mib_total=100)
    make_node(millicpus_total=64_000, is_active=False, archived=datetime(2020, 1, 1, tzinfo=UTC))
    make_node(millicpus_total=64_000, is_online=False)
    assert advice(api, cpus_required=2, mem_required=100) == []
    for fields in (
        {"cpus_required": 2.001},
        {"mem_required": 101},
        {"disk_out_const_required": 101},
    ):
        assert advice(api, **fields) == ["no_node_large_enough"]


def test_what_is_probably_not_meant_is_told(api: APIClient, make_node: Callable[..., Node]) -> None:
    make_node()
    inputs = [{"name": name, "type": "property"} for name in ("used", "unused", "read")]
    interface = {
        "command": "sh",
        "command_arguments": "-c 'echo $SCALE_INPUT_READ' - ${used}",
        "input_data": inputs,
        "output_data": [
            {"name": "one", "type": "file"},
            {"name": "two", "type": "file", "required": False},
            {"name": "three", "type": "file", "pattern": "*"},
        ],
    }
    assert advice(api, interface=interface) == ["unused_input", "output_without_pattern"]
    volumes = [{"container_path": "/in", "host_path": "/data", "mode": "RO"}]
    assert advice(api, volumes=volumes) == ["no_container"]
    assert advice(api, volumes=volumes, docker_image="debian:12") == []


def test_a_name_that_is_taken_is_told(
    api: APIClient, make_node: Callable[..., Node], make_job_type: Callable[..., JobType]
) -> None:
    make_node()
    job_type = make_job_type()
    assert advice(api, name=job_type.name, version=job_type.version) == ["name_taken"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"interface": {}}, "interface"),
        ({"error_mapping": {"exit_codes": {"1": "nobody"}}}, "error_mapping.exit_codes.1"),
        ({"name": None}, "name"),
        ({"priority": "BAD"}, "priority"),
        ({"trigger_rule": {"type": "PARSE", "configuration": {}}}, "trigger_rule"),
    ],
)
def test_what_could_not_be_made_is_refused_by_its_field(
    fields: dict[str, Any], field: str, api: APIClient
) -> None:
    answer = api.post("/job-types/validation/", body(**fields), format="json")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_checking_takes_a_fixed_number_of_queries(
    api: APIClient, django_assert_num_queries: Callable[..., Any]
) -> None:
    with django_assert_num_queries(2):
        advice_of = api.post("/job-types/validation/", body(), format="json")
    assert advice_of.status_code == 200
    mapping = {"exit_codes": {"1": "unknown", "2": "timeout"}}
    with django_assert_num_queries(3):
        api.post("/job-types/validation/", body(error_mapping=mapping), format="json")
