"""The one place that knows which of our errors is which HTTP status.

Every answer that is an error has a body {"detail", "code"} and, where one part of the request is
to blame, "field": the name of a parameter or header, or the path of a value in the body, which as a
whole is "body".
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import orjson
from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import DataError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from scale.core.errors import (
    GatewayError,
    IllegalTransition,
    InvalidInput,
    LeadershipLost,
    NotAllowedNow,
    NotEnoughResources,
    ScaleError,
)
from scale.job.files import TooLarge

logger = logging.getLogger(__name__)

#: Most special first.
HTTP_STATUS: Final[Mapping[type[ScaleError], int]] = {
    TooLarge: 413,
    InvalidInput: 400,
    NotAllowedNow: 409,
    IllegalTransition: 409,
    NotEnoughResources: 409,
    LeadershipLost: 503,
    GatewayError: 503,
}
_MALFORMED: Final = (SuspiciousOperation, UnreadablePostError, BadRequest)
#: What is to blame for errors that do not say it themselves.
_BLAMED: Final[Mapping[type[Exception], str]] = {
    exceptions.ParseError: "body",
    exceptions.UnsupportedMediaType: "Content-Type",
    exceptions.AuthenticationFailed: "Authorization",
}


class NotFound(exceptions.NotFound):
    """What the path names, or `field` of the body, does not exist."""

    def __init__(self, what: str, key: object, *, field: str = "id") -> None:
        super().__init__(f"There is no {what} {key}.")
        self.field = field


class RangeNotSatisfiable(exceptions.APIException):
    """The range of bytes that was asked for does not exist."""

    status_code = 416
    default_code = "range_not_satisfiable"
    default_detail = "There are no bytes in that range."

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turn an exception of a view into a response (DRF's EXCEPTION_HANDLER).

    None means that it is a bug of ours: it is raised again and becomes a 500.
    """
    response = _answer(error, context)
    if response is not None and response.status_code == 503:
        response["Retry-After"] = "1"
    return response


def _answer(error: Exception, context: dict[str, Any]) -> Response | None:
    if isinstance(error, ScaleError):
        return _response_of(error)
    if isinstance(error, RequestDataTooBig):
        return _simple(413, "too_large", str(error), field="body")
    if isinstance(error, _MALFORMED):
        return _simple(400, "bad_request", "The request cannot be read.", field="body")
    if isinstance(error, DataError):
        # The rest of the request is checked before; what only PostgreSQL can refuse is a range.
        return _simple(400, "invalid", "A value is out of range.")
    if isinstance(error, OperationalError | InterfaceError):
        logger.error("the database failed", exc_info=error)
        return _simple(503, "database_unavailable", "The database cannot be used now; try again.")
    response = exception_handler(error, context)
    if response is not None:
        response.data = _body(error, response.data)
        if isinstance(error, RangeNotSatisfiable):
            response["Content-Range"] = f"bytes */{error.size}"
    return response


def _response_of(error: ScaleError) -> Response:
    status = next((code for kind, code in HTTP_STATUS.items() if isinstance(error, kind)), 400)
    body = {"detail": str(error), "code": error.code}
    if isinstance(error, InvalidInput):
        body["field"] = error.field
    return Response(body, status=status)


def _simple(status: int, code: str, detail: str, **blamed: str) -> Response:
    return Response({"detail": detail, "code": code, **blamed}, status=status)


def _body(error: Exception, data: Any) -> dict[str, Any]:
    """Return our body for an error of DRF's or Django's."""
    if isinstance(error, exceptions.ValidationError):
        field, message, code = _first(error.detail, "")
        if not field:
            return {"detail": message, "code": code}
        return {"detail": f"{field}: {message}", "code": code, "field": field}
    detail = data.get("detail", "") if isinstance(data, dict) else data
    code = getattr(detail, "code", None) or "error"
    blamed = next((name for kind, name in _BLAMED.items() if isinstance(error, kind)), "")
    field = getattr(error, "field", blamed)
    return {"detail": str(detail), "code": code, **({"field": field} if field else {})}


def _first(detail: Any, path: str) -> tuple[str, str, str]:
    """Return path, message and code of the first problem in DRF's nested details."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        if name == "non_field_errors":
            return _first(inner, path)
        if isinstance(name, int):
            return _first(inner, f"{path}[{name}]")
        return _first(inner, f"{path}.{name}" if path else str(name))
    if isinstance(detail, list):
        index, inner = next((n, each) for n, each in enumerate(detail) if each)
        return _first(inner, f"{path}[{index}]" if isinstance(inner, dict | list) else path)
    return path, str(detail), getattr(detail, "code", "invalid")


def _plain(status: int, code: str, detail: str, **blamed: str) -> HttpResponse:
    body = orjson.dumps({"detail": detail, "code": code, **blamed})
    # Where Django gives up before its middleware, nobody else says how long it is.
    headers = {"Content-Length": str(len(body))}
    return HttpResponse(body, status=status, content_type="application/json", headers=headers)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django itself refuses, such as a host that is not ours."""
    blamed = {"field": "Host"} if isinstance(exception, DisallowedHost) else {}
    return _plain(400, "bad_request", "The request cannot be read.", **blamed)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a path that leads nowhere."""
    return _plain(404, "not_found", "There is nothing at this address.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer when we failed; what happened is in the log."""
    return _plain(500, "error", "Something went wrong here; the log of the server says more.")
