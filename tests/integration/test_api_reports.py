"""Counts for dashboards, and what operators may change of errors and nodes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.error.models import Error
from scale.job.models import JobExecution, JobType
from scale.node.models import Node

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)


def counts(entries: list[dict[str, Any]]) -> dict[tuple[str, str | None], int]:
    return {(each["status"], each["category"]): each["count"] for each in entries}


def test_nodes_show_what_ran_there_lately_and_what_runs(
    make_node: Callable[..., Node],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    node, other = make_node(), make_node(is_online=False)
    make_node(is_active=False, archived=LONG_AGO)
    two_hours_ago = timezone.now() - timedelta(hours=2)
    make_execution(State.COMPLETED, node=node)
    make_execution(State.COMPLETED, node=node, at=two_hours_ago)
    make_execution(State.COMPLETED, node=node, at=LONG_AGO)
    make_execution(State.FAILED, node=node)
    make_execution(State.FAILED, node=node, error="node-lost")
    running = make_execution(State.RUNNING, node=node, at=LONG_AGO)
    with django_assert_num_queries(4):
        found = api.get("/nodes/status/").json()["results"]
    assert [each["node"]["id"] for each in found] == [node.pk, other.pk]
    first, second = found
    assert counts(first["job_exe_counts"]) == {
        ("COMPLETED", None): 2,
        ("FAILED", "ALGORITHM"): 1,
        ("FAILED", "SYSTEM"): 1,
    }
    assert [each["id"] for each in first["job_exes_running"]] == [running.pk]
    assert (first["is_online"], second["is_online"]) == (True, False)
    assert (second["job_exe_counts"], second["job_exes_running"]) == ([], [])

    recent = api.get("/nodes/status/?started=PT1H30M0S").json()["results"][0]
    assert counts(recent["job_exe_counts"])["COMPLETED", None] == 1
    before = api.get("/nodes/status/?ended=PT1H0M0S").json()["results"][0]
    assert counts(before["job_exe_counts"]) == {("COMPLETED", None): 1}
    assert api.get("/nodes/status/?page_size=1&page=2").json()["results"][0] == second


def test_job_types_count_what_runs_whenever_it_began(
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    busy, idle = make_job_type(), make_job_type()
    make_execution(State.RUNNING, job_type=busy, at=LONG_AGO)
    make_execution(State.RUNNING, job_type=busy)
    make_execution(State.COMPLETED, job_type=busy, at=LONG_AGO)
    make_execution(State.COMPLETED, job_type=busy)
    make_execution(State.FAILED, job_type=busy)
    with django_assert_num_queries(4):
        found = api.get("/job-types/status/").json()["results"]
    assert [each["job_type"]["id"] for each in found] == [busy.pk, idle.pk]
    assert counts(found[0]["job_counts"]) == {
        ("RUNNING", None): 2,
        ("COMPLETED", None): 1,
        ("FAILED", "ALGORITHM"): 1,
    }
    assert found[1]["job_counts"] == []
    longer = api.get("/job-types/status/?started=2019-01-01T00:00:00Z").json()["results"][0]
    assert counts(longer["job_counts"])["COMPLETED", None] == 2
    period = "started=2019-01-01T00:00:00Z&ended=2021-01-01T00:00:00Z"
    then = api.get(f"/job-types/status/?{period}").json()["results"][0]
    assert counts(then["job_counts"]) == {("RUNNING", None): 2, ("COMPLETED", None): 1}


def test_running_job_types_come_with_the_oldest_first(
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    younger, older = make_job_type(), make_job_type()
    make_execution(State.RUNNING, job_type=younger)
    make_execution(State.RUNNING, job_type=older)
    make_execution(State.STARTING, job_type=older, at=LONG_AGO)
    make_execution(State.QUEUED, job_type=younger, at=LONG_AGO)
    with django_assert_num_queries(2):
        found = api.get("/job-types/running/").json()
    assert found["count"] == 2
    assert [(each["job_type"]["id"], each["count"]) for each in found["results"]] == [
        (older.pk, 2),
        (younger.pk, 1),
    ]
    assert found["results"][0]["longest_running"] == "2020-01-01T12:00:00.000Z"
    second = api.get("/job-types/running/?page_size=1&page=2").json()
    assert second["results"] == found["results"][1:]
    assert (second["next"], second["previous"] is None) == (None, False)


def test_system_failures_are_counted_by_job_type_and_error(
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    one, two = make_job_type(max_tries=1), make_job_type(max_tries=1)
    make_execution(State.FAILED, job_type=one, error="node-lost", at=LONG_AGO)
    make_execution(State.FAILED, job_type=one, error="node-lost")
    make_execution(State.FAILED, job_type=two, error="unknown", at=LONG_AGO)
    make_execution(State.FAILED, job_type=two)
    with django_assert_num_queries(3):
        found = api.get("/job-types/system-failures/").json()["results"]
    assert [(each["job_type"]["id"], each["error"]["name"], each["count"]) for each in found] == [
        (one.pk, "node-lost", 2),
        (two.pk, "unknown", 1),
    ]
    assert found[0]["first_error"] == "2020-01-01T12:00:00.000Z"
    assert found[0]["last_error"] > found[0]["first_error"]


@pytest.mark.parametrize(
    "path",
    ["nodes/status", "job-types/status", "job-types/running", "job-types/system-failures"],
)
def test_reports_of_nothing_are_empty_and_check_their_parameters(
    path: str, api: APIClient, db: None
) -> None:
    assert api.get(f"/{path}/").json() == {
        "count": 0,
        "next": None,
        "previous": None,
        "results": [],
    }
    assert api.get(f"/{path}/?foo=1").json()["field"] == "foo"
    assert api.get(f"/{path}/?page=0").json()["field"] == "page"
    if path.endswith("/status"):
        assert api.get(f"/{path}/?started=yesterday").json()["field"] == "started"
        assert api.get(f"/{path}/?ended=PT4H0M0S").json()["field"] == "started"


@pytest.fixture
def error(db: None) -> Error:
    return Error.objects.create(name="bad", title="T", description="D", category="DATA")


def test_an_error_is_changed_and_stays_so(error: Error, api: APIClient) -> None:
    url = f"/errors/{error.pk}/"
    body = {"title": "New", "description": "", "category": "ALGORITHM", "should_be_retried": True}
    answer = api.patch(url, body, format="json")
    assert answer.status_code == 200
    assert api.get(url).json() == answer.json()
    error.refresh_from_db()
    assert (error.title, error.description) == ("New", "D")
    assert (error.category, error.should_be_retried) == ("ALGORITHM", True)
    assert api.patch(url, {}, format="json").json()["title"] == "New"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"category": "SYSTEM"}, "category"),
        ({"category": "BAD"}, "category"),
        ({"title": "x" * 51}, "title"),
        ({"name": "other"}, "name"),
        ({"is_builtin": True}, "is_builtin"),
    ],
)
def test_a_bad_change_of_an_error_changes_nothing(
    body: dict[str, Any], field: str, error: Error, api: APIClient
) -> None:
    answer = api.patch(f"/errors/{error.pk}/", {"title": "New", **body}, format="json")
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    error.refresh_from_db()
    assert error.title == "T"


def test_the_systems_errors_are_not_changed(api: APIClient, db: None) -> None:
    system = Error.objects.get(name="node-lost")
    answer = api.patch(f"/errors/{system.pk}/", {"title": "New"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert api.patch("/errors/999999/", {"title": "New"}, format="json").status_code == 404
    system.refresh_from_db()
    assert system.title != "New"


def whole(node: Node, **change: Any) -> dict[str, Any]:
    body = {"hostname": node.hostname, "port": node.port, "is_paused": True, "is_active": True}
    return {**body, **change}


def test_a_node_is_replaced(make_node: Callable[..., Node], api: APIClient) -> None:
    node = make_node()
    url = f"/nodes/{node.pk}/"
    answer = api.put(url, whole(node, pause_reason="why"), format="json")
    assert answer.status_code == 201
    assert answer["Location"] == f"http://testserver{url}"
    node.refresh_from_db()
    assert (node.is_paused, node.pause_reason) == (True, "why")
    api.put(url, whole(node, is_paused=False, is_active=False), format="json")
    node.refresh_from_db()
    assert (node.is_paused, node.pause_reason, node.is_active) == (False, None, False)
    assert node.archived is not None


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"is_paused": True}, "Missing required fields: hostname, port, is_active"),
        ({}, "Missing required fields: hostname, port, is_paused, is_active"),
        ({"foo": 1}, "Unexpected fields: foo"),
        ([], "body: must be a JSON object"),
    ],
)
def test_a_node_is_replaced_whole_or_not(
    body: Any, detail: str, make_node: Callable[..., Node], api: APIClient
) -> None:
    answer = api.put(f"/nodes/{make_node().pk}/", body, format="json")
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)


@pytest.mark.parametrize("change", [{"hostname": "other"}, {"port": 1}])
def test_what_the_cluster_says_of_a_node_stays(
    change: dict[str, Any], make_node: Callable[..., Node], api: APIClient
) -> None:
    node = make_node()
    answer = api.put(f"/nodes/{node.pk}/", whole(node, **change), format="json")
    assert (answer.status_code, [answer.json()["field"]]) == (400, list(change))
    assert api.put("/nodes/999999/", whole(node), format="json").status_code == 404
    node.refresh_from_db()
    assert not node.is_paused
