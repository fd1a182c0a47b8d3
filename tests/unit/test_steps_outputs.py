"""Which files become which output, and which are refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scale.steps.errors import (
    InvalidOutputs,
    MissingRequiredOutput,
    StepError,
    UnexpectedMultipleOutputs,
)
from scale.steps.manifest import Manifest, NamedFile, NamedOutput
from scale.steps.orders import Output
from scale.steps.outputs import choose, effective_manifest, matches, merge


def declared(
    name: str = "out", *, several: bool = False, required: bool = True, pattern: str | None = None
) -> Output:
    return Output(name, several, required, pattern, None)


def said(name: str, *paths: str, several: bool = False) -> dict[str, NamedOutput]:
    return {name: NamedOutput(name, tuple(map(NamedFile, paths)), several)}


def printed(name: str, *paths: str) -> dict[str, NamedOutput]:
    files = tuple(map(NamedFile, paths))
    return {name: NamedOutput(name, files, several=True, source="an ARTIFACT line")}


def chosen(output: Output, named: dict[str, NamedOutput], folder: Path) -> list[str]:
    results = choose([output], named, folder)
    return ["/".join(file.parts) for result in results for file in result.files]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("count.txt", "count.txt", True),
        ("*.txt", "count.txt", True),
        ("*.txt", "deep/count.txt", False),
        ("*", "deep/count.txt", False),
        ("*/*.txt", "deep/count.txt", True),
        ("**/*.txt", "count.txt", True),
        ("**/*.txt", "a/b/count.txt", True),
        ("a/**", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("part-[0-9].csv", "part-7.csv", True),
        ("part-?.csv", "part-77.csv", False),
        ("*", ".hidden", False),
        ("**", ".cache/x", False),
        (".*", ".hidden", True),
        ("*.TXT", "a.txt", False),
    ],
)
def test_patterns_match_as_in_a_shell(pattern: str, path: str, *, expected: bool) -> None:
    assert matches(tuple(path.split("/")), tuple(pattern.split("/"))) is expected


def test_a_pattern_finds_files_in_order_with_their_sizes(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder.csv").mkdir()
    (result,) = choose([declared(several=True, pattern="*.csv")], {}, tmp_path)
    assert [(file.name, file.size) for file in result.files] == [("a.csv", 5), ("b.csv", 5)]


def test_the_manifest_itself_is_never_an_output(tmp_path: Path) -> None:
    (tmp_path / "results_manifest.json").write_text("{}")
    assert chosen(declared(required=False, pattern="*.json"), {}, tmp_path) == []


def test_what_the_job_says_wins_over_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.dat").touch()
    assert chosen(declared(pattern="*.txt"), said("out", "b.dat"), tmp_path) == ["b.dat"]


def test_a_pattern_is_not_looked_at_when_the_job_has_spoken(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("/etc/hosts")
    (tmp_path / "a.csv").touch()
    parts = declared(several=True, required=False, pattern="*.csv")
    assert chosen(parts, said("out", "a.csv", several=True), tmp_path) == ["a.csv"]
    assert chosen(parts, said("out", several=True), tmp_path) == []


def test_the_manifest_wins_over_artifact_lines_output_by_output() -> None:
    manifest = Manifest(outputs=tuple(said("a", "from-manifest").values()))
    merged = merge(manifest, {**printed("a", "printed"), **printed("b", "printed")})
    assert merged["a"].files == (NamedFile("from-manifest"),)
    assert merged["b"].files == (NamedFile("printed"),)


def test_an_output_that_is_not_declared_is_left_out_and_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose([declared(required=False)], said("other", "/etc/passwd"), tmp_path) == []
    assert "left out: 'other'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "named", "reason"),
    [
        (declared(), {}, "neither results_manifest.json nor an ARTIFACT line"),
        (declared(pattern="*.csv"), {}, r"no file matches '\*\.csv'"),
        (declared(several=True), said("out", several=True), "names no file for it"),
        (declared(), said("out", "nowhere.txt"), "there is no such file"),
    ],
)
def test_a_missing_required_output_is_named(
    output: Output, named: dict[str, NamedOutput], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(MissingRequiredOutput, match=f"'out'.*{reason}"):
        choose([output], named, tmp_path)


def test_an_optional_output_may_be_absent_but_not_invented(tmp_path: Path) -> None:
    optional = declared(required=False, pattern="*.csv")
    assert choose([optional], {}, tmp_path) == []
    with pytest.raises(InvalidOutputs, match="there is no such file"):
        choose([optional], said("out", "nowhere.txt"), tmp_path)


@pytest.mark.parametrize(
    ("output", "named"),
    [
        (declared(pattern="*"), {}),
        (declared(), printed("out", "a", "b")),
        (declared(), said("out", "a", "b", several=True)),
    ],
)
def test_several_files_for_one_are_refused(
    output: Output, named: dict[str, NamedOutput], tmp_path: Path
) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with pytest.raises(UnexpectedMultipleOutputs, match="'out' is one file, but there are 2"):
        choose([output], named, tmp_path)


@pytest.mark.parametrize(("several", "said_several"), [(True, False), (False, True)])
def test_the_manifest_must_use_file_for_a_file_and_files_for_files(
    tmp_path: Path, *, several: bool, said_several: bool
) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(InvalidOutputs, match="for output 'out', not"):
        choose([declared(several=several)], said("out", "a", several=said_several), tmp_path)


def test_an_absolute_path_in_the_outputs_folder_is_as_good_as_a_relative_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").touch()
    for path in (f"{tmp_path}/sub/a.txt", "sub/a.txt", "./sub//a.txt"):
        assert chosen(declared(), said("out", path), tmp_path) == ["sub/a.txt"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "is outside the outputs folder"),
        ("../secret", r"has a '\.\.' in it"),
        ("sub/../a", r"has a '\.\.' in it"),
        (".", "names no file"),
        ("sub/", "names no file"),
        ("sub", "is a folder"),
        ("two\nlines", "has a newline or another control character"),
        ("bell\x07", "has a newline or another control character"),
        ("line\u2028separator", "has a newline or another control character"),
        ("\udcff", "is not UTF-8"),
        ("x" * 256, "has a name longer than 255 bytes"),
        ("ä" * 128, "has a name longer than 255 bytes"),
        ("x" * 5000, "has a name longer than 255 bytes"),
        ("d/" * 2500 + "x", "is longer than 4095 bytes"),
        ("link", "is or goes through a symbolic link"),
        ("inner-link", "is or goes through a symbolic link"),
        ("linked-folder/hosts", "is or goes through a symbolic link"),
        ("pipe", "is a device, pipe or socket"),
    ],
    ids=lambda value: value[:20].encode("ascii", "replace").decode(),
)
def test_a_path_that_names_no_file_of_the_folder_is_refused(
    path: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc/hosts")
    (tmp_path / "inner-link").symlink_to("file")
    (tmp_path / "linked-folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidOutputs, match=f"for output 'out', which {reason}") as caught:
        choose([declared()], said("out", path), tmp_path)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda place: place.symlink_to("/etc/hosts"), "is a link that leaves the outputs folder"),
        (os.mkfifo, "is a device, pipe or socket"),
    ],
    ids=["link", "pipe"],
)
def test_a_pattern_that_matches_something_strange_is_refused(
    make: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    make(tmp_path / "x.csv")
    with pytest.raises(InvalidOutputs, match=f"output 'out': 'x.csv' {reason}"):
        choose([declared(pattern="*.csv")], {}, tmp_path)


@pytest.mark.parametrize("name", [b"two\nlines", b"\xff\xfe"])
def test_a_pattern_that_matches_a_strange_name_is_refused(name: bytes, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(name)).touch()
    with pytest.raises(InvalidOutputs, match="output 'out'"):
        choose([declared(several=True, pattern="*")], {}, tmp_path)


def test_a_link_within_the_folder_stands_for_its_file(tmp_path: Path) -> None:
    (tmp_path / "v2.txt").write_text("22")
    (tmp_path / "latest.csv").symlink_to("v2.txt")
    (tmp_path / "dangling.csv").symlink_to("nothing")
    (result,) = choose([declared(pattern="*.csv")], {}, tmp_path)
    assert [(file.name, file.parts, file.size) for file in result.files] == [
        ("latest.csv", ("v2.txt",), 2)
    ]


def test_a_linked_folder_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.csv").touch()
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(MissingRequiredOutput):
        choose([declared(pattern="**/*.csv")], {}, outputs)


def test_files_of_one_name_in_different_folders_are_stored_under_different_names(
    tmp_path: Path,
) -> None:
    for place in ("a/x.csv", "b/x.csv", "y.csv"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    (result,) = choose([declared(several=True, pattern="**/*.csv")], {}, tmp_path)
    assert [file.name for file in result.files] == ["a__x.csv", "b__x.csv", "y.csv"]


def test_the_same_file_twice_in_one_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(InvalidOutputs, match="the same file twice"):
        choose([declared(several=True)], said("out", "a", "./a", several=True), tmp_path)


def test_a_very_deep_folder_ends_in_a_sentence(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(StepError, match="nested too deeply"):
        choose([declared(pattern="**/*.csv")], {}, tmp_path)


def test_the_effective_manifest_says_what_was_found(tmp_path: Path) -> None:
    for name in ("one.txt", "p1", "p2"):
        (tmp_path / name).touch()
    geo = {"data_started": "2015-01-01T00:00:00Z"}
    named = {"one": NamedOutput("one", (NamedFile("one.txt", geo),), several=False)}
    outputs = [declared("one"), declared("more", several=True, pattern="p*")]
    results = choose(outputs, named, tmp_path)
    manifest = Manifest(parse_results=({"filename": "f"},), errors=("e",))
    assert effective_manifest(manifest, results) == {
        "version": "1.1",
        "output_data": [
            {"name": "one", "file": {"path": "one.txt", "geo_metadata": geo}},
            {"name": "more", "files": [{"path": "p1"}, {"path": "p2"}]},
        ],
        "errors": ["e"],
        "parse_results": [{"filename": "f"}],
    }
    assert effective_manifest(None, []) == {
        "version": "1.1",
        "output_data": [],
        "errors": [],
        "parse_results": [],
    }
