"""results_manifest.json: what is read, and what is refused with which sentence."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from scale.steps.errors import InvalidOutputs
from scale.steps.manifest import (
    MAX_BYTES,
    NamedFile,
    NamedOutput,
    parse_manifest,
    read_manifest,
)


def parsed(document: Any) -> Any:
    return parse_manifest(json.dumps(document).encode())


def test_version_1_1_names_a_file_and_files_with_their_metadata() -> None:
    geo = {"data_started": "2015-01-01T00:00:00Z", "geo_json": {"type": "Point"}}
    manifest = parsed(
        {
            "version": "1.1",
            "output_data": [
                {"name": "one", "file": {"path": "a.txt", "geo_metadata": geo}},
                {"name": "more", "files": [{"path": "b"}, {"path": "c"}]},
            ],
            "parse_results": [{"filename": "in.txt", "data_types": ["x"]}],
            "errors": ["late"],
        }
    )
    assert manifest.outputs == (
        NamedOutput("one", (NamedFile("a.txt", geo),), several=False),
        NamedOutput("more", (NamedFile("b"), NamedFile("c")), several=True),
    )
    assert manifest.parse_results == ({"filename": "in.txt", "data_types": ["x"]},)
    assert manifest.errors == ("late",)


def test_version_1_0_is_converted() -> None:
    manifest = parsed(
        {
            "version": "1.0",
            "files": [{"name": "one", "path": "a"}, {"name": "more", "paths": ["b", "c"]}],
        }
    )
    assert manifest.outputs == (
        NamedOutput("one", (NamedFile("a"),), several=False),
        NamedOutput("more", (NamedFile("b"), NamedFile("c")), several=True),
    )


def test_everything_may_be_left_out() -> None:
    assert parsed({}).outputs == ()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{'name': 1}", r"is not JSON: .*line 1, column 2"),
        (b"", "is not JSON"),
        (b'{"errors": ["\xff"]}', "is not UTF-8"),
        (b"[" * 500_000, "is nested too deeply"),
        (b'{"errors": ' + b"[" * 200 + b"]" * 200 + b"}", "is nested too deeply"),
        (b'{"errors": [NaN]}', "has NaN, which is no number"),
        (b'{"errors": [1e999]}', "has 1e999, which is no number"),
        (b'{"errors": [' + b"9" * 100_000 + b"]}", "has a number of 100000 digits"),
        (b'{"errors": ["\\u0000"]}', "has a text that cannot be stored"),
        (b'{"errors": [{"\\udc80": 1}]}', "has a text that cannot be stored"),
        (b" " * (MAX_BYTES + 1), "is larger than 10 MiB"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_not_storable_json_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidOutputs, match=f"^results_manifest.json {sentence}"):
        parse_manifest(content)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([], "is not a JSON object"),
        ({"version": "2.0"}, "has a version other than"),
        ({"version": 1.1}, "has a version other than"),
        ({"outputs": []}, "has the unknown key 'outputs'"),
        ({"version": "1.0", "output_data": []}, "has the unknown key 'output_data'"),
        ({"output_data": {}}, "has a output_data that is not an array"),
        ({"output_data": ["a"]}, r"has no name in output_data\[0\]"),
        ({"output_data": [{"name": ""}]}, r"has no name in output_data\[0\]"),
        ({"output_data": [{"name": "a"}]}, "must have exactly one of file and files"),
        (
            {"output_data": [{"name": "a", "file": {"path": "x"}, "files": []}]},
            "must have exactly one of file and files",
        ),
        ({"output_data": [{"name": "a", "file": {}}]}, r"has no path in output_data\[0\].file"),
        ({"output_data": [{"name": "a", "file": {"path": 7}}]}, "has no path in"),
        ({"output_data": [{"name": "a", "files": "x"}]}, "has files that are not an array"),
        ({"output_data": [{"name": "a", "files": ["x"]}]}, r"has no path in .*files\[0\]"),
        (
            {"output_data": [{"name": "a", "file": {"path": "x", "geo_metadata": 1}}]},
            "has a geo_metadata that is not an object",
        ),
        (
            {"output_data": [{"name": "a", "files": []}, {"name": "a", "files": []}]},
            "names output 'a' twice",
        ),
        ({"output_data": [{"name": "a", "files": [{"path": "x"}] * 100_001}]}, "names more than"),
        ({"version": "1.0", "files": [{"name": "a"}]}, "must have exactly one of path and paths"),
        ({"version": "1.0", "files": [{"name": "a", "paths": [1]}]}, "has paths that are not"),
        ({"parse_results": [{}]}, r"has no filename in parse_results\[0\]"),
        ({"errors": "none"}, "has a errors that is not an array"),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_a_wrong_shape_is_refused_with_its_place(document: Any, sentence: str) -> None:
    with pytest.raises(InvalidOutputs, match=f"^results_manifest.json {sentence}"):
        parsed(document)


def test_no_manifest_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


def test_a_manifest_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("{}")
    (tmp_path / "results_manifest.json").symlink_to("elsewhere")
    with pytest.raises(InvalidOutputs, match="symbolic link"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results_manifest.json")
    with pytest.raises(InvalidOutputs, match="pipe"):
        read_manifest(tmp_path)


def test_a_manifest_of_50_mib_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "results_manifest.json").open("wb") as file:
        file.truncate(50 * 2**20)
    with pytest.raises(InvalidOutputs, match="larger than 10 MiB"):
        read_manifest(tmp_path)
