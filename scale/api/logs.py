"""Logs over REST.

The paths of one log are served by `scale.api.streams` when the web process is `scale.asgi`. The
views here answer bytes in the same way under any other server, and describe both in the schema.
"""

from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any, Final

from django.conf import settings
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path, re_path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import base, shapes
from scale.api.base import key_of, no_parameters
from scale.api.errors import NotFound
from scale.api.log_reader import NAMES, LogReader, View
from scale.api.log_reply import LogUnavailable, decide, wanted_by
from scale.api.parameters import Query
from scale.core.errors import ScaleError
from scale.job.logs import STREAMS, Agents, Logs, find_logs
from scale.job.models import JobExecution
from scale.mesos.files import AgentError, AgentFiles, AgentUnreachable, FileGone
from scale.scheduler.models import SchedulerState

_AGENT_TIMEOUT_S: Final = 2.0
_SHOWN_BYTES: Final = 1024 * 1024
_BODY_BYTES: Final = 256 * 1024
_TEXT: Final = {(200, "text/plain"): OpenApiTypes.BINARY, (206, "text/plain"): OpenApiTypes.BINARY}
_OFFSET: Final = OpenApiParameter("offset", OpenApiTypes.INT64, description="The first byte.")


@cache
def _files() -> AgentFiles:
    return AgentFiles(
        settings.SCALE_MESOS_PRINCIPAL or None,
        settings.SCALE_MESOS_SECRET or None,
        timeout_s=_AGENT_TIMEOUT_S,
    )


@cache
def log_reader() -> LogReader:
    """Return the reader that all of this process share; what it remembers may be forgotten."""
    return LogReader(Agents(_files().read, FileGone, AgentUnreachable, AgentError), _find)


def close_log_reader() -> None:
    """Close its connections; the next call of `log_reader` makes another."""
    _files().close()
    _files.cache_clear()
    log_reader.cache_clear()


def _find(execution_id: int) -> Logs:
    known = SchedulerState.objects.values_list("framework_id", flat=True).first()
    return find_logs(execution_id, framework_id=known or "")


def _view(text: str, name: str, *, ended: bool = False) -> View:
    pk = key_of(text, "job execution")
    try:
        return log_reader().view(pk, name, ended=ended)
    except JobExecution.DoesNotExist:
        raise NotFound("job execution", pk) from None


class ExecutionLogs(base.View):
    """Both logs of an execution as text, as seed 002 has it."""

    @extend_schema(
        operation_id="job_execution_logs",
        description="The fields of the list, `is_finished`, and the end of both logs: at most "
        "1 MiB of each, `…_truncated` when there is more, `…_size` in bytes. Bytes that are not "
        "UTF-8 are U+FFFD. `log_problem` says why bytes are missing: `lost`, `agent_unreachable` "
        "or `agent_error`; else it is null.",
        responses={200: OpenApiTypes.OBJECT},
    )
    def get(self, request: Request, pk: str) -> Response:
        """Answer with the execution and its logs; three or four queries."""
        no_parameters(request)
        key = key_of(pk, "job execution")
        row = JobExecution.objects.filter(pk=key).values_list(*shapes.EXECUTION_COLUMNS).first()
        if row is None:
            raise NotFound("job execution", key)
        body = {**shapes.execution(row), "is_finished": False, "log_problem": None}
        for name in STREAMS:
            log = _view(pk, name, ended=body["ended"] is not None)
            shown, problem = _end_of(log)
            body[name] = shown.decode(errors="replace")
            body[f"{name}_size"] = log.size
            body[f"{name}_truncated"] = len(shown) < log.size
            body["is_finished"] = log.is_finished
            body["log_problem"] = body["log_problem"] or problem
        return Response(body)


def _end_of(log: View) -> tuple[bytes, str | None]:
    """Return the end of a log, or nothing if it cannot be had now, and what is wrong."""
    start = max(0, log.size - _SHOWN_BYTES)
    try:
        return log_reader().read(log, start, _SHOWN_BYTES), log.problem or None
    except ScaleError as error:
        return b"", log.problem or error.code


class LogBytes(base.View):
    """One log of an execution as it is, byte for byte."""

    @extend_schema(
        operation_id="job_execution_log",
        description="The bytes of a log, those of all phases in their order, finished or live. "
        "An offset means the same byte for ever: ask on with `Range: bytes=N-` (or `offset`); "
        "416 says that nothing new is there, 304 after `If-None-Match` that nothing changed. "
        "`X-Log-Complete: true` when nothing more will come; `X-Log-Problem` as in "
        "`/job-executions/{id}/logs/`. In `combined` each phase's stderr follows its stdout, "
        "under headings, and shows when the phase has ended: which of their lines came first is "
        "not known.",
        parameters=[
            OpenApiParameter("stream", str, OpenApiParameter.PATH, enum=NAMES),
            _OFFSET,
            OpenApiParameter("length", OpenApiTypes.INT64, description="How many bytes."),
        ],
        responses={
            **_TEXT,
            304: OpenApiResponse(description="Not modified."),
            410: OpenApiResponse(OpenApiTypes.OBJECT, description="These bytes are lost."),
            416: OpenApiResponse(OpenApiTypes.OBJECT, description="Nothing there yet."),
            503: OpenApiResponse(OpenApiTypes.OBJECT, description="The agent is silent."),
        },
    )
    def get(self, request: Request, pk: str, stream: str) -> HttpResponseBase:
        """Answer with a log or a part of it."""
        wanted = wanted_by(request.method or "", request.headers.get, Query(request))
        log = _view(pk, stream)
        reply = decide(log, wanted)
        if reply.body is None:
            content = _content(log, reply.start, reply.stop)
            try:
                first = next(content, b"")
            except ScaleError as error:
                raise LogUnavailable(error) from error
            return StreamingHttpResponse(
                chain([first], content), status=reply.status, headers=reply.headers
            )
        return HttpResponse(reply.body, status=reply.status, headers=reply.headers)


def _content(log: View, start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        data = log_reader().read(log, start, min(_BODY_BYTES, stop - start))
        yield data
        start += len(data)


class NeedsAsgi(APIException):
    """Only the ASGI application can keep a response open."""

    status_code = 501
    default_code = "not_implemented"
    default_detail = "Streams are served by scale.asgi, and this server is another one."


class LogStream(base.View):
    """One log of an execution as server-sent events."""

    @extend_schema(
        operation_id="job_execution_log_stream",
        description="Server-sent events. `data` is a JSON string with text, `id` the offset of "
        "the byte after it; `Last-Event-ID` resumes there. `event: problem` says why bytes are "
        "missing, with an empty reason that they came back; `event: end` that nothing more will "
        "come: close the connection then.",
        parameters=[OpenApiParameter("stream", str, enum=NAMES, default="stdout"), _OFFSET],
        responses={(200, "text/event-stream"): OpenApiTypes.STR},
    )
    def get(self, request: Request, pk: str) -> Response:
        """Say that this is the wrong server."""
        raise NeedsAsgi


urlpatterns: Final[list[Any]] = [
    path("job-executions/<str:pk>/logs/", ExecutionLogs.as_view()),
    path("job-executions/<str:pk>/logs/stream/", LogStream.as_view()),
    re_path(
        r"^job-executions/(?P<pk>[^/]+)/logs/(?P<stream>stdout|stderr|combined)/$",
        LogBytes.as_view(),
    ),
]
