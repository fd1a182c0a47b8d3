"""Whatever is asked for, no log line and no answer has a password, a token or a key in it."""

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from api_world import FOR_PEOPLE, FOR_TASKS, World, make_world
from django.test import Client, override_settings

from scale.job.models import JobExecution
from scale.job.tokens import issue
from scale.node.models import Node

PASSWORD = "correct-horse-battery-staple"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Record what all loggers say, at DEBUG, formatted as in production."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(
        logging.Formatter("%(message)s %(args)s %(request)s", defaults={"request": ""})
    )
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    levels = [(each, each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
        each.propagate = True
    logging.getLogger().addHandler(handler)
    yield text
    logging.getLogger().removeHandler(handler)
    for each, level, propagate in levels:
        each.setLevel(level)
        each.propagate = propagate


@pytest.fixture
def world(
    make_execution: Callable[..., JobExecution],
    make_node: Callable[..., Node],
    make_user: Callable[..., Any],
) -> World:
    return make_world(make_execution, make_node, make_user)


def test_nothing_that_is_secret_is_logged_or_answered(
    world: World, log: io.StringIO, make_user: Callable[..., Any], settings: Any
) -> None:
    task = issue(world.running.uuid, world.running.task_id)
    boss = world.tokens["boss"]
    said: list[bytes] = []

    def keep(answer: Any) -> None:
        said.append(b"".join(answer) + str(answer.headers).encode())

    client = Client(raise_request_exception=False)
    for method, path in FOR_PEOPLE:
        for who in ("boss", "nobody"):
            keep(world.call(who, method, path))
        # Wrong in every way at once, with a secret wherever there is room for it.
        address = path.replace("{id}", "1").replace("{stream}", "stdout").replace("{name}", "x")
        keep(
            client.generic(
                method.upper(),
                f"{address}?page_size=x",
                b'{"password": ',
                content_type="application/json",
                headers={"Authorization": f"Token {boss}", "Idempotency-Key": "\x7f" + boss[:9]},
            )
        )
    for method, path in FOR_TASKS:
        address = path.replace("{uuid}", str(world.running.uuid)).replace("{file_id}", "1")
        for header in (f"Bearer {task}", f"Bearer {task}x", f"Basic {task}"):
            keep(client.generic(method.upper(), address, b"{", headers={"Authorization": header}))
    user = make_user(is_staff=True)
    user.set_password(PASSWORD)
    user.save()
    for password in (PASSWORD, PASSWORD + "x"):
        body = {"username": user.username, "password": password}
        keep(client.post("/admin/login/", body))
    with override_settings(SCALE_MESOS_SECRET="the-secret-of-mesos"):
        keep(client.get("/readyz"))
    everything = log.getvalue() + b"\n".join(said).decode(errors="replace")
    assert "/readyz" in everything, "nothing was recorded"
    secrets = [*world.tokens.values(), task, PASSWORD, settings.SECRET_KEY, "the-secret-of-mesos"]
    assert [secret for secret in secrets if secret in everything] == []


def test_what_is_served_of_users_is_never_a_page_of_ours(world: World) -> None:
    for path in ("/files/{id}/content/", "/job-executions/{id}/logs/{stream}/"):
        answer = world.call("viewer", "get", path)
        if answer.status_code == 200:
            assert answer["X-Content-Type-Options"] == "nosniff"
            assert "sandbox" in answer["Content-Security-Policy"]
    assert world.call("viewer", "get", "/files/{id}/content/")["Content-Disposition"].startswith(
        "attachment"
    )
