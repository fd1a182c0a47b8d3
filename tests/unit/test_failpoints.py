"""Fail points kill the process where a test says, and nowhere else; never outside tests."""

import os
import signal
import subprocess
import sys

import pytest

from scale.failpoints import FailPoint, fail_point, read_fail_point

CHECKED = {"SCALE_SECRET_KEY": "k", "DATABASE_URL": "postgresql:///none?host=/nonexistent"}


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("SCALE_")}
    return subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**clean, **CHECKED, "DJANGO_SETTINGS_MODULE": "scale.settings", **variables},
        capture_output=True,
        text=True,
    )


def test_a_fail_point_outside_tests_is_refused_by_name() -> None:
    refused = run("import scale.settings", SCALE_FAIL_POINT="before-accept")
    assert refused.returncode == 1
    assert "SCALE_FAIL_POINT: kills the process" in refused.stderr
    assert "SCALE_TESTING" in refused.stderr


def test_the_process_ends_at_the_nth_time_and_at_no_other_point() -> None:
    program = (
        "from scale.failpoints import fail_point\n"
        "fail_point('after-accept'); fail_point('before-accept'); print('once', flush=True)\n"
        "fail_point('before-accept'); print('survived')"
    )
    ended = run(program, SCALE_FAIL_POINT="before-accept:2", SCALE_TESTING="true")
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "once\n")


def test_without_the_setting_nothing_happens() -> None:
    fail_point("before-accept")


@pytest.mark.parametrize("text", ["elsewhere", "before-accept:0", "before-accept:x", ":1"])
def test_what_is_no_fail_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        read_fail_point(text)


def test_a_fail_point_is_read_with_its_count() -> None:
    assert read_fail_point("in-recovery") == FailPoint("in-recovery", 1)
    assert read_fail_point("in-recovery:3") == FailPoint("in-recovery", 3)
