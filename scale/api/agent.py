"""What the steps program on agents calls. Not for people: none of it is in the schema.

The program's own file is open to all: it is code and holds no secret. All else takes the token of
one task, good while that is the current task of its execution.
"""

import hashlib
import re
from functools import cache
from typing import Any, BinaryIO, Final, cast
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.core.files.storage import default_storage
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import etag, require_safe
from drf_spectacular.utils import extend_schema
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import base
from scale.api.errors import NotFound
from scale.api.parameters import Query
from scale.api.permissions import TASK
from scale.core.errors import InvalidInput
from scale.core.lifecycle import Phase
from scale.job import reports, tokens
from scale.job.files import TooLarge, store_file
from scale.job.models import File, JobExecution
from scale.job.orders import steps_orders
from scale.steps.archive import build_zipapp

_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}\Z")


@cache
def _program() -> tuple[bytes, str]:
    """Return the program and its ETag."""
    program = build_zipapp()
    return program, f'"{hashlib.sha256(program).hexdigest()[:32]}"'


@csrf_exempt  # else a forged POST would have its body read, however slowly it comes
@require_safe
@etag(lambda request: _program()[1])
def steps_program(request: HttpRequest) -> HttpResponse:
    """Answer with the zipapp; Mesos' fetcher brings it to the agents."""
    return HttpResponse(_program()[0], content_type="application/zip")


class TaskToken(BaseAuthentication):
    """Takes the bearer token of a task; `request.auth` is the execution, with job and revision."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, JobExecution]:
        """Return the execution; one query. Raises what becomes a 401."""
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticated
        context: dict[str, Any] = request.parser_context or {}
        uuid: UUID = context["kwargs"]["uuid"]
        task_id = tokens.task_of(token.strip(), uuid)
        execution = (
            reports.executions_in_steps()
            .filter(uuid=uuid, task_id=task_id)
            .select_related("job__job_type", "job__job_type_rev")
            .first()
            if task_id
            else None
        )
        if execution is None:
            raise AuthenticationFailed("The token is not that of a task that runs now.")
        return AnonymousUser(), execution

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


@extend_schema(exclude=True)
class _TaskView(base.View):
    """A call of the task that runs for an execution now."""

    authentication_classes = [TaskToken]

    def execution(self, request: Request) -> JobExecution:
        return cast("JobExecution", request.auth)


class Orders(_TaskView):
    """What the program is to bring and to take."""

    needs = {"GET": TASK}

    def get(self, request: Request, uuid: UUID) -> Response:
        """Answer with the orders (`scale.job.orders.steps_orders`); two queries."""
        return Response(steps_orders(self.execution(request)))


class _Bytes(FileResponse):
    """A file in pieces of a size that suits the wire; Django's own are of 4 KiB."""

    block_size = 256 * 1024


class Input(_TaskView):
    """The bytes of an input of this execution, and of nothing else."""

    needs = {"GET": TASK}

    def get(self, request: Request, uuid: UUID, file_id: int) -> HttpResponseBase:
        """Answer with the file; two queries."""
        file = None
        if file_id in reports.input_ids(self.execution(request)):
            file = File.objects.filter(pk=file_id).first()
        if file is None:
            raise NotFound("input", file_id, field="file_id")
        try:
            content = default_storage.open(file.storage_name)
        except FileNotFoundError:
            raise NotFound("stored file", file_id) from None
        headers = {"Content-Length": str(file.size), "X-Content-Type-Options": "nosniff"}
        return _Bytes(content, content_type="application/octet-stream", headers=headers)


class Outputs(_TaskView):
    """Where outputs are put, one call for each file; repeating it is harmless."""

    needs = {"PUT": TASK}

    def put(self, request: Request, uuid: UUID) -> Response:
        """Store the body as a file of an output of this execution."""
        execution = self.execution(request)
        reports.require_phase(execution, Phase.POST)
        query = Query(request)
        output_name, name = query.text("output"), query.text("name")
        query.done()
        if not output_name or not name:
            raise InvalidInput("name" if output_name else "output", "must be given")
        output = reports.declared_output(execution, output_name)
        size, checksum = _announced(request)
        room = reports.room_for_output(execution, output.name, name)
        if size > room:
            raise TooLarge("file", f"has {size} bytes where {room} are left for this execution")
        file = store_file(
            name=name,
            media_type=request.content_type,
            stream=cast("BinaryIO", request._request),  # not parsed by DRF
            at=timezone.now(),
            execution=execution,
            output_name=output.name,
            expected_size=size,
            expected_sha256=checksum,
            max_bytes=room,
        )
        return Response({"file_id": file.pk}, status=201)


def _announced(request: Request) -> tuple[int, str | None]:
    """Return size and checksum of the body by its headers."""
    length = request.META.get("CONTENT_LENGTH") or ""
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise InvalidInput("Content-Length", "must be given")
    checksum = request.META.get("HTTP_X_CHECKSUM_SHA256")
    if checksum is not None and not _SHA256.match(checksum):
        raise InvalidInput("X-Checksum-Sha256", "must be 64 hexadecimal digits")
    return int(length), checksum


class Results(_TaskView):
    """What came out, told when all outputs are stored."""

    needs = {"POST": TASK}

    def post(self, request: Request, uuid: UUID) -> Response:
        """Store the results."""
        body = _object(request)
        reports.report_results(
            self.execution(request),
            outputs=body.get("outputs"),
            manifest=body.get("results_manifest"),
            folder_removed=body.get("folder_removed"),
        )
        return Response(status=204)


class Failure(_TaskView):
    """Why the program is about to end badly."""

    needs = {"POST": TASK}

    def post(self, request: Request, uuid: UUID) -> Response:
        """Store the sentence."""
        body = _object(request)
        reports.report_failure(
            self.execution(request), phase=body.get("phase"), message=body.get("message")
        )
        return Response(status=204)


def _object(request: Request) -> dict[str, Any]:
    if not isinstance(request.data, dict):
        raise InvalidInput("body", "must be a JSON object")
    return request.data


_EXECUTION: Final = "agent/executions/<uuid:uuid>"
urlpatterns: Final[list[Any]] = [
    path("agent/steps.pyz", steps_program),
    path(f"{_EXECUTION}/orders/", Orders.as_view()),
    path(f"{_EXECUTION}/inputs/<int:file_id>/", Input.as_view()),
    path(f"{_EXECUTION}/outputs/", Outputs.as_view()),
    path(f"{_EXECUTION}/results/", Results.as_view()),
    path(f"{_EXECUTION}/failure/", Failure.as_view()),
]
