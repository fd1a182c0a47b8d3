"""How operations are described in the OpenAPI document; each says all that it can answer."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    inline_serializer,
)
from rest_framework import serializers

from scale.api.answers import Problem

F = TypeVar("F", bound=Callable[..., Any])
_Serializer = type[serializers.Serializer[Any]]

_EXAMPLES: Final[Mapping[int, Mapping[str, str]]] = {
    400: {"detail": "page_size: must be from 1 to 1000", "code": "invalid", "field": "page_size"},
    401: {"detail": "Authentication credentials were not provided.", "code": "not_authenticated"},
    403: {
        "detail": "You do not have permission to perform this action.",
        "code": "permission_denied",
    },
    404: {"detail": "There is no job 17.", "code": "not_found"},
    409: {"detail": "job 17 is COMPLETED and cannot be canceled", "code": "conflict"},
    413: {"detail": "file: is larger than 1048576 bytes", "code": "too_large", "field": "file"},
    415: {
        "detail": 'Unsupported media type "text/xml" in request.',
        "code": "unsupported_media_type",
    },
    416: {"detail": "There are no bytes in that range.", "code": "range_not_satisfiable"},
}
_MEANING: Final[Mapping[int, str]] = {
    400: "Something in the request is wrong; `field` names it.",
    401: "There is no token, or not a good one.",
    403: "The user may not do this.",
    404: "There is no such thing.",
    409: "Its state does not allow this.",
    413: "More was sent than is taken.",
    415: "The body is not in a form that is read.",
    416: "There are no such bytes.",
}


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Tells the schema how tokens are sent."""

    target_class = "scale.api.authentication.Token"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token` and a space before the token",
        }


def operation(
    name: str,
    summary: str,
    answer: Any,
    *,
    status: int = 200,
    body: Any = None,
    parameters: Iterable[OpenApiParameter] = (),
    problems: Collection[int] = (400, 401),
    examples: Iterable[OpenApiExample] = (),
    tag: str,
    open_to_all: bool = False,
) -> Callable[[F], F]:
    """Describe one method of a view.

    `answer` is a serializer, or maps statuses to what is answered with; `problems` are the other
    statuses.
    """
    responses: dict[Any, Any] = dict(answer) if isinstance(answer, dict) else {status: answer}
    for code in problems:
        example = OpenApiExample(f"{code}", value=_EXAMPLES[code], response_only=True)
        responses[code] = OpenApiResponse(Problem, _MEANING[code], examples=[example])
    return extend_schema(
        operation_id=name,
        summary=summary,
        request=body,
        parameters=list(parameters),
        responses=responses,
        examples=list(examples),
        tags=[tag],
        auth=[] if open_to_all else None,
    )


@cache
def paged(item: _Serializer) -> serializers.Serializer[Any]:
    """Return the envelope of a list of `item`."""
    return inline_serializer(
        f"{item.__name__}Page",
        {
            "count": serializers.IntegerField(),
            "next": serializers.URLField(allow_null=True),
            "previous": serializers.URLField(allow_null=True),
            "results": item(many=True),
        },
    )


def example(value: Mapping[str, Any]) -> OpenApiExample:
    """Return an example of a body."""
    return OpenApiExample("example", value=dict(value), request_only=True)


def many(
    name: str, kind: OpenApiTypes, about: str, choices: Collection[str] = ()
) -> OpenApiParameter:
    """Declare a parameter that may come several times: any of its values will do."""
    schema: dict[str, Any] = {"type": "integer" if kind is OpenApiTypes.INT else "string"}
    if choices:
        schema["enum"] = list(choices)
    return OpenApiParameter(
        name, {"type": "array", "items": schema}, description=f"{about} May be repeated."
    )


def one(
    name: str,
    kind: OpenApiTypes,
    about: str,
    choices: Collection[str] = (),
    default: object = None,
) -> OpenApiParameter:
    return OpenApiParameter(
        name, kind, description=about, enum=list(choices) or None, default=default
    )


ID: Final = OpenApiParameter("id", OpenApiTypes.INT64, OpenApiParameter.PATH)
_PERIOD: Final = (
    "an ISO 8601 time with a time zone (2015-01-01T00:00:00Z), or a duration before now (PT3H0M0S)"
)


#: The parameters of every list.
PAGING: Final = [
    OpenApiParameter(
        "page",
        {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "default": 1},
        description="A page after the last one is empty.",
    ),
    OpenApiParameter(
        "page_size", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    ),
]


#: A period that has a beginning even if none is given.
RECENTLY: Final = [
    one("started", OpenApiTypes.STR, f"Counted since then: {_PERIOD}.", default="PT3H0M0S"),
    one("ended", OpenApiTypes.STR, f"Counted until then: {_PERIOD}."),
]


def listing(order: Collection[str], what: str = "last change") -> list[OpenApiParameter]:
    """Return the parameters of lists in time; `what` is the time that a period bounds."""
    return [
        *PAGING,
        one("started", OpenApiTypes.STR, f"The {what} was then or later: {_PERIOD}."),
        one("ended", OpenApiTypes.STR, f"The {what} was then or before: {_PERIOD}."),
        OpenApiParameter(
            "order",
            {
                "type": "array",
                "items": {
                    "type": "string",
                    "enum": [sign + name for name in order for sign in ("", "-")],
                },
            },
            description="What to order by; a dash before a name reverses. May be repeated.",
        ),
    ]
