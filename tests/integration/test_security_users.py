"""`scale user` gives roles, and shows secrets once."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from rest_framework.test import APIClient

from scale.api.permissions import make_roles
from scale.cli.commands import user as command


@pytest.fixture(autouse=True)
def settings_are_there(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "use_settings", lambda: None)


def run(name: str = "ci", role: str = "operator", **options: bool) -> None:
    given: dict[str, Any] = {"is_staff": False, "wants_token": False, "wants_password": False}
    command.run(name, role=role, **(given | options))


def test_a_user_is_made_with_a_role_and_a_token_that_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(wants_token=True)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "ci is operator"
    token = second.removeprefix("token: ")
    headers = {"Authorization": f"Token {token}"}
    assert APIClient().get("/jobs/", headers=headers).status_code == 200
    assert APIClient().post("/job-types/", {}, format="json", headers=headers).status_code == 403


def test_another_role_takes_the_place_of_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    run(role="admin", is_staff=True)
    run(role="viewer")
    user = User.objects.get()
    assert [group.name for group in user.groups.all()] == ["viewer"]
    assert user.is_staff
    assert not user.has_usable_password()
    assert not user.is_superuser
    assert "token" not in capsys.readouterr().out


def test_who_was_above_all_roles_is_not_any_more() -> None:
    user = User.objects.create_superuser("ci")
    user.user_permissions.add(Permission.objects.get(codename="delete_user"))
    run(role="admin")
    assert User.objects.get().is_superuser
    run(role="viewer")
    user = User.objects.get()
    assert not user.has_perm("job.add_job")
    assert not user.has_perm("auth.delete_user")


def test_roles_are_made_of_what_a_partial_migration_has_left() -> None:
    Permission.objects.filter(content_type__app_label="queue").delete()
    make_roles()
    run(role="viewer")
    user = User.objects.get()
    assert user.has_perm("job.view_job")
    assert not user.has_perm("queue.view_measuredday")


def test_a_password_is_made_and_lets_in(capsys: pytest.CaptureFixture[str]) -> None:
    run(is_staff=True, wants_password=True)
    password = capsys.readouterr().out.splitlines()[1].removeprefix("password: ")
    body = {"username": "ci", "password": password}
    assert Client().post("/admin/login/", body).status_code == 302


def test_a_role_that_is_none_makes_nobody() -> None:
    with pytest.raises(SystemExit, match="viewer, operator, admin"):
        run(role="king")
    assert not User.objects.exists()
