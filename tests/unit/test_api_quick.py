"""What is recognised as valid is what the serializer takes as it is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework import serializers

from scale.api import bodies
from scale.api.quick import certainly_valid

_TEXTS = st.one_of(
    st.text(max_size=3),
    st.sampled_from(["", " a", "a ", "a\nb", "a\0", "\ud800", "x" * 250, "x" * 251, "\xa0a", "é"]),
)
_NUMBERS = st.one_of(st.integers(), st.sampled_from([2**31 - 1, 2**31, -(2**31), 1.0, True, "1"]))
_ANYTHING = st.one_of(st.none(), st.booleans(), _TEXTS, _NUMBERS, st.lists(st.integers()))
_NAMES = st.one_of(
    _ANYTHING,
    st.fixed_dictionaries({"name": _TEXTS, "version": _TEXTS}),
    st.dictionaries(st.sampled_from(["name", "version", "x"]), _ANYTHING),
)
_JOBS = st.fixed_dictionaries(
    {},
    optional={
        "job_type": _NAMES,
        "job_type_id": st.one_of(_NUMBERS, _ANYTHING),
        "name": st.one_of(_TEXTS, _ANYTHING),
        "inputs": st.one_of(st.dictionaries(_TEXTS, _ANYTHING, max_size=2), _ANYTHING),
        "priority": st.one_of(_NUMBERS, _ANYTHING),
        "unknown": _ANYTHING,
    },
)


def _with_id(job: dict[str, Any]) -> dict[str, Any]:
    return {**{name: job[name] for name in job if name != "job_type"}, "job_type_id": 1}


@given(st.one_of(_JOBS, _JOBS.map(_with_id), _ANYTHING))
def test_what_is_recognised_is_what_the_serializer_makes_of_it(body: Any) -> None:
    if certainly_valid(bodies.JobBody)(body):
        reader = bodies.JobBody(data=body)
        assert reader.is_valid(), reader.errors
        assert reader.validated_data == body
        assert set(body) <= set(reader.fields)


@pytest.mark.parametrize(
    "body",
    [
        {"job_type_id": 1},
        {"job_type_id": 1, "name": "", "inputs": {"a": [1], "b": None}, "priority": -(2**31) + 1},
        {"job_type": {"name": "a", "version": "1"}, "name": "two words"},
    ],
)
def test_ordinary_jobs_are_recognised(body: dict[str, Any]) -> None:
    assert certainly_valid(bodies.JobBody)(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", each) for each in ("a\nb", " a", "a\xa0", "x" * 251, "a\0", "\ud800", 5, None)),
        *(("priority", each) for each in (2**31, -(2**31), True, 1.0, "1", None)),
        *(("inputs", each) for each in ([], None, "a")),
        *(("job_type_id", each) for each in ("1", True, 1.0, None)),
        ("job_type", {"name": "a", "version": "1"}),  # besides the id
        ("unknown", 1),
    ],
)
def test_what_the_serializer_refuses_or_changes_is_not_recognised(field: str, value: Any) -> None:
    assert not certainly_valid(bodies.JobBody)({"job_type_id": 1, field: value})


@pytest.mark.parametrize(
    "named", [{"name": "a"}, {"name": "", "version": "1"}, {"name": "a", "version": 1}, "a", None]
)
def test_a_name_that_is_none_is_not_recognised(named: Any) -> None:
    assert not certainly_valid(bodies.JobBody)({"job_type": named})
    if isinstance(named, dict):
        whole = {"name": "a", "version": "1", "more": 1}
        assert not certainly_valid(bodies.JobBody)({"job_type": whole})


class _Trimmed(bodies.Text):
    pass


class _WithDefault(serializers.Serializer[Any]):
    number = serializers.IntegerField(default=1)


class _WithOwnRule(serializers.Serializer[Any]):
    number = serializers.IntegerField()

    def validate_number(self, number: int) -> int:
        return number + 1


class _WithOwnReading(serializers.Serializer[Any]):
    number = serializers.IntegerField()

    def to_internal_value(self, data: Any) -> Any:
        return {"number": 2}


class _WithOwnField(serializers.Serializer[Any]):
    number = _Trimmed(max_length=3)


@pytest.mark.parametrize("kind", [_WithDefault, _WithOwnRule, _WithOwnReading, _WithOwnField])
@pytest.mark.parametrize("body", [{"number": 1}, {"number": "a"}])
def test_serializers_with_rules_of_their_own_judge_themselves(kind: Any, body: Any) -> None:
    assert not certainly_valid(kind)(body)
