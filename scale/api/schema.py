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
from scale.api.described import PROBLEMS
from scale.api.renderers import BIGGEST_INTEGER

F = TypeVar("F", bound=Callable[..., Any])
_Serializer = type[serializers.Serializer[Any]]


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
    statuses. 400, 401, 403, 413, 415 and 503 are added where they can happen.
    """
    responses: dict[Any, Any] = dict(answer) if isinstance(answer, dict) else {status: answer}
    for code in problems:
        meaning, shown = PROBLEMS[code]
        example = OpenApiExample(f"{code}", value=dict(shown), response_only=True)
        responses[code] = OpenApiResponse(Problem, meaning, examples=[example])
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


def answer_header(
    name: str, about: str, choices: Collection[str], statuses: Collection[int]
) -> OpenApiParameter:
    """Declare a header of answers with these statuses."""
    return OpenApiParameter(
        name,
        str,
        OpenApiParameter.HEADER,
        description=about,
        enum=list(choices) or None,
        response=list(statuses),
    )


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


ID: Final = OpenApiParameter(
    "id",
    {"type": "integer", "format": "int64", "minimum": 1, "maximum": BIGGEST_INTEGER},
    OpenApiParameter.PATH,
    description="Its number.",
    examples=[OpenApiExample("one", value=1)],
)
#: What a client has already, and which part it wants; and what is said of it (RFC 9110).
CONDITIONS: Final = [
    OpenApiParameter(
        "Range",
        {"type": "string", "examples": ["bytes=0-99"]},
        OpenApiParameter.HEADER,
        description="One range, such as bytes=0-99; anything else is as if it were not there.",
    ),
    OpenApiParameter(
        "If-Range",
        {"type": "string"},
        OpenApiParameter.HEADER,
        description="An ETag; with another one all is sent.",
    ),
    OpenApiParameter(
        "If-None-Match",
        {"type": "string"},
        OpenApiParameter.HEADER,
        description="ETags; if it still has one of them the answer is 304.",
    ),
    answer_header("ETag", "Changes with the bytes.", (), (200, 206, 304)),
    answer_header("Accept-Ranges", "Parts can be had.", ["bytes"], (200, 206)),
    answer_header("Content-Range", "Which bytes these are, and of how many.", (), (206, 416)),
]
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
        "page_size",
        {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        description="How many are on a page.",
    ),
]


def since(default: str, about: str) -> list[OpenApiParameter]:
    """Return the parameters of a period that begins at `default` if nothing is given."""
    return [
        one("started", OpenApiTypes.STR, f"From then on: {_PERIOD}. {about}", default=default),
        one("ended", OpenApiTypes.STR, f"Until then, or now: {_PERIOD}."),
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
