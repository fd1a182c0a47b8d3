"""Outputs that the steps program may not read: the job made them so; its node is not to blame."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scale.steps.api import Api
from scale.steps.errors import InvalidOutputs
from scale.steps.limits import Limits
from scale.steps.orders import Orders, Output
from scale.steps.post import run_post

UUID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def work_dir() -> Iterator[Path]:
    """A work folder with an output, and a process without root's right to read everything."""
    with tempfile.TemporaryDirectory() as folder:
        nobody = 65534
        if os.geteuid() == 0:
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        try:
            work_dir = Path(folder, UUID)
            (work_dir / "outputs" / "sub").mkdir(parents=True)
            (work_dir / "outputs" / "sub" / "a.txt").write_text("x")
            yield work_dir
        finally:
            os.seteuid(os.getuid())


@pytest.mark.parametrize("closed", ["outputs/sub/a.txt", "outputs/sub", "outputs", "."])
def test_what_the_job_made_unreadable_is_its_own_fault(work_dir: Path, closed: str) -> None:
    (work_dir / closed).chmod(0)
    output = Output("o", several=True, required=True, pattern="**/*.txt", media_type=None)
    orders = Orders(work_dir, None, 10**6, (), (), (), (output,))
    api = Api("http://127.0.0.1:1", "token", UUID, Limits())
    with pytest.raises(InvalidOutputs, match="cannot be read: Permission denied"):
        run_post(api, orders, {})


def test_a_manifest_that_the_job_made_unreadable_is_its_own_fault(work_dir: Path) -> None:
    manifest = work_dir / "outputs" / "results_manifest.json"
    manifest.write_text("{}")
    manifest.chmod(0)
    orders = Orders(work_dir, None, 10**6, (), (), (), ())
    api = Api("http://127.0.0.1:1", "token", UUID, Limits())
    with pytest.raises(InvalidOutputs, match="cannot be read: Permission denied"):
        run_post(api, orders, {})
