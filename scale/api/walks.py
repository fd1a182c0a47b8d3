"""Cursors: where a walk through a list is, as an opaque text.

A cursor is base64 of [version, what list and order, values of the last item]. It is checked like
any other input; it is no secret, and need not be signed: it says where to go on, not what to see.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2s
from typing import Any, Final

from django.db.models import DateTimeField, IntegerField, Model
from django.utils.dateparse import parse_datetime

from scale.api.renderers import BIGGEST_INTEGER
from scale.core.errors import InvalidInput
from scale.job.bulk import storable

_VERSION: Final = 1


def write_cursor(place: str, order: Sequence[str], values: Sequence[Any]) -> str:
    """Return the cursor that goes on after the row with these values of the order's fields."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    document = json.dumps([_VERSION, _digest(place, order), *plain])
    return urlsafe_b64encode(document.encode()).rstrip(b"=").decode()


def read_cursor(text: str, place: str, order: Sequence[str], model: type[Model]) -> tuple[Any, ...]:
    """Return the values of a cursor; raises InvalidInput if it is not of this list and order."""
    try:
        document = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        version, digest, *values = document
    except (ValueError, TypeError, RecursionError):
        raise _refused() from None
    if version != _VERSION or digest != _digest(place, order) or len(values) != len(order):
        raise _refused()
    names = [name.removeprefix("-") for name in order]
    return tuple(_value(model, name, value) for name, value in zip(names, values, strict=True))


def _digest(place: str, order: Sequence[str]) -> str:
    return blake2s(" ".join([place, *order]).encode(), digest_size=6).hexdigest()


def _value(model: type[Model], name: str, value: object) -> Any:
    field = model._meta.get_field(name)
    if isinstance(field, IntegerField):
        if type(value) is int and abs(value) <= BIGGEST_INTEGER:
            return value
    elif isinstance(value, str) and value == storable(value):
        if not isinstance(field, DateTimeField):
            return value
        at = _instant(value)
        if at is not None:
            return at
    raise _refused()


def _instant(text: str) -> datetime | None:
    try:
        at = parse_datetime(text)
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


def _refused() -> InvalidInput:
    return InvalidInput("cursor", "is not one that this list gave in this order")
