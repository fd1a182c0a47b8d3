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
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, base, shapes
from scale.api.base import key_of, no_parameters
from scale.api.errors import NotFound
from scale.api.log_reader import NAMES, LogReader, View
from scale.api.log_reply import LogUnavailable, decide, wanted_by
from scale.api.parameters import Query
from scale.api.renderers import BIGGEST_INTEGER
from scale.api.schema import CONDITIONS, ID, answer_header, operation
from scale.core.errors import ScaleError
from scale.job.logs import STREAMS, Agents, find_logs
from scale.job.models import JobExecution
from scale.mesos.files import AgentError, AgentFiles, AgentUnreachable, FileGone

_AGENT_TIMEOUT_S: Final = 2.0
_SHOWN_BYTES: Final = 1024 * 1024
_BODY_BYTES: Final = 256 * 1024
_OFFSET: Final = OpenApiParameter(
    "offset",
    {"type": "integer", "format": "int64", "minimum": 0, "maximum": BIGGEST_INTEGER},
    description="The first byte.",
)
_LOG_HEADERS: Final = [
    answer_header(
        "X-Log-Complete", "Whether nothing more will come.", ["true", "false"], (200, 206, 304, 416)
    ),
    answer_header("X-Log-Size", "How many bytes there are now.", (), (200, 206, 304, 416)),
    answer_header(
        "X-Log-Problem", "Why bytes are missing; else it is not there.", (), (200, 206, 304, 416)
    ),
]
_EVENTS: Final = OpenApiExample(
    "text", value='id: 6\ndata: "hello\\n"\n\n', status_codes=["200"], response_only=True
)


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
    return LogReader(Agents(_files().read, FileGone, AgentUnreachable, AgentError), find_logs)


def close_log_reader() -> None:
    """Close its connections; the next call of `log_reader` makes another."""
    _files().close()
    _files.cache_clear()
    log_reader.cache_clear()


def _view(text: str, name: str, *, ended: bool = False) -> View:
    pk = key_of(text, "job execution")
    try:
        return log_reader().view(pk, name, ended=ended)
    except JobExecution.DoesNotExist:
        raise NotFound("job execution", pk) from None


class ExecutionLogs(base.View):
    """Both logs of an execution as text.

    The fields of the list, `is_finished`, and the end of both logs: at most 1 MiB of each,
    `…_truncated` when there is more, `…_size` in bytes. Bytes that are not UTF-8 are U+FFFD.
    `log_problem` says why bytes are missing: `lost`, `agent_unreachable` or `agent_error`; else it
    is null.
    """

    needs = {"GET": "job.view_jobexecution"}

    @operation(
        "job_execution_logs",
        "Read both logs of a job execution",
        answers.ExecutionLogs,
        parameters=[ID],
        problems=(404,),
        tag="job-executions",
    )
    def get(self, request: Request, pk: str) -> Response:
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
    """One log of an execution as it is, byte for byte: all phases in order, finished or live.

    An offset means the same byte for ever: ask on with `Range: bytes=N-` (or `offset`); 416 says
    that nothing new is there, 304 after `If-None-Match` that nothing changed. In `combined` each
    phase's stderr follows its stdout, under headings, and shows when the phase has ended: which of
    their lines came first is not known.
    """

    needs = {"GET": "job.view_jobexecution"}

    @operation(
        "job_execution_log",
        "Read the bytes of a log",
        {
            (200, "text/plain"): OpenApiTypes.STR,
            (206, "text/plain"): OpenApiTypes.STR,
            304: OpenApiResponse(description="Nothing has changed."),
        },
        parameters=[
            ID,
            OpenApiParameter(
                "stream",
                str,
                OpenApiParameter.PATH,
                enum=NAMES,
                description="Which log; `combined` has stderr after stdout, phase by phase.",
            ),
            _OFFSET,
            OpenApiParameter(
                "length",
                {"type": "integer", "format": "int64", "minimum": 1, "maximum": BIGGEST_INTEGER},
                description="How many bytes.",
            ),
            *CONDITIONS,
            *_LOG_HEADERS,
        ],
        problems=(404, 410, 416),
        tag="job-executions",
    )
    def get(self, request: Request, pk: str, stream: str) -> HttpResponseBase:
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
    """One log of an execution as server-sent events.

    `data` is a JSON string with text, `id` the offset of the byte after it; `Last-Event-ID` resumes
    there. `event: problem` says why bytes are missing, with an empty reason that they came back;
    `event: end` that nothing more will come: close the connection then.
    """

    needs = {"GET": "job.view_jobexecution"}

    @operation(
        "job_execution_log_stream",
        "Follow a log",
        {
            (200, "text/event-stream"): OpenApiTypes.ANY,
            204: OpenApiResponse(description="All of it was sent before, and no more will come."),
        },
        parameters=[
            ID,
            OpenApiParameter("stream", str, enum=NAMES, default="stdout", description="Which log."),
            _OFFSET,
            OpenApiParameter(
                "Last-Event-ID",
                {"type": "string", "pattern": "^[0-9]{0,19}$"},
                OpenApiParameter.HEADER,
                description="The last `id` that came; goes before `offset`.",
            ),
        ],
        problems=(404, 501),
        examples=[_EVENTS],
        tag="job-executions",
    )
    def get(self, request: Request, pk: str) -> Response:
        raise NeedsAsgi


urlpatterns: Final[list[Any]] = [
    path("job-executions/<str:pk>/logs/", ExecutionLogs.as_view()),
    path("job-executions/<str:pk>/logs/stream/", LogStream.as_view()),
    re_path(
        r"^job-executions/(?P<pk>[^/]+)/logs/(?P<stream>stdout|stderr|combined)/$",
        LogBytes.as_view(),
    ),
]
