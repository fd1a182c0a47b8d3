"""Steps whose log cannot be written, as on a disk that is full."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from scale.steps.archive import build_zipapp


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "steps.pyz"
    path.write_bytes(build_zipapp())
    return path


def run_without_log(program: Path, work: Path, folder: Path) -> int:
    """Run a clean-up that can write neither to stdout nor to stderr; return its exit code."""
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, str(program), "cleanup", str(folder)],
            env={"SCALE_AGENT_WORK_DIR": str(work)},
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
            timeout=30,
            check=False,
        )
    return ended.returncode


def test_a_clean_up_makes_room_although_it_cannot_say_so(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work" / str(uuid.uuid4())
    (folder / "outputs").mkdir(parents=True)
    assert run_without_log(program, folder.parent, folder) == 0
    assert not folder.exists()


def test_a_clean_up_needs_no_log_at_all(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work" / str(uuid.uuid4())
    folder.mkdir(parents=True)
    line = f"exec {sys.executable} {program} cleanup {folder} >&- 2>&-"
    ended = subprocess.run(
        ["/bin/sh", "-c", line],
        env={"SCALE_AGENT_WORK_DIR": str(folder.parent)},
        stdin=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0
    assert not folder.exists()


def test_a_failure_keeps_its_exit_code_although_it_cannot_be_said(
    program: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work" / "not a work folder"
    folder.mkdir(parents=True)
    assert run_without_log(program, folder.parent, folder) == 2
    assert folder.exists()
