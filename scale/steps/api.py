"""The calls to Scale: the only place where the execution's token is used."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Iterable, Mapping, Union
from urllib.parse import quote, urlencode

from .errors import ApiUnreachable, BadUsage, InvalidOutputs, StepError
from .limits import Limits
from .net import TRANSIENT_STATUS, Answer, NetError, Origin, exchange, parse_target
from .orders import UUID
from .retry import patiently

MAX_ORDERS = 32 * 1024 * 1024
MAX_ANSWER = 64 * 1024
#: The API cannot use what we sent; another try, or another node, would not change that.
UNACCEPTABLE = frozenset({400, 413, 422})

_VISIBLE = re.compile(r"[!-~]+")

Body = Union[bytes, Iterable[bytes], None]


class Api:
    """Scale's side for one execution; every call is repeated while that may help.

    Raises:
        ApiUnreachable: no answer in time, or a refusal.
    """

    def __init__(self, base: str, token: str, execution: str, limits: Limits) -> None:
        self._base = base.rstrip("/")
        self._token = token
        self._limits = limits
        self.execution = execution
        self.origin = parse_target(self._base).origin

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], limits: Limits) -> Api:
        base = environ.get("SCALE_API_URL", "")
        token = environ.get("SCALE_EXECUTION_TOKEN", "")
        execution = environ.get("SCALE_EXECUTION_UUID", "")
        if not _VISIBLE.fullmatch(token):
            raise BadUsage("SCALE_EXECUTION_TOKEN is not set or not a token")
        if not UUID.fullmatch(execution):
            raise BadUsage("SCALE_EXECUTION_UUID is not set or not a UUID")
        try:
            return cls(base, token, execution, limits)
        except ValueError as error:
            raise BadUsage(f"SCALE_API_URL cannot be used: {error}") from None

    def credentials_for(self, origin: Origin) -> dict[str, str]:
        """Return the header with the token, or nothing for anyone who is not Scale itself."""
        return {"Authorization": f"Bearer {self._token}"} if origin == self.origin else {}

    def without_token(self, text: str) -> str:
        return text.replace(self._token, "[token]")

    def orders(self) -> bytes:
        return self._call("GET", "orders/", what="asking for orders", limit=MAX_ORDERS)

    def upload(
        self,
        output: str,
        name: str,
        media_type: str,
        size: int,
        sha256: str,
        blocks: Callable[[], Iterable[bytes]],
    ) -> int:
        """Store one file and return its id; raise InvalidOutputs if Scale does not take it.

        `blocks` makes the content anew for each attempt, `size` bytes in all.
        """
        body = self._call(
            "PUT",
            "outputs/?" + urlencode({"output": output, "name": name}, quote_via=quote),
            what=f"storing output {output!r}",
            body=blocks,
            headers={
                "Content-Length": str(size),
                "Content-Type": media_type,
                "X-Checksum-Sha256": sha256,
            },
            unacceptable=InvalidOutputs,
        )
        try:
            file_id = json.loads(body)["file_id"]
        except (ValueError, KeyError, TypeError):
            file_id = None
        if type(file_id) is not int:
            raise ApiUnreachable(f"Scale did not say how output {output!r} is stored")
        return file_id

    def results(self, document: Mapping[str, Any]) -> None:
        """Say what came out; raise InvalidOutputs if Scale does not take it."""
        self._post("results/", document, "reporting the results", InvalidOutputs)

    def failure(self, phase: str, message: str) -> None:
        self._post("failure/", {"phase": phase, "message": message}, "reporting the failure")

    def _post(
        self,
        path: str,
        document: Mapping[str, Any],
        what: str,
        unacceptable: type[StepError] = ApiUnreachable,
    ) -> None:
        body = json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        self._call(
            "POST", path, what=what, body=lambda: body, headers=headers, unacceptable=unacceptable
        )

    def _call(
        self,
        method: str,
        path: str,
        *,
        what: str,
        body: Callable[[], Body] = lambda: None,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_ANSWER,
        unacceptable: type[StepError] = ApiUnreachable,
    ) -> bytes:
        target = parse_target(f"{self._base}/agent/executions/{self.execution}/{path}")
        every = {**(headers or {}), **self.credentials_for(target.origin)}

        def once() -> tuple[int, str, bytes]:
            answer = exchange(target, self._limits, method=method, headers=every, body=body())
            try:
                if answer.status in TRANSIENT_STATUS:
                    raise NetError(f"Scale answered {answer}")
                return answer.status, str(answer), _content(answer, limit)
            finally:
                answer.close()

        tries, backoff_s = self._limits.api_tries, self._limits.backoff_s
        try:
            status, line, content = patiently(once, what, tries=tries, backoff_s=backoff_s)
        except NetError as error:
            raise ApiUnreachable(
                f"{what}: Scale at {self._base} cannot be reached: {error}"
            ) from None
        if 200 <= status < 300:
            return content
        refusal = unacceptable if status in UNACCEPTABLE else ApiUnreachable
        raise refusal(f"{what}: Scale answered {line}{_detail(content)}")


def _content(answer: Answer, limit: int) -> bytes:
    content = answer.text(limit + 1)
    if len(content) > limit:
        raise NetError(f"the answer is longer than {limit} bytes", transient=False)
    return content


def _detail(content: bytes) -> str:
    """Return the sentence of a problem document (RFC 9457), if it is one."""
    try:
        detail = json.loads(content)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f" ({' '.join(str(detail).split())[:300]})"
