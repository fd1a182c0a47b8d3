"""Submitting the same thing twice makes it once, if the client names it by a key."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction

from scale.core.errors import NotAllowedNow
from scale.job.asked import IdempotencyKey

#: How long a key is known at least.
KEPT_FOR: Final = timedelta(days=7)


def submit_once(
    submit: Callable[[], list[int]], *, user_id: int, key: str, request_hash: str, at: datetime
) -> list[int]:
    """Call `submit`, which stores jobs and returns their ids, unless this user did so by this key.

    Returns the ids of the jobs that the first request made. Of two at the same time the second
    waits for the first, because the key is unique. A request that fails leaves its key free.

    Raises NotAllowedNow if the key was used for another request, and what `submit` raises.
    """
    try:
        with transaction.atomic():
            row = IdempotencyKey.objects.create(
                user_id=user_id, key=key, request_hash=request_hash, created=at
            )
            row.job_ids = made = submit()
            row.save(update_fields=["job_ids"])
            return made
    except IntegrityError as error:
        if "idempotency_key_once_per_user" not in str(error):
            raise
    known = IdempotencyKey.objects.filter(user_id=user_id, key=key).first()
    if known is None:  # `forget_keys` came between, so that it may be used again
        return submit_once(submit, user_id=user_id, key=key, request_hash=request_hash, at=at)
    if known.request_hash != request_hash:
        raise NotAllowedNow("this Idempotency-Key was used for another request")
    return list(known.job_ids)


def forget_keys(*, before: datetime) -> int:
    """Delete keys of requests that were made before then; return how many."""
    return IdempotencyKey.objects.filter(created__lt=before).delete()[0]
