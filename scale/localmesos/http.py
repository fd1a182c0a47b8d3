"""The little of HTTP that Mesos' endpoints need, as plain ASGI: routes, credentials, answers."""

import base64
import binascii
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

MAX_BODY: Final = 64 << 20
TEXT: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"


class Refused(Exception):
    """A request that gets an error answer."""

    def __init__(self, status: int, text: str = "", headers: Headers = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


@dataclass(slots=True)
class Response:
    """A whole answer; always with a Content-Length, so that the connection lives on."""

    status: int = 200
    body: bytes = b""
    content_type: bytes | None = None
    headers: Headers = ()


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value), JSON)


def text_response(status: int, text: str, headers: Headers = ()) -> Response:
    return Response(status, text.encode(), TEXT, headers)


@dataclass(slots=True)
class Request:
    """One request; the body is read on demand."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    query_string: bytes
    receive: Receive
    send: Send
    principal: str = ""
    _query: dict[str, str] | None = field(default=None)

    @property
    def query(self) -> Mapping[str, str]:
        if self._query is None:
            text = self.query_string.decode("utf-8", "surrogateescape")
            self._query = dict(parse_qsl(text, keep_blank_values=True, errors="surrogateescape"))
        return self._query

    async def body(self) -> bytes:
        """Return the whole body, at most MAX_BODY bytes."""
        message = await self.receive()
        if not message.get("more_body"):
            return bytes(message.get("body", b""))
        parts, size = [message["body"]], len(message["body"])
        while message.get("more_body"):
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Refused(HTTPStatus.BAD_REQUEST, "The body is not whole")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY:
                raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large")
        return b"".join(parts)


Handler = Callable[[Request], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and the realm in which its caller must be known; None asks for nobody."""

    handler: Handler
    realm: str | None
    methods: tuple[str, ...] = ("GET",)


class Credentials:
    """The one principal and secret of this cluster."""

    def __init__(self, principal: str, secret: str) -> None:
        self.principal = principal
        self._expected = f"{principal}:{secret}".encode()

    def principal_of(self, authorization: bytes | None) -> str | None:
        """Return who sends this `Authorization` header, None if it does not prove anybody."""
        scheme, _, token = (authorization or b"").partition(b" ")
        if scheme.lower() != b"basic":
            return None
        try:
            given = base64.b64decode(token.strip(), validate=True)
        except (binascii.Error, ValueError):
            return None
        return self.principal if hmac.compare_digest(given, self._expected) else None


class Application:
    """One listening process of Mesos: the longest prefix wins, a trailing slash is ignored."""

    def __init__(self, name: str, routes: Mapping[str, Route], credentials: Credentials) -> None:
        """Serve `routes` as they are and again under /`name`."""
        self._prefix = f"/{name}"
        self._routes = routes
        self._credentials = credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(
            scope["method"],
            scope["path"],
            dict(scope["headers"]),
            scope["query_string"],
            receive,
            send,
        )
        try:
            response = await self._answer(request)
        except Refused as refusal:
            response = text_response(refusal.status, refusal.text, refusal.headers)
        if response is not None:
            await respond(response, request.method == "HEAD", send)

    async def _answer(self, request: Request) -> Response | None:
        route = self._route(request.path)
        if route is None:
            raise Refused(HTTPStatus.NOT_FOUND, "404 Not Found.")
        if route.realm is not None:
            principal = self._credentials.principal_of(request.headers.get(b"authorization"))
            if principal is None:
                challenge = f'Basic realm="{route.realm}"'.encode()
                raise Refused(
                    HTTPStatus.UNAUTHORIZED,
                    "401 Unauthorized.",
                    ((b"WWW-Authenticate", challenge),),
                )
            request.principal = principal
        if request.method not in route.methods and (request.method, route.methods[0]) != (
            "HEAD",
            "GET",
        ):
            raise _wrong_method(request.method, route.methods)
        return await route.handler(request)

    def _route(self, path: str) -> Route | None:
        if found := self._routes.get(path):
            return found
        path = path.rstrip("/")
        if path.startswith(self._prefix + "/"):
            path = path[len(self._prefix) :]
        while path:
            if found := self._routes.get(path):
                return found
            path = path.rpartition("/")[0]
        return None


def _wrong_method(method: str, allowed: Iterable[str]) -> Refused:
    names = ", ".join(f"'{name}'" for name in allowed)
    return Refused(
        HTTPStatus.METHOD_NOT_ALLOWED,
        f"405 Method Not Allowed. Expecting one of {{ {names} }}, but received '{method}'.",
        ((b"Allow", ", ".join(allowed).encode()),),
    )


def date() -> tuple[bytes, bytes]:
    """Return the Date header, which every answer has."""
    return b"Date", _date(int(time.time()))


@lru_cache(maxsize=1)
def _date(now: int) -> bytes:
    return formatdate(now, usegmt=True).encode()


async def respond(response: Response, head: bool, send: Send) -> None:
    headers = [date(), (b"Content-Length", str(len(response.body)).encode())]
    if response.content_type is not None:
        headers.append((b"Content-Type", response.content_type))
    headers.extend(response.headers)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else response.body})


def parse_call(request: Request, body: bytes) -> Any:
    """Return the JSON of a v1 call.

    Raises:
        Refused: 400 without Content-Type, 415 for anything but plain JSON (protobuf is not
            served), 400 for a body that is not JSON.
    """
    content_type = request.headers.get(b"content-type")
    if content_type is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "Expecting 'Content-Type' to be present")
    if content_type != JSON:
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Expecting 'Content-Type' of application/json or application/x-protobuf",
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        near = body[error.pos : error.pos + 20].decode("utf-8", "replace")
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"Failed to parse body into JSON: syntax error at line {error.lineno} near: {near}",
        ) from None


def accepts_json(request: Request) -> bool:
    accept = request.headers.get(b"accept", b"*/*")
    kinds = {part.partition(b";")[0].strip() for part in accept.split(b",")}
    return bool(kinds & {JSON, b"*/*", b"application/*"})
