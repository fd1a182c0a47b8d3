"""Every method of every address, tried by everybody: who may is what the schema says."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from api_world import (
    FOR_PEOPLE,
    FOR_TASKS,
    METHODS,
    OTHERS,
    World,
    described,
    make_world,
    rows,
    views,
)
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db import transaction
from django.test import Client, override_settings
from django.urls import get_resolver
from rest_framework.test import APIClient

from scale.api.log_access import answer_to
from scale.api.permissions import ANYBODY, LOGGED_IN, TASK, Role, make_roles, permissions_of
from scale.job.models import JobExecution
from scale.job.tokens import issue
from scale.node.models import Node

#: Who asks, and the role that they have; None for those without.
PEOPLE: Final = ("viewer", "operator", "admin", "boss", "staff", "nobody", "stranger", "public")


@pytest.fixture(scope="module")
def schema() -> Any:
    return described()


def test_every_view_is_tried_here_and_is_in_the_schema(schema: Any) -> None:
    described = {(method, path) for path, each in schema["paths"].items() for method in each}
    assert set(FOR_PEOPLE) == described
    there = {path for path, _ in views(get_resolver().url_patterns)}
    assert all(path in there for path in OTHERS)
    assert {path for path in there if path.startswith("/v3/")} <= {f"/v3{path}" for path in there}


def test_every_method_of_every_view_says_what_it_needs(db: None) -> None:
    permissions = Permission.objects.select_related("content_type")
    known = {f"{each.content_type.app_label}.{each.codename}" for each in permissions}
    for path, view in views(get_resolver().url_patterns):
        if path in OTHERS or view is None:
            continue
        needs: Mapping[str, str] = view.needs
        for method in METHODS:
            if hasattr(view, method):
                needed = needs[method.upper()]
                assert needed in known | {ANYBODY, LOGGED_IN, TASK}, (method, path)


@pytest.fixture
def world(
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Node],
    make_user: Callable[..., Any],
) -> World:
    return make_world(make_execution, make_node, make_user)


def may(operation: Mapping[str, Any], method: str) -> set[str]:
    """Return who may, as the schema says it."""
    roles = set(operation["x-roles"])
    if roles == {ANYBODY}:
        return set(PEOPLE)
    reading = method == "get" and ".view_" in operation.get("x-permission", ".view_")
    everybody = {"public"} if reading else set()
    if roles == {LOGGED_IN}:
        return everybody | set(PEOPLE) - {"stranger", "public"}
    return everybody | roles | {"boss"}


# What is sent is looked at, and nothing is stored.
CHECKS_ONLY: Final = {"/job-types/validation/"}


@pytest.mark.parametrize(("method", "path"), FOR_PEOPLE)
def test_who_may_is_who_the_schema_says(
    method: str, path: str, schema: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scale.api.health._ask_database", lambda _now: ("ok", "ok"))
    allowed = may(schema["paths"][path][method], method)
    before = rows()
    for who in PEOPLE:
        with transaction.atomic():
            answer = world.call(who, method, path)
            # 503 of a stream's agent, or 404 of bytes that are not there, come behind the door.
            assert (answer.status_code not in {401, 403}) == (who in allowed), who
            if who not in allowed:
                assert answer.status_code == (401 if who in {"stranger", "public"} else 403)
                assert answer.json()["code"] in {"not_authenticated", "permission_denied"}
                assert rows() == before
            elif method != "get":
                assert answer.status_code in {200, 201, 202}, answer.content
                assert (rows() == before) == (path in CHECKS_ONLY)
            transaction.set_rollback(True)


def test_roles_contain_each_other() -> None:
    viewer, operator, admin = map(permissions_of, Role)
    assert viewer < operator < admin


# The least that an operation takes, where it is neither viewers' to read nor operators' to do.
OTHERWISE: Final = {
    ("get", "/healthz"): ANYBODY,
    ("get", "/readyz"): ANYBODY,
    ("get", "/version/"): LOGGED_IN,
    ("post", "/job-types/validation/"): "viewer",
    ("post", "/job-types/"): "admin",
    ("post", "/errors/"): "admin",
    ("patch", "/errors/{id}/"): "admin",
    ("put", "/nodes/{id}/"): "admin",
}


@pytest.mark.parametrize(("method", "path"), FOR_PEOPLE)
def test_viewers_read_operators_act_and_admins_define(method: str, path: str, schema: Any) -> None:
    least = OTHERWISE.get((method, path), "viewer" if method == "get" else "operator")
    roles = list(Role)
    expected = [least] if least not in roles else roles[roles.index(Role(least)) :]
    assert schema["paths"][path][method]["x-roles"] == expected


def test_an_operator_may_pause_a_node_and_not_retire_it(world: World) -> None:
    url = f"/nodes/{world.running.node_id}/"

    def patch(who: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Token {world.tokens[who]}"}
        return Client().patch(url, body, content_type="application/json", headers=headers)

    assert patch("operator", {"is_paused": True}).status_code == 201
    refused = patch("operator", {"is_paused": False, "is_active": False})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert "is_active" in refused.json()["detail"]
    assert Node.objects.get(pk=world.key("/nodes/")).is_paused
    assert patch("admin", {"is_active": False}).status_code == 201


@pytest.mark.parametrize("who", PEOPLE)
def test_the_native_log_paths_have_the_same_door(who: str, world: World) -> None:
    token = world.tokens.get(who)
    headers = [(b"host", b"testserver")]
    if token:
        headers.append((b"authorization", f"Token {token}".encode()))
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/job-executions/1/logs/stream/",
        "query_string": b"",
        "headers": headers,
    }
    with override_settings(SCALE_ANONYMOUS_READ=who == "public"):
        status = answer_to(scope)[0]
    assert status == {"staff": 403, "nobody": 403, "stranger": 401}.get(who, 204)


@pytest.mark.parametrize(("method", "path"), FOR_TASKS)
def test_agents_calls_take_the_token_of_their_task_and_nothing_else(
    method: str, path: str, world: World
) -> None:
    execution = world.running
    address = path.replace("{uuid}", str(execution.uuid)).replace("{file_id}", "1")
    right = issue(execution.uuid, execution.task_id)
    wrong = [f"Token {token}" for token in world.tokens.values()]
    other = issue(world.queued.uuid, world.running.task_id)
    wrong += [f"Bearer {token}" for token in (*world.tokens.values(), other, right + "x")]
    before = rows()
    with override_settings(SCALE_ANONYMOUS_READ=True):
        for header in wrong:
            answer = getattr(Client(), method)(address, headers={"Authorization": header})
            assert answer.status_code == 401, header
    assert rows() == before


def test_roles_are_made_again_as_they_were_by_each_migrate(db: None) -> None:
    Group.objects.get(name="viewer").permissions.set(Permission.objects.all())
    Group.objects.filter(name="admin").delete()
    call_command("migrate", verbosity=0)
    for role in Role:
        found = Permission.objects.filter(group__name=role.value).select_related("content_type")
        names = {f"{each.content_type.app_label}.{each.codename}" for each in found}
        assert names == permissions_of(role)


def test_making_the_roles_when_they_are_there_is_cheap(
    db: None, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    with django_assert_max_num_queries(7):
        make_roles()


def test_an_admin_page_needs_staff_and_the_role(make_user: Callable[..., Any]) -> None:
    def status(**about: Any) -> int:
        client = Client()
        client.force_login(make_user(**about))
        return int(client.get("/admin/job/job/").status_code)

    assert status(role="viewer") == 302, "a role alone is for the interface"
    assert status(is_staff=True) == 403, "staff alone sees no rows"
    assert status(role="viewer", is_staff=True) == 200


def test_a_view_that_says_nothing_is_closed_to_all(
    make_user: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:

    from scale.api.cluster import Version

    monkeypatch.setattr(Version, "needs", {})
    client = APIClient()
    client.force_authenticate(make_user(is_superuser=True))
    assert client.get("/version/").status_code == 403
    with override_settings(SCALE_ANONYMOUS_READ=True):
        assert Client().get("/version/").status_code == 401
