"""Executions in many states to list, and how tests read the lists."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import JobExecution

Make = Callable[..., Any]
NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_STATES: Final = (
    (State.QUEUED, "unknown"),
    (State.RUNNING, "unknown"),
    (State.FAILED, "algorithm-unknown"),
    (State.COMPLETED, "unknown"),
    (State.CANCELED, "unknown"),
    (State.FAILED, "missing-file"),
    (State.COMPLETED, "unknown"),
    (State.HOLDING, "unknown"),
    (State.FAILED, "algorithm-unknown"),
)


def executions_in_many_states(
    make_job_type: Make, make_execution: Make, make_node: Make
) -> list[JobExecution]:
    """Make them hours apart, two at a time at the same moment."""
    nodes = [make_node(), make_node()]
    types = [
        make_job_type(category=category, title=title)
        for category, title in (("images", "b"), ("texts", "a"), (None, None))
    ]
    made = []
    for number, (state, error) in enumerate(_STATES):
        at = NOON + timedelta(minutes=50 * (number // 2))
        kind = None if state is State.HOLDING else types[number % 3]  # one with steps
        node = nodes[number % 2]
        made.append(make_execution(state, job_type=kind, node=node, error=error, at=at))
    return made


def get(api: APIClient, address: str, **parameters: Any) -> dict[str, Any]:
    answer = api.get(f"{address}?{urlencode(parameters, doseq=True)}")
    assert answer.status_code == 200, (address, parameters, answer.content)
    found: dict[str, Any] = answer.json()
    return found


def ids_of(found: Mapping[str, Any]) -> list[int]:
    return [each["id"] for each in found["results"]]
