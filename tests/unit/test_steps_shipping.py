"""The program must run on agents with an old Python and nothing installed."""

import ast
import io
import sys
import zipfile
from pathlib import Path

import pytest

import scale.steps
from scale.steps.archive import build_zipapp

SOURCES = sorted(Path(scale.steps.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_module_has_the_syntax_of_python_3_8(source: Path) -> None:
    ast.parse(source.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_module_imports_its_neighbours_and_the_standard_library_only(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert (node.level, node.module and "." in node.module) == (1, False)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.module.partition(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.Import):
            for name in node.names:
                assert name.name.partition(".")[0] in sys.stdlib_module_names


def test_annotations_are_never_evaluated() -> None:
    for source in SOURCES:
        tree = ast.parse(source.read_text())
        has_code = any(not isinstance(node, ast.Expr) for node in tree.body)
        assert not has_code or "from __future__ import annotations" in source.read_text()


def test_the_same_sources_give_the_same_archive() -> None:
    assert build_zipapp() == build_zipapp()


def test_the_archive_holds_the_program_and_nothing_of_the_server() -> None:
    with zipfile.ZipFile(io.BytesIO(build_zipapp())) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        dates = {member.date_time for member in archive.infolist()}
    assert {"__main__.py", "steps/__init__.py", "steps/program.py"} <= set(names)
    assert "steps/archive.py" not in names
    assert dates == {(1980, 1, 1, 0, 0, 0)}
