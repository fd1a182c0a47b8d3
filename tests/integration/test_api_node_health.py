"""How a node is, in REST and in the admin: the worst that is true of it, and why."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from scale.error.models import Error
from scale.node.models import Node

LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)
HOW: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "ready": ({}, "READY", None),
    "paused": ({"is_paused": True, "pause_reason": "a new disk"}, "PAUSED", "a new disk"),
    "paused-silently": ({"is_paused": True}, "PAUSED", "it was paused without a reason"),
    "degraded": (
        {"is_paused_errors": True, "pause_reason": "5 jobs in a row failed"},
        "DEGRADED",
        "5 jobs in a row failed",
    ),
    "degraded-and-paused": (
        {"is_paused_errors": True, "is_paused": True},
        "DEGRADED",
        "too many jobs failed there",
    ),
    "offline": (
        {"is_online": False, "is_paused": True, "pause_reason": "a new disk"},
        "OFFLINE",
        "the cluster does not have it",
    ),
    "offline-and-degraded": (
        {"is_online": False, "is_paused_errors": True},
        "OFFLINE",
        "the cluster does not have it",
    ),
    "retired": ({"is_active": False, "archived": LONG_AGO}, "PAUSED", "it was retired"),
}


@pytest.fixture
def all_kinds(make_node: Callable[..., Node]) -> dict[str, Node]:
    return {name: make_node(hostname=name, **fields) for name, (fields, *_) in HOW.items()}


def how(shape: dict[str, Any]) -> tuple[str, str | None]:
    return shape["health"], shape["health_reason"]


def test_every_view_of_a_node_says_how_it_is(api: APIClient, all_kinds: dict[str, Node]) -> None:
    listed = {
        each["hostname"]: each
        for each in api.get("/nodes/?include_inactive=true").json()["results"]
    }
    assert {name: how(shape) for name, shape in listed.items()} == {
        name: expected for name, (_, *expected_) in HOW.items() if (expected := tuple(expected_))
    }
    for name, node in all_kinds.items():
        assert how(api.get(f"/nodes/{node.pk}/").json()) == how(listed[name])
    for each in api.get("/nodes/status/").json()["results"]:
        assert how(each["node"]) == how(listed[each["node"]["hostname"]])


@pytest.mark.parametrize("health", ["READY", "PAUSED", "DEGRADED", "OFFLINE"])
def test_the_list_is_restricted_by_it(
    health: str, api: APIClient, all_kinds: dict[str, Node]
) -> None:
    answer = api.get(f"/nodes/?include_inactive=true&health={health}").json()
    found = {each["hostname"] for each in answer["results"]}
    assert found == {name for name, (_, expected, _) in HOW.items() if expected == health}
    assert answer["count"] == len(found)


def test_several_may_be_asked_for_and_others_are_refused(
    api: APIClient, all_kinds: dict[str, Node]
) -> None:
    assert api.get("/nodes/?health=READY&health=DEGRADED").json()["count"] == 3
    refused = api.get("/nodes/?health=ready")
    assert (refused.status_code, refused.json()["field"]) == (400, "health")


def test_a_change_answers_with_it(api: APIClient, make_node: Callable[..., Node]) -> None:
    node = make_node()
    body = {"is_paused": True, "pause_reason": "why", "hostname": node.hostname, "port": node.port}
    changed = api.patch(f"/nodes/{node.pk}/", body, format="json")
    assert (changed.status_code, how(changed.json())) == (201, ("PAUSED", "why"))
    for name, value in (("hostname", "other"), ("port", 1)):
        refused = api.patch(f"/nodes/{node.pk}/", {name: value}, format="json")
        assert (refused.status_code, refused.json()["field"]) == (400, name)


def test_a_degraded_node_keeps_its_reason_when_it_is_retired(
    api: APIClient, all_kinds: dict[str, Node]
) -> None:
    node = all_kinds["degraded"]
    answer = api.patch(f"/nodes/{node.pk}/", {"is_active": False}, format="json")
    assert how(answer.json()) == ("DEGRADED", "5 jobs in a row failed")


def test_the_admin_shows_it_and_filters_by_it(client: Client, all_kinds: dict[str, Node]) -> None:
    client.force_login(User.objects.create_superuser("boss"))
    page = client.get("/admin/node/node/").content.decode()
    assert "5 jobs in a row failed" in page
    for health in Node.Health:
        response = client.get(f"/admin/node/node/?health={health}")
        shown = {node.hostname for node in response.context["cl"].result_list}
        assert shown == {name for name, (_, expected, _) in HOW.items() if expected == health}


def test_errors_are_restricted(
    api: APIClient, db: None, django_assert_num_queries: Callable[..., Any]
) -> None:
    Error.objects.create(name="mine", category="DATA")

    def names(query: str) -> set[str]:
        with django_assert_num_queries(2):
            results = api.get(f"/errors/?{query}").json()["results"]
        return {each["name"] for each in results}

    assert names("is_builtin=false") == {"mine"}
    assert names("is_builtin=t") == names("") - {"mine"}
    assert names("name=mine&name=unknown") == {"mine", "unknown"}
    algorithm = set(Error.objects.filter(category="ALGORITHM").values_list("name", flat=True))
    assert names("category=DATA&category=ALGORITHM") == algorithm | set(
        Error.objects.filter(category="DATA").values_list("name", flat=True)
    )
    for query, field in [("category=BAD", "category"), ("is_builtin=perhaps", "is_builtin")]:
        answer = api.get(f"/errors/?{query}")
        assert (answer.status_code, answer.json()["field"]) == (400, field)
