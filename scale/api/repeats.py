"""The header Idempotency-Key: a client that does not know whether it was heard may ask again."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from scale.core.errors import InvalidInput
from scale.job.idempotency import submit_once
from scale.job.models import JobExecution
from scale.job.submission import JobRequest, submit_job, submit_jobs

_NAME: Final = "Idempotency-Key"
# No comma: with one between them arrive the values of a header that comes twice (RFC 9110, 5.3).
_KEY: Final = re.compile(r"[!-+\--~]([ -+\--~]{0,253}[!-+\--~])?", re.ASCII)
IDEMPOTENCY_KEY: Final = OpenApiParameter(
    _NAME,
    {"type": "string", "pattern": f"^{_KEY.pattern}$"},
    OpenApiParameter.HEADER,
    description="A text of the client's own. The same request with the same key again makes no "
    "more jobs and answers with those of the first; another request with that key is refused. "
    "Keys belong to the user, and are kept for seven days.",
)


def submitted(
    request: Request, wanted: Sequence[JobRequest], *, place: Callable[[str], str] = str
) -> list[int]:
    """Submit jobs, once if the request has a key; return their ids.

    `place` says where in the body is what `submit_jobs` names.
    """
    return _submitted(request, partial(submit_jobs, wanted), place)


def submitted_job(request: Request, wanted: JobRequest) -> tuple[int, JobExecution | None]:
    """Submit a job as `submitted`; return its id and, if this request made it, its attempt.

    The attempt comes with its job, as `submit_job` returns it.
    """
    made: list[JobExecution] = []

    def submit(*, user: str, at: datetime) -> list[int]:
        job, execution = submit_job(wanted, user=user, at=at)
        made.append(execution)
        return [job.pk]

    [key] = _submitted(request, submit, str)
    return key, made[0] if made else None


def _submitted(
    request: Request, submit: Callable[..., list[int]], place: Callable[[str], str]
) -> list[int]:
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInput(_NAME, "must be 1 to 255 printable ASCII characters without a comma")
    try:
        return _once(request, submit, key)
    except InvalidInput as error:
        raise InvalidInput(place(error.field), error.reason) from None


def _once(request: Request, submit: Callable[..., list[int]], key: str | None) -> list[int]:
    now, user = timezone.now(), request.user
    submit = partial(submit, user=user.get_username(), at=now)
    if key is None:
        return submit()
    assert user.pk is not None  # only who has logged in may submit
    return submit_once(
        submit,
        user_id=user.pk,
        key=key,
        request_hash=_hash_of(request),
        at=now,
    )


def _hash_of(request: Request) -> str:
    asked = [request.path.removeprefix("/v3"), request.data]
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
