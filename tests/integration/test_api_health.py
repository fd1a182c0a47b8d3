"""/healthz and /readyz answer whatever is broken."""

import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.utils import timezone

from scale.api import health
from scale.scheduler.models import SchedulerState


def test_health_asks_nobody(django_db_blocker: object) -> None:
    # No database fixture here: a query would fail.
    answer = Client().get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def lead(**facts: object) -> None:
    SchedulerState.objects.filter(pk=SchedulerState.ONLY).update(**facts)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("silent_s", "is_connected", "status", "says"),
    [
        (None, True, 503, "has never led"),
        (1, True, 200, "ok"),
        (1, False, 503, "not connected to Mesos"),
        (60, True, 503, "silent for 60 s"),
    ],
)
def test_readiness_tells_how_the_scheduler_is(
    silent_s: int | None, is_connected: bool, status: int, says: str
) -> None:
    heartbeat = None if silent_s is None else timezone.now() - timedelta(seconds=silent_s)
    lead(heartbeat=heartbeat, is_connected=is_connected)
    answer = Client().get("/readyz")
    assert answer.status_code == status
    assert answer.json() == {"database": "ok", "broker": "not configured", "scheduler": says}


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_readiness_does_without_a_database(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
    monkeypatch.setitem(connection.settings_dict, "PORT", str(closed_port))
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "database": "not reachable",
        "broker": "not configured",
        "scheduler": "unknown",
    }


def test_a_broker_that_is_not_there_is_told(closed_port: int, db: None) -> None:
    with override_settings(SCALE_BROKER_URL=f"redis://127.0.0.1:{closed_port}/0"):
        answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["broker"]) == (503, "not reachable")


def test_a_broker_that_is_silent_is_not_waited_for(silent_port: int) -> None:
    with override_settings(SCALE_BROKER_URL=f"redis://127.0.0.1:{silent_port}/0"):
        before = timezone.now()
        assert health._ask_broker(0.2) == "not reachable"
        assert timezone.now() - before < timedelta(seconds=5)
