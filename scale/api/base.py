"""What all views share."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from rest_framework.authentication import SessionAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from scale.api.authentication import Token
from scale.api.errors import NotFound
from scale.api.parameters import Query
from scale.api.permissions import require_for_fields
from scale.api.quick import certainly_valid
from scale.api.renderers import BIGGEST_INTEGER
from scale.core.errors import InvalidInput


class OneRenderer(BaseContentNegotiation):
    """Answers in the one form that there is, whatever the client accepts (RFC 9110, 12.4.1)."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        given = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == given), None)

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class View(APIView):
    """A resource. `needs` maps each method to the permission that it takes (`AsNeeded`).

    `field_needs` maps a field of bodies to the permission that it takes besides.
    """

    authentication_classes = [Token, SessionAuthentication]
    content_negotiation_class = OneRenderer
    #: OPTIONS is answered by nothing, and so is not said to be allowed.
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    needs: ClassVar[Mapping[str, str]] = {}
    field_needs: ClassVar[Mapping[str, str]] = {}


def key_of(text: str, what: str) -> int:
    """Return the id in a path; one that is a number but too large cannot exist.

    Raises InvalidInput if it is no whole number, NotFound if it is too large.
    """
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise InvalidInput("id", "must be a whole number")
    if len(text) > 20 or not 0 <= int(text) <= BIGGEST_INTEGER:
        raise NotFound(what, text[:40])
    return int(text)


def no_parameters(request: Request) -> None:
    """Refuse any query parameter."""
    Query(request).done()


def body_of(request: Request, serializer: type[BaseSerializer[Any]]) -> dict[str, Any]:
    """Return the checked body of a request.

    Raises:
        InvalidInput: it is not an object, or has fields that `serializer` does not know.
        ValidationError: a field is missing or wrong.
        PermissionDenied: a field is kept for others.
    """
    if not isinstance(request.data, dict) or request.stream is None:  # None: it was empty
        raise InvalidInput("body", "must be a JSON object")
    body = dict(request.data)
    if not certainly_valid(serializer)(body):
        reader = serializer(data=body)
        _refuse_unknown(request, reader)
        reader.is_valid(raise_exception=True)
        body = dict(reader.validated_data)
    require_for_fields(request, request.data.keys())
    return body


def _refuse_unknown(request: Request, reader: BaseSerializer[Any]) -> None:
    unknown = sorted(set(request.data) - set(reader.fields))  # type: ignore[attr-defined]
    if unknown:
        raise UnexpectedFields(unknown)


def whole_body_of(request: Request, serializer: type[BaseSerializer[Any]]) -> dict[str, Any]:
    """Return the checked body as `body_of`; all fields that are missing are named at once."""
    if isinstance(request.data, dict):
        reader = serializer()
        _refuse_unknown(request, reader)
        fields = reader.fields.values()  # type: ignore[attr-defined]
        wanted = [field.field_name for field in fields if field.required]
        missing = [name for name in wanted if name not in request.data]
        if missing:
            raise MissingFields(missing)
    return body_of(request, serializer)


class MissingFields(InvalidInput):
    """The body lacks fields; the message is part of the contract."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names[0], "is missing")
        self._names = names

    def __str__(self) -> str:
        return "Missing required fields: " + ", ".join(self._names)


class UnexpectedFields(InvalidInput):
    """The body has fields that nobody knows; the message is part of the contract."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names[0][:80], "is not a field here")
        self._names = names

    def __str__(self) -> str:
        return "Unexpected fields: " + ", ".join(name[:80] for name in self._names[:20])


def some_fields_of(request: Request, serializer: type[BaseSerializer[Any]]) -> dict[str, Any]:
    """Return the checked body of a change; it must change something."""
    changes = body_of(request, serializer)
    if not changes:
        raise NoFields("body", "")
    return changes


class NoFields(InvalidInput):
    """A change without changes; the message is part of the contract."""

    def __str__(self) -> str:
        return "No fields specified for update."


#: Makes an absolute URL of a path of ours.
Link = Callable[[str], str]


def links(request: Request) -> Link:
    """Return what makes absolute URLs, under /v3/ if the request came there."""
    base = request.build_absolute_uri("/v3" if request.path.startswith("/v3/") else "/")
    return lambda path: base.rstrip("/") + path


def created(request: Request, path: str, body: Mapping[str, Any]) -> Response:
    return Response(body, status=201, headers={"Location": links(request)(path)})
