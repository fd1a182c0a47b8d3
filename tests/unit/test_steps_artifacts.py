"""ARTIFACT lines in a job's stdout."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale.steps.artifacts import artifact_lines, job_stdout, read_artifacts
from scale.steps.errors import InvalidOutputs


def found(path: Path) -> dict[str, list[str]]:
    artifacts = read_artifacts(path)
    return {name: [file.path for file in output.files] for name, output in artifacts.items()}


def test_lines_are_found_at_the_start_of_lines_only(tmp_path: Path) -> None:
    stdout = tmp_path / "stdout"
    stdout.write_bytes(
        b"ARTIFACT:one:a.txt\nsome ARTIFACT:one:b.txt\nARTIFACT:my parts:/x/c:d\r\n"
        b"\x00\xff\xfe binary\nARTIFACT:my parts:e\nARTIFACT:my parts:e\nARTIFACT:last:z"
    )
    assert found(stdout) == {"one": ["a.txt"], "my parts": ["/x/c:d", "e"], "last": ["z"]}


def test_lines_without_name_or_path_are_ignored_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stdout = tmp_path / "stdout"
    stdout.write_text("ARTIFACT:\nARTIFACT:name\nARTIFACT::path\nARTIFACT:name:\n")
    assert found(stdout) == {}
    assert "4 ARTIFACT lines without a name and a path" in capsys.readouterr().out


@given(
    lines=st.lists(st.sampled_from([b"ARTIFACT:a:b", b"xARTIFACT:a:c", b"", b"\nART", b"-" * 30])),
    size=st.integers(1, 40),
)
def test_how_the_bytes_are_cut_into_blocks_does_not_matter(lines: list[bytes], size: int) -> None:
    text = b"\n".join(lines)
    blocks = [text[n : n + size] for n in range(0, len(text), size)]
    expected = [
        line.removeprefix(b"ARTIFACT:").decode()
        for line in text.split(b"\n")
        if line.startswith(b"ARTIFACT:")
    ]
    assert list(artifact_lines(blocks)) == expected


def test_an_endless_line_is_dropped_and_not_kept_in_memory() -> None:
    def blocks() -> Iterator[bytes]:
        yield b"ARTIFACT:a:"
        for _ in range(200):
            yield b"x" * 50_000
        yield b"\nARTIFACT:b:c\n"

    assert list(artifact_lines(blocks())) == ["b:c"]


def test_a_line_that_is_printed_again_and_again_hides_none_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scale.steps.artifacts.MAX_FILES", 2)
    stdout = tmp_path / "stdout"
    stdout.write_text("ARTIFACT:a:b\n" * 9 + "ARTIFACT:c:d\n")
    assert found(stdout) == {"a": ["b"], "c": ["d"]}


@pytest.mark.parametrize(("limit", "most"), [("MAX_FILES", 2), ("MAX_BYTES", 10)])
def test_more_files_than_a_manifest_may_name_are_refused_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(f"scale.steps.artifacts.{limit}", most)
    stdout = tmp_path / "stdout"
    stdout.write_text("".join(f"ARTIFACT:a:{name}\n" for name in ("b", "cc", "ddd")))
    with pytest.raises(InvalidOutputs, match="name more than"):
        found(stdout)


def test_a_stdout_that_is_a_pipe_or_a_link_or_missing_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hosts")
    for name in ("pipe", "link", "missing"):
        assert found(tmp_path / name) == {}
        assert "are not read" in capsys.readouterr().out
    assert read_artifacts(None) == {}


def test_the_jobs_stdout_is_beside_our_own_sandbox() -> None:
    ours = "/m/slaves/S/frameworks/F/executors/uuid.post.1/runs/container"
    expected = "/m/slaves/S/frameworks/F/executors/uuid.job.1/runs/latest/stdout"
    for environ in (
        {"MESOS_DIRECTORY": ours, "MESOS_SANDBOX": "/mnt/mesos/sandbox"},
        {"MESOS_SANDBOX": ours},
    ):
        assert str(job_stdout("uuid.job.1", environ)) == expected
    assert job_stdout("uuid.job.1", {}) is None
