"""What the schema says of every operation alike: who may, what can go wrong, and an example.

So a view need not say it, and cannot forget it. `scale.api.schema` is what views say themselves.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from drf_spectacular.openapi import AutoSchema

from scale.api.examples import example_of, example_of_parameter
from scale.api.permissions import ANYBODY, LOGGED_IN, needed_by, roles_with

_Part = dict[str, Any]

_JSON: Final = "application/json"
_PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}
#: Status -> what it means, and the body that shows it.
PROBLEMS: Final[Mapping[int, tuple[str, Mapping[str, str]]]] = {
    400: (
        "Something in the request is wrong; `field` names it.",
        {"detail": "page_size: must be from 1 to 1000", "code": "invalid", "field": "page_size"},
    ),
    401: (
        "There is no token, or not a good one.",
        {"detail": "Authentication credentials were not provided.", "code": "not_authenticated"},
    ),
    403: (
        "The user may not do this.",
        {
            "detail": "You do not have permission to perform this action.",
            "code": "permission_denied",
        },
    ),
    404: ("There is no such thing.", {"detail": "There is no job 17.", "code": "not_found"}),
    409: (
        "Its state does not allow this.",
        {"detail": "job 17 is COMPLETED and cannot be canceled", "code": "conflict"},
    ),
    410: (
        "It was there and is lost.",
        {"detail": "The agent has removed the log.", "code": "log_gone"},
    ),
    413: (
        "More was sent than is taken.",
        {"detail": "The body has more than 10485760 bytes.", "code": "too_large"},
    ),
    415: (
        "The body is not in a form that is read.",
        {
            "detail": 'Unsupported media type "text/xml" in request.',
            "code": "unsupported_media_type",
        },
    ),
    416: (
        "There are no such bytes.",
        {"detail": "There are no bytes in that range.", "code": "range_not_satisfiable"},
    ),
    501: (
        "This server cannot do it.",
        {
            "detail": "Streams are served by scale.asgi, and this server is another one.",
            "code": "not_implemented",
        },
    ),
    503: (
        "A part of Scale does not answer now; ask again later.",
        {
            "detail": "The database cannot be used now; try again.",
            "code": "database_unavailable",
        },
    ),
}
_TEXT: Final = {"type": "string"}
#: Headers that come with a status, whatever the operation.
_LOCATION: Final = {
    "description": "Where it is, if it is one thing.",
    "schema": {"type": "string", "format": "uri"},
    "example": "http://127.0.0.1:8000/jobs/17/",
}
_HEADERS: Final[Mapping[str, Mapping[str, _Part]]] = {
    "201": {"Location": _LOCATION},
    "202": {"Location": _LOCATION},
    "401": {
        "WWW-Authenticate": {
            "description": "How to say who asks.",
            "schema": _TEXT,
            "example": "Token",
        }
    },
    "503": {
        "Retry-After": {
            "description": "After how many seconds to ask again.",
            "schema": {"type": "integer"},
            "example": 1,
        }
    },
}
#: What is said of answers that say nothing of themselves.
_DONE: Final = {
    "200": "Here it is.",
    "201": "It was done.",
    "202": "It will be done.",
    "204": "There is nothing to say.",
    "206": "A part of it.",
    "503": "Something is missing; the body says what.",
}


def problem(status: int) -> _Part:
    """Return the response that says what went wrong."""
    meaning, shown = PROBLEMS[status]
    content = {"schema": _PROBLEM, "examples": {str(status): {"value": dict(shown)}}}
    return {"description": meaning, "content": {_JSON: content}}


class Operation(AutoSchema):
    """Adds to what a view says of a method what holds for all."""

    def get_operation(self, *arguments: Any, **more: Any) -> _Part | None:
        """Return the operation; None if the view is not in the schema."""
        operation: _Part | None = super().get_operation(*arguments, **more)
        if operation is not None:
            needed = needed_by(self.view, self.method)
            _say_who_may(operation, needed)
            _say_what_can_fail(operation, needed)
            if self.method == "PATCH" or "requestBody" in operation:
                operation["requestBody"]["required"] = True
            field_needs = getattr(self.view, "field_needs", {})
            if field_needs and "requestBody" in operation:
                operation["x-permission-of-fields"] = dict(field_needs)
        return operation


def _say_who_may(operation: _Part, needed: str | None) -> None:
    roles = roles_with(needed or "")
    operation["x-roles"] = roles
    if needed in {ANYBODY, LOGGED_IN}:
        who = "Open to all." if needed == ANYBODY else "Takes a log-in and no permission."
    else:
        operation["x-permission"] = needed
        listed = f"{', '.join(roles[:-1])} and {roles[-1]}" if roles[1:] else roles[0]
        who = f"Takes the permission `{needed}`, which the roles {listed} have."
    operation["description"] = f"{operation.get('description', '')}\n\n{who}".strip()


def _say_what_can_fail(operation: _Part, needed: str | None) -> None:
    codes = {400, 503} if needed != ANYBODY else {400}
    codes |= {413, 415} if "requestBody" in operation else set()
    if needed != ANYBODY:
        codes |= {401} if needed == LOGGED_IN else {401, 403}
    responses = operation["responses"]
    for code in codes:
        responses.setdefault(str(code), problem(code))
    if 503 in codes:
        _widen(responses["503"])
    if needed != ANYBODY:
        responses = {status: _with_headers(status, each) for status, each in responses.items()}
    operation["responses"] = dict(sorted(responses.items()))


def _with_headers(status: str, response: _Part) -> _Part:
    headers = _HEADERS.get(status, {})
    return (
        {**response, "headers": {**headers, **response.get("headers", {})}} if headers else response
    )


def _widen(response: _Part) -> None:
    """Say that a failure of the database is possible besides what the view answers with 503."""
    content = response["content"][_JSON]
    if content["schema"] != _PROBLEM:
        content["schema"] = {"anyOf": [content["schema"], _PROBLEM]}


def complete(result: _Part, **_: Any) -> _Part:
    """Close the bodies of requests, give an example to whatever has none, and say errors once."""
    schemas = result["components"]["schemas"]
    errors = {str(status): _with_headers(str(status), problem(status)) for status in PROBLEMS}
    result["components"]["responses"] = {f"Error{name}": each for name, each in errors.items()}
    for methods in result["paths"].values():
        for operation in methods.values():
            _show_parameters(operation.get("parameters", ()), schemas)
            body = operation.get("requestBody", {"content": {}})
            for media in body["content"].values():
                _close(media["schema"], schemas)
                _show(media, schemas)
            for status, response in operation["responses"].items():
                if response == errors.get(status):
                    operation["responses"][status] = {
                        "$ref": f"#/components/responses/Error{status}"
                    }
                else:
                    _show_response(status, response, schemas)
    return result


def _show_parameters(parameters: Iterable[_Part], schemas: _Part) -> None:
    for parameter in parameters:
        if "example" not in parameter and "examples" not in parameter:
            parameter["example"] = example_of_parameter(parameter, schemas)


def _show_response(status: str, response: _Part, schemas: _Part) -> None:
    response["description"] = response["description"] or _DONE[status]
    for media in response.get("content", {}).values():
        _show(media, schemas)
    for name, header in response.get("headers", {}).items():
        header.setdefault("example", example_of(header["schema"], schemas, name))


def _show(media: _Part, schemas: _Part) -> None:
    if "example" not in media and "examples" not in media:
        media["example"] = example_of(media["schema"], schemas)


def _close(schema: _Part, schemas: _Part) -> None:
    """Say that an object has no other fields; the views refuse them."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "properties" in schema:
        if "additionalProperties" in schema:
            return
        schema["additionalProperties"] = False
        for each in schema["properties"].values():
            _close(each, schemas)
    for each in (schema.get("items"), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if each:
            _close(each, schemas)
    for each in schema.get("allOf", ()):
        _close(each, schemas)
