"""Tokens with which the steps program of one execution speaks to us, and nobody else."""

from uuid import UUID

from django.core import signing

_SALT = "scale.execution"


def issue(uuid: UUID, task_id: str) -> str:
    """Return the token of a task; good while that is the execution's current task."""
    return signing.dumps([str(uuid), task_id], salt=_SALT, compress=False)


def task_of(token: str, uuid: UUID) -> str | None:
    """Return the task that the token was made for; None unless it is one for this execution."""
    try:
        owner, task_id = signing.loads(token, salt=_SALT)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    return str(task_id) if owner == str(uuid) else None
