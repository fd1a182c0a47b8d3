"""/healthz and /readyz: open to all, and quick to answer whatever is broken."""

from datetime import datetime
from typing import Final

import psycopg2
from django.conf import settings
from django.db import connection
from django.urls import path
from django.utils import timezone
from kombu import Connection
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers
from scale.api.base import View, no_parameters
from scale.api.permissions import ANYBODY
from scale.api.schema import operation
from scale.scheduler.models import SchedulerState
from scale.scheduler.selectors import what_is_wrong

_PATIENCE_S: Final = 2
_OK: Final = "ok"
_ABSENT: Final = "not configured"


class Open(View):
    authentication_classes = []
    needs = {"GET": ANYBODY}


class Health(Open):
    """Whether the process answers; asks nobody else."""

    @operation(
        "read_health",
        "Is this process alive?",
        answers.HealthAnswer,
        problems=(),
        tag="health",
        open_to_all=True,
    )
    def get(self, request: Request) -> Response:
        no_parameters(request)
        return Response({"status": _OK})


class Ready(Open):
    """Whether the parts that work is done with are there."""

    @operation(
        "read_readiness",
        "Can work be done?",
        {200: answers.ReadyAnswer, 503: answers.ReadyAnswer},
        problems=(),
        tag="health",
        open_to_all=True,
    )
    def get(self, request: Request) -> Response:
        no_parameters(request)
        database, scheduler = _ask_database(timezone.now())
        parts = {"database": database, "broker": _ask_broker(_PATIENCE_S), "scheduler": scheduler}
        ready = all(text in {_OK, _ABSENT} for text in parts.values())
        answer = Response(parts, status=200 if ready else 503)
        # Django would log each 503 as an error; whoever asks knows how to wait.
        answer._has_been_logged = True  # type: ignore[attr-defined]  # as log_response does
        return answer


def _ask_database(now: datetime) -> tuple[str, str]:
    """Return how the database is, and what it says of the scheduler.

    A session of its own: the shared one would wait for a server that does not answer for minutes.
    """
    parameters = connection.get_connection_params() | {
        "connect_timeout": _PATIENCE_S,
        "options": f"-c statement_timeout={_PATIENCE_S * 1000}",
    }
    parameters.pop("cursor_factory", None)
    try:
        session = psycopg2.connect(**parameters)
        try:
            with session.cursor() as cursor:
                cursor.execute(
                    "SELECT heartbeat, is_connected FROM scheduler_state WHERE id = %s",
                    [SchedulerState.ONLY],
                )
                row = cursor.fetchone()
        finally:
            session.close()
    except psycopg2.Error:
        return "not reachable", "unknown"
    if row is None:
        return _OK, "has never led"
    wrong = what_is_wrong(heartbeat=row[0], is_connected=row[1], now=now)
    return _OK, wrong or _OK


def _ask_broker(patience_s: float) -> str:
    if not settings.SCALE_BROKER_URL:
        return _ABSENT
    options = {"socket_connect_timeout": patience_s, "socket_timeout": patience_s}
    try:
        with Connection(
            settings.SCALE_BROKER_URL, connect_timeout=patience_s, transport_options=options
        ) as broker:
            broker.ensure_connection(
                max_retries=1,
                interval_start=0,
                timeout=patience_s,  # type: ignore[arg-type]  # a float will do
            )
    except Exception:  # noqa: BLE001 - each transport has errors of its own, and all mean no
        return "not reachable"
    return _OK


urlpatterns = [
    path("healthz", Health.as_view()),
    path("readyz", Ready.as_view()),
]
