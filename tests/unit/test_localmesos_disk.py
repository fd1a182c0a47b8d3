"""What a sandbox holds on disk, how often that is looked at, and how a limit is worded."""

import os
from pathlib import Path

import pytest

from scale.localmesos import run as runs
from scale.localmesos.disk import SHORTEST_S, next_look, sizes
from scale.localmesos.resources import Resources
from scale.localmesos.run import Run
from scale.localmesos.tasks import Launch

MIB = 1 << 20


def test_what_is_added_up_is_what_du_adds_up(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/file").write_bytes(b"x" * 3 * MIB)
    os.link(tmp_path / "deep/er/file", tmp_path / "again")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    (tmp_path / "outside").symlink_to("/usr")
    # Folders have blocks of their own on some file systems.
    assert 3 * MIB <= sum(sizes(str(tmp_path))) < 3 * MIB + 64 * 1024


def test_what_is_gone_or_closed_is_left_out(tmp_path: Path) -> None:
    assert sum(sizes(str(tmp_path / "gone"))) == 0


@pytest.mark.parametrize(
    ("room", "rate", "waited_s", "expected"),
    [
        (100 * MIB, 50 * MIB, 0.5, 2.0),  # it would be full in two seconds
        (MIB, 100 * MIB, 0.5, SHORTEST_S),
        (1 << 40, 1.0, 0.5, 15.0),
        (MIB, 0, 1.0, 2.0),  # it does not grow
        (MIB, -5.0, 1.0, 2.0),  # it shrinks
        (0, 0, 10.0, 15.0),
    ],
)
def test_a_sandbox_is_looked_at_before_it_can_be_full(
    room: int, rate: float, waited_s: float, expected: float
) -> None:
    assert next_look(room, rate, waited_s, 15.0) == expected


def test_a_limit_is_told_in_the_words_of_mesos() -> None:
    """As the sample says it: mesos-samples, stream-limits."""
    info = {"task_id": {"value": "t"}}
    asked = Resources({"disk": 10_000})
    run = Run(Launch("f", "a", info, "*", "root", True, False, asked), "c")
    told = runs.over_disk(run, 48840 << 10)
    assert told.message == "Disk usage (48840KB) exceeds quota (10MB)"
    assert told.reason == "REASON_CONTAINER_LIMITATION_DISK"
    assert told.limitation[0]["scalar"]["value"] == 10.0
