"""Recognises bodies that a serializer is certain to take as they are, many times faster than it.

The rules are those of the serializer's own fields: here are no others, and no messages. What is not
recognised is for the serializer to judge.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeGuard, cast

from rest_framework import serializers
from rest_framework.fields import CharField, DictField, Field, _UnvalidatedField, empty

from scale.api.bodies import JobTypeName, Text, Whole

_Check = Callable[[Any], bool]


def certainly_valid(kind: type[serializers.BaseSerializer[Any]]) -> _Check:
    """Return what tells whether a serializer of this class takes a body, and leaves it as it is.

    It may say no to what is valid; it never says yes to what is not.
    """
    return _check_of_kind(cast("Any", kind))


@cache
def _check_of_kind(kind: Any) -> _Check:
    serializer = kind()
    if not _reads_as_usual(serializer):
        return _no
    checks = {name: _check_of(field) for name, field in serializer.fields.items()}
    required = {name for name, field in serializer.fields.items() if field.required}
    validate = serializer.validate

    def check(data: Any) -> bool:
        if type(data) is not dict or not required <= data.keys():
            return False
        for name, value in data.items():
            known = checks.get(name)
            if known is None or not known(value):
                return False
        try:
            return bool(validate(data) == data)
        except serializers.ValidationError:
            return False

    return check


#: JobTypeName refuses unknown fields besides, and so do we.
_USUAL: Final = (serializers.Serializer.to_internal_value, JobTypeName.to_internal_value)


def _reads_as_usual(
    serializer: serializers.BaseSerializer[Any],
) -> TypeGuard[serializers.Serializer[Any]]:
    return type(serializer).to_internal_value in _USUAL and not serializer.validators


def _check_of(field: Field[Any, Any, Any, Any]) -> _Check:
    """Return a check for the values of a field; one that says no if there is none."""
    ordinary = field.source == field.field_name and not field.read_only
    own = getattr(field.parent, f"validate_{field.field_name}", None)
    if not ordinary or own is not None or field.default is not empty:
        return _no
    if isinstance(field, serializers.Serializer):
        return certainly_valid(type(field))
    make = _CHECKS.get(type(field), lambda _field: _no)
    return make(field)


def _no(_value: Any) -> bool:
    return False


def _text(field: CharField) -> _Check:
    longest, blank = field.max_length or sys.maxsize, field.allow_blank
    if field.min_length is not None:
        return _no

    def check(value: Any) -> bool:
        # What is printable has neither NUL nor lone surrogates.
        return (
            type(value) is str
            and len(value) <= longest
            and value.isprintable()
            and value.strip() == value
            and (blank or value != "")
        )

    return check


def _whole(field: Whole) -> _Check:
    least, most = field.min_value, field.max_value

    def check(value: Any) -> bool:
        return (
            type(value) is int
            and (least is None or value >= least)
            and (most is None or value <= most)
        )

    return check


def _any_dict(field: DictField) -> _Check:
    if type(field.child) is not _UnvalidatedField or not field.allow_empty:
        return _no
    return lambda value: type(value) is dict


_CHECKS: Final[Mapping[type, Callable[[Any], _Check]]] = {
    Text: _text,
    Whole: _whole,
    DictField: _any_dict,
}
