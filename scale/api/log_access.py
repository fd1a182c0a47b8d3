"""Who may read logs on the native paths: whoever DRF would let in."""

import hashlib
import time
from collections.abc import Callable, MutableMapping
from io import BytesIO
from typing import Any, Final, cast

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api.base import View
from scale.api.errors import bad_request
from scale.api.log_reader import Recent

#: How long who was let in is let in again without asking the database.
_REMEMBERED_S: Final = 5.0
_CREDENTIALS: Final = (b"host", b"authorization", b"cookie")

Headers = list[tuple[bytes, bytes]]
_Django = Callable[[HttpRequest], HttpResponseBase]
Scope = MutableMapping[str, Any]
Answer = tuple[int, Headers, bytes]


class _Door(View):
    """DRF's authentication, permissions and errors, and nothing behind them."""

    needs = {"GET": "job.view_jobexecution"}

    error: Exception | None = None

    def get(self, request: Request) -> Response:
        if self.error is not None:
            raise self.error
        return Response(status=204)


class Gate:
    """Lets requests in as DRF does, and remembers for some seconds whom it let in.

    So a token that was withdrawn reads logs for up to 5 s more.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: Recent[bytes, float] = Recent(10_000)

    def knows(self, scope: Scope) -> bool:
        """Whether the same credentials were let in a moment ago; never waits."""
        until = self._known.get(_fingerprint(scope))
        return until is not None and self._clock() < until

    def refusal(self, scope: Scope) -> Answer | None:
        """Ask DRF; return its answer if it does not let the request in. Asks the database."""
        answer = answer_to(scope)
        if answer[0] != 204:
            return answer
        self._known.put(_fingerprint(scope), self._clock() + _REMEMBERED_S)
        return None


def answer_to(scope: Scope, error: Exception | None = None) -> Answer:
    """Return DRF's answer to a request, after `error` was raised in the view, if one is given."""
    request = ASGIRequest(dict(scope), BytesIO())
    try:
        request.get_host()
        view = _Door.as_view(error=error)
        through = SessionMiddleware(cast("_Django", AuthenticationMiddleware(view)))
        response = cast("HttpResponseBase", through(request))
    except DisallowedHost as refused:
        response = bad_request(request, refused)
    if isinstance(response, Response):
        response.render()
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.items()
    ]
    content: bytes = getattr(response, "content", b"")
    headers.append((b"content-length", str(len(content)).encode()))
    return response.status_code, headers, content


def _fingerprint(scope: Scope) -> bytes:
    """Return what stands for the credentials of a request, without being them."""
    given = [pair for pair in scope["headers"] if pair[0] in _CREDENTIALS]
    return hashlib.sha256(repr(given).encode()).digest()
