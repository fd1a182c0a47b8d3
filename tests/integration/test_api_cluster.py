"""/nodes/, /errors/, /queue/status/, /scheduler/ and /version/."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from rest_framework.test import APIClient

import scale
from scale.core.errors import InvalidInput
from scale.core.lifecycle import State
from scale.error.models import Error
from scale.error.selectors import ERROR_ORDER
from scale.error.services import create_error
from scale.job.models import JobExecution, JobType
from scale.node.models import Node
from scale.node.selectors import NODE_ORDER
from scale.scheduler.models import SchedulerState
from scale.wake import WORK_CHANNEL

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)
NODE_FIELDS = {
    "id",
    "hostname",
    "port",
    "slave_id",
    "pause_reason",
    "is_paused",
    "is_paused_errors",
    "is_active",
    "archived",
    "created",
    "last_offer",
    "last_modified",
}
ERROR_FIELDS = {
    "id",
    "name",
    "title",
    "description",
    "category",
    "is_builtin",
    "should_be_retried",
    "created",
    "last_modified",
}


def test_nodes_are_listed_without_the_retired(
    make_node: Callable[..., Node], api: APIClient
) -> None:
    kept = make_node()
    retired = make_node(is_active=False, archived=LONG_AGO)
    (found,) = api.get("/nodes/").json()["results"]
    assert found["id"] == kept.pk
    assert set(found) >= NODE_FIELDS
    everyone = api.get("/nodes/?include_inactive=true&order=-id").json()["results"]
    assert [each["id"] for each in everyone] == [retired.pk, kept.pk]
    assert everyone[0]["archived"] == "2020-01-01T12:00:00.000Z"


def test_a_node_shows_what_runs_there_and_what_that_takes(
    make_node: Callable[..., Node],
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
) -> None:
    node = make_node(millicpus_total=2500)
    job_type = make_job_type(cpus_required=0.5, mem_required=100, disk_out_const_required=10)
    running = make_execution(State.RUNNING, node=node, job_type=job_type)
    make_execution(State.COMPLETED, node=node, job_type=job_type)
    found = api.get(f"/nodes/{node.pk}/").json()
    (execution,) = found["job_exes_running"]
    assert execution["id"] == running.pk
    assert execution["node"] == {"id": node.pk}
    assert execution["cpus_scheduled"] == 0.5
    assert execution["job"]["job_type"]["name"] == job_type.name
    total, taken = (
        {"cpus": 2.5, "mem": 16000.0, "disk": 100_000.0},
        {"cpus": 0.5, "mem": 100.0, "disk": 10.0},
    )
    assert found["resources"] == {"total": total, "scheduled": taken, "used": taken, **total}


def test_a_node_that_is_not_online_is_disconnected(
    make_node: Callable[..., Node], api: APIClient
) -> None:
    found = api.get(f"/nodes/{make_node(is_online=False).pk}/").json()
    assert found["disconnected"] is True
    assert "resources" not in found


def test_a_node_that_has_not_told_its_size(make_node: Callable[..., Node], api: APIClient) -> None:
    found = api.get(f"/nodes/{make_node(mem_mib_total=None).pk}/").json()
    assert (found["resources"]["total"], found["resources"]["cpus"]) == (None, None)
    rounded = api.get(f"/nodes/{make_node(millicpus_total=2250).pk}/").json()
    assert rounded["resources"]["cpus"] == rounded["resources"]["total"]["cpus"] == 2.2


def test_a_node_is_paused_with_a_reason_and_resumed(
    make_node: Callable[..., Node], api: APIClient
) -> None:
    node = make_node(is_paused_errors=True)
    url = f"/nodes/{node.pk}/"
    answer = api.patch(url, {"is_paused": True, "pause_reason": "a new disk"}, format="json")
    assert answer.status_code == 201
    assert answer["Location"] == f"http://testserver{url}"
    paused = answer.json()
    assert set(paused) >= NODE_FIELDS
    assert (paused["is_paused"], paused["pause_reason"]) == (True, "a new disk")
    assert (paused["is_active"], paused["archived"]) == (True, None)
    assert paused["is_paused_errors"] is False

    body = {"is_paused": False, "pause_reason": "none"}
    resumed = api.patch(url, body, format="json").json()
    assert (resumed["is_paused"], resumed["pause_reason"]) == (False, None)


def test_a_node_is_retired_and_brought_back(make_node: Callable[..., Node], api: APIClient) -> None:
    url = f"/nodes/{make_node().pk}/"
    assert api.patch(url, {"is_active": False}, format="json").json()["archived"] is not None
    found = api.patch(url, {"is_active": True}, format="json").json()
    assert (found["is_active"], found["archived"]) == (True, None)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "No fields specified for update."),
        ({"foo": 1}, "Unexpected fields: foo"),
        ({"is_paused": True, "b": 1, "a": 2}, "Unexpected fields: a, b"),
        ({"pause_reason": "why"}, "pause_reason: is only for a node that is paused"),
        ({"is_paused": None}, "is_paused: This field may not be null."),
        ({"is_paused": []}, "is_paused: Must be a valid boolean."),
        (
            {"is_paused": True, "pause_reason": "x" * 251},
            "pause_reason: Ensure this field has no more than 250 characters.",
        ),
    ],
)
def test_a_bad_change_of_a_node_changes_nothing(
    body: dict[str, Any], detail: str, make_node: Callable[..., Node], api: APIClient
) -> None:
    node = make_node()
    answer = api.patch(f"/nodes/{node.pk}/", body, format="json")
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)
    node.refresh_from_db()
    assert node.is_paused is False


@pytest.mark.parametrize("resource", ["nodes", "errors", "job-types", "jobs", "files"])
def test_what_does_not_exist_is_404_and_what_is_no_number_400(
    resource: str, api: APIClient, db: None
) -> None:
    unknown = api.get(f"/{resource}/999999/")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    wrong = api.get(f"/{resource}/x/")
    assert (wrong.status_code, wrong.json()["field"]) == (400, "id")


def test_changing_a_node_that_does_not_exist(api: APIClient, db: None) -> None:
    answer = api.patch("/nodes/999999/", {"is_paused": True}, format="json")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("path", "fields"), [("/nodes/", sorted(NODE_ORDER)), ("/errors/", sorted(ERROR_ORDER))]
)
def test_every_offered_order_works(path: str, fields: list[str], api: APIClient, db: None) -> None:
    for field in fields:
        assert api.get(f"{path}?order=-{field}").status_code == 200
    assert api.get(f"{path}?order=nothing").json()["field"] == "order"
    assert api.get(f"{path}?started=1970-01-01T00:00:00").json()["field"] == "started"


def test_the_built_in_errors_are_listed(api: APIClient, db: None) -> None:
    answer = api.get("/errors/?page_size=1000").json()
    assert answer["count"] == len(answer["results"]) == Error.objects.count()
    names = {each["name"] for each in answer["results"]}
    assert {"unknown", "timeout", "algorithm-unknown", "memory-limit"} <= names
    assert all(set(each) == ERROR_FIELDS for each in answer["results"])


def test_an_error_is_created_once(api: APIClient, db: None) -> None:
    body = {"name": "bad", "title": "T", "description": "D", "category": "ALGORITHM"}
    answer = api.post("/errors/", body, format="json")
    assert answer.status_code == 201
    found = answer.json()
    assert answer["Location"] == f"http://testserver/errors/{found['id']}/"
    assert api.get(answer["Location"]).json() == found
    assert found | body == found
    assert (found["is_builtin"], found["should_be_retried"]) == (False, False)
    again = api.post("/errors/", body, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ...}, "name"),
        ({"title": ...}, "title"),
        ({"description": ...}, "description"),
        ({"category": ...}, "category"),
        ({"category": "SYSTEM"}, "category"),
        ({"category": "BAD"}, "category"),
        ({"name": "has space"}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"title": "x" * 51}, "title"),
        ({"description": "x" * 251}, "description"),
        ({"should_be_retried": "perhaps"}, "should_be_retried"),
        ({"is_builtin": True}, "is_builtin"),
    ],
)
def test_a_bad_error_is_refused_by_its_field(
    change: dict[str, Any], field: str, api: APIClient, db: None
) -> None:
    body = {"name": "bad", "title": "T", "description": "D", "category": "DATA", **change}
    body = {name: value for name, value in body.items() if value is not ...}
    answer = api.post("/errors/", body, format="json")
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert not Error.objects.filter(is_builtin=False).exists()


def test_errors_of_our_own_are_not_for_others_to_make(db: None) -> None:
    with pytest.raises(InvalidInput, match="category"):
        create_error(name="mine", title="T", description="D", category="SYSTEM")


def test_the_queue_is_shown_by_job_type(
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    later, sooner, paused = (make_job_type(priority=priority) for priority in (9, 5, 1))
    JobType.objects.filter(pk=paused.pk).update(is_paused=True)
    make_execution(State.QUEUED, job_type=paused)
    make_execution(State.QUEUED, job_type=later)
    make_execution(State.QUEUED, job_type=sooner)
    make_execution(State.QUEUED, job_type=sooner, at=LONG_AGO)
    make_execution(State.RUNNING, job_type=sooner)
    with django_assert_num_queries(4):
        found = api.get("/queue/status/").json()["queue_status"]
    assert [each["job_type_name"] for each in found] == [sooner.name, later.name, paused.name]
    assert found[0] == {
        "count": 2,
        "longest_queued": "2020-01-01T12:00:00.000Z",
        "job_type_id": sooner.pk,
        "job_type_name": sooner.name,
        "job_type_version": "1.0",
        "highest_priority": 5,
        "is_job_type_paused": False,
        "waiting_reason": {
            "code": "NO_SCHEDULER",
            "message": "no scheduler has been at work yet; nothing is launched",
            "since": "2020-01-01T12:00:00.000Z",
        },
    }
    assert found[2]["is_job_type_paused"] is True


def test_every_pause_and_its_end_wake_the_scheduler(
    api: APIClient,
    make_node: Callable[..., Node],
    make_job_type: Callable[..., JobType],
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    paths = [
        f"/nodes/{make_node().pk}/",
        f"/job-types/{make_job_type().pk}/",
        "/scheduler/",
    ]
    for path in paths:
        for paused in (True, False):
            with django_assert_max_num_queries(20) as queries:
                api.patch(path, {"is_paused": paused}, format="json")
            assert any(WORK_CHANNEL in query["sql"] for query in queries.captured_queries), path


def test_the_scheduler_is_paused_and_resumed(api: APIClient, db: None) -> None:
    assert api.get("/scheduler/").json() == {"is_paused": False}
    answer = api.patch("/scheduler/", {"is_paused": True}, format="json")
    assert (answer.status_code, answer.json()) == (201, {"is_paused": True})
    assert answer["Location"] == "http://testserver/scheduler/"
    assert api.get("/scheduler/").json() == {"is_paused": True}
    api.patch("/scheduler/", {"is_paused": False}, format="json")
    assert SchedulerState.objects.get().is_paused is False


def test_a_bad_change_of_the_scheduler(api: APIClient, db: None) -> None:
    empty = api.patch("/scheduler/", {}, format="json")
    assert (empty.status_code, empty.json()["detail"]) == (400, "No fields specified for update.")
    unknown = api.patch("/scheduler/", {"foo": 1}, format="json")
    assert (unknown.status_code, unknown.json()["detail"]) == (400, "Unexpected fields: foo")


def test_a_scheduler_without_a_row_is_not_found(api: APIClient, db: None) -> None:
    SchedulerState.objects.all().delete()
    assert api.get("/scheduler/").status_code == 404
    assert api.patch("/scheduler/", {"is_paused": True}, format="json").status_code == 404


def test_the_version_is_that_of_the_package(api: APIClient, db: None) -> None:
    assert api.get("/version/").json() == {"version": scale.__version__}


def test_queries_do_not_grow_with_the_lists(
    make_node: Callable[..., Node],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    node = make_node()
    for _ in range(4):
        make_execution(State.RUNNING, node=node)
        make_node()
    with django_assert_num_queries(2):
        assert len(api.get("/nodes/").json()["results"]) == 5
    with django_assert_num_queries(3):
        assert len(api.get(f"/nodes/{node.pk}/").json()["job_exes_running"]) == 4
    with django_assert_num_queries(2):
        api.get("/errors/")
    for path in ("/errors/1/", "/scheduler/"):
        with django_assert_num_queries(1):
            api.get(path)
