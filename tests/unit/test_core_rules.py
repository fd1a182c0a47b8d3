"""What holds for scale.core as a whole: what it may import, and that its values are values."""

import ast
import dataclasses
import importlib
import inspect
import sys
from pathlib import Path

import pytest

import scale.core
from scale.core import errors
from scale.core.cluster import ALIVE, TaskState
from scale.core.errors import InvalidInput, ScaleError

CORE = sorted(Path(scale.core.__path__[0]).glob("*.py"))
# Clock, dice, environment, I/O: a decision must follow from its arguments alone.
WORLD = {"asyncio", "datetime", "io", "logging", "os", "pathlib", "random", "secrets", "socket"}
WORLD |= {"subprocess", "tempfile", "threading", "time", "urllib", "uuid"}
WORLD_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}


def modules() -> list[object]:
    return [importlib.import_module(f"scale.core.{path.stem}") for path in CORE]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_core_imports_only_itself_and_what_is_pure_of_the_standard_library(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        imported = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or "."]
        for name in imported:
            if not name.startswith("scale.core."):
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names - WORLD


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_core_touches_nothing_outside(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in WORLD_CALLS


def test_every_dataclass_of_core_is_frozen_and_has_slots() -> None:
    found = [
        kind
        for module in modules()
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if dataclasses.is_dataclass(kind)
    ]
    assert len(found) > 20
    for kind in found:
        assert vars(kind)["__dataclass_params__"].frozen, kind
        assert "__slots__" in vars(kind), kind


def test_every_error_of_ours_is_in_the_tree_with_a_code_of_its_own_and_a_sentence() -> None:
    ours = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    codes = [kind.code for kind in ours if issubclass(kind, ScaleError)]
    assert len(set(codes)) == len(codes) > 5
    assert errors.__doc__
    for kind in ours:
        assert kind.__doc__
        assert kind.__name__ in errors.__doc__


def test_an_invalid_input_names_its_field_and_why() -> None:
    error = InvalidInput("interface.input_data[0].name", "is not unique")
    assert (error.field, error.reason) == ("interface.input_data[0].name", "is not unique")
    assert str(error) == "interface.input_data[0].name: is not unique"


def test_the_states_of_a_task_are_those_of_mesos() -> None:
    assert {state.value for state in TaskState} == {f"TASK_{state.name}" for state in TaskState}
    assert {TaskState.RUNNING, TaskState.KILLING} <= ALIVE
    assert not {TaskState.FINISHED, TaskState.UNREACHABLE, TaskState.UNKNOWN} & ALIVE
