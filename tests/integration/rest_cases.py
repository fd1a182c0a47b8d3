"""Cases of the REST catalogue: one for each line, run against a world that the test has made."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from rest_framework.test import APIClient

World = SimpleNamespace
Look = Callable[[Any, World], object]


@dataclass(frozen=True)
class Step:
    """One request of a case; `{}` in the path and texts of the body are filled from the world."""

    call: str
    status: int = 200
    body: Any = None
    look: Look | None = None

    def run(self, api: APIClient, world: World) -> None:
        method, path = self.call.format(w=world).split(" ", 1)
        body = _filled(self.body, world)
        answer = getattr(api, method.lower())(path, body, format="json")
        assert answer.status_code == self.status, (self.call, answer.content)
        if self.status >= 400:
            assert answer.json().keys() & {"detail", "timestamp"}, self.call
        if self.look is not None:
            found = answer.json()
            headers = {"location": answer.headers.get("Location")}
            assert self.look(SimpleNamespace(body=found, **headers), world), (self.call, found)


@dataclass(frozen=True)
class Case:
    """A line of the catalogue. `differs` is why we do on purpose something else than it says."""

    line: str
    steps: tuple[Step, ...]
    differs: str = ""


def case(line: str, *steps: Step, differs: str = "") -> Case:
    return Case(line, steps, differs)


def lines(cases: Iterable[Case]) -> list[Any]:
    """Return the parameters of a test over cases, whose ids are the names of the lines."""
    return [pytest.param(each, id=each.line) for each in cases]


def _filled(body: Any, world: World) -> Any:
    """Return a body with the values of the world where it names them by a callable."""
    if callable(body):
        return body(world)
    if isinstance(body, Mapping):
        return {name: _filled(value, world) for name, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, world) for value in body]
    return body


def counts(number: int) -> Look:
    """Look for so many in a list."""
    return lambda answer, _: answer.body["count"] == len(answer.body["results"]) == number


def says(detail: str) -> Look:
    """Look for a message that is part of the contract."""
    return lambda answer, _: answer.body["detail"] == detail


def blames(field: str) -> Look:
    """Look for the name of what is wrong."""
    return lambda answer, _: answer.body["field"] == field
