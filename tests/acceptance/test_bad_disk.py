"""Jobs that fill a disk: their sandbox, or the file system on which all executions work."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, running_stack, until

WORDS = {"input_data": [{"name": "text", "type": "file"}]}
SMALL_MIB = 48


@pytest.mark.parametrize(
    "fills",
    [
        "cat /dev/zero > big",
        "cat /dev/zero",
        "mkdir a; while :; do head -c 99999 /dev/zero; done >> a/b",
    ],
    ids=["by a file", "by what it prints", "bit by bit, in a folder"],
)
def test_a_job_that_fills_its_sandbox_is_ended_and_told_how_much(stack: Stack, fills: str) -> None:
    # It stops by itself before it does harm, should nobody stop it.
    script = f"ulimit -f 4000000; {fills}; exec sleep 600"
    greedy = stack.submit(stack.job_type("sh", f"-c '{script}'", disk_out_const_required=20))
    beside = stack.submit(stack.job_type("sh", "-c 'sleep 1; echo calm > here'"))
    details = stack.ended(greedy)
    assert (details["status"], details["error"]["name"]) == ("FAILED", "disk-limit")
    assert details["exe_num"] == 1, "errors of the algorithm are not tried again"
    assert details["error_message"].startswith("Disk usage (")
    assert details["error_message"].endswith(") exceeds quota (20MB)")
    assert stack.ended(beside)["status"] == "COMPLETED"


def test_what_is_within_its_disk_is_left_alone(stack: Stack) -> None:
    script = "head -c 15000000 /dev/zero > big; sleep 2; truncate -s 1T big; sleep 1; rm big"
    quiet = stack.submit(stack.job_type("sh", f"-c '{script}'", disk_out_const_required=20))
    assert stack.ended(quiet)["status"] == "COMPLETED"


def with_small_work_folder(home: Path) -> tuple[str, ...]:
    """Return the words before a command that give it a work folder of its own, easily filled."""
    (home / "work").mkdir(parents=True)
    mount = f'mount -t tmpfs -o size={SMALL_MIB}m none "$0" && exec "$@"'
    return "unshare", "--mount", "sh", "-c", mount, str(home / "work")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    words = with_small_work_folder(tmp_path_factory.mktemp("probe"))
    if os.geteuid() != 0 or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    home = tmp_path_factory.mktemp("home", numbered=True)
    with running_stack(home, before=with_small_work_folder(home)) as started:
        yield started


def on_file(stack: Stack, script: str, **more: Any) -> int:
    """Submit a job of three phases, which works in the work folder."""
    job_type = stack.job_type(
        "sh", f"-c '{script}'", interface=WORDS, timeout=60, max_tries=2, **more
    )
    return stack.submit(job_type, text={"file_id": stack.upload("words.txt", b"some words\n")})


def test_a_full_work_folder_fails_who_needs_it_and_nobody_else(small: Stack) -> None:
    # The job that fills it: the command hears of it, and its own exit code says what that means.
    fill = f'head -c {2 * SMALL_MIB}M /dev/zero > "$SCALE_OUTPUT_DIR/big"'
    details = small.ended(on_file(small, fill))
    assert (details["status"], details["error"]["name"]) == ("FAILED", "algorithm-unknown")
    assert (
        "No space left on device" in small.get(f"/job-executions/{details['id']}/logs/")["stderr"]
    )
    until(lambda: removed(small, details))

    # While another keeps it full: inputs have no room, which is the node's fault and tried again.
    full = on_file(small, f"{fill}; echo full; exec sleep 600")
    log = f"/job-executions/{small.last_execution(full)['id']}/logs/stdout/"
    until(lambda: b"full\n" in small.call("GET", log).body)
    starved = small.ended(on_file(small, "true"))
    assert (starved["status"], starved["error"]["name"]) == ("FAILED", "filesystem-io")
    assert (starved["phase"], starved["exe_num"]) == ("pre", 2)
    assert "does not fit: it has 1 MiB, the agent's disk room for 0" in starved["error_message"]
    assert small.ended(small.submit(small.job_type("true")))["status"] == "COMPLETED"

    # And when that is gone, all is as before.
    assert small.call("PATCH", f"/jobs/{full}/", {"status": "CANCELED"}).status == 200
    ended = small.ended(full)
    assert ended["status"] == "CANCELED"
    until(lambda: removed(small, ended))
    assert small.ended(on_file(small, "true"))["status"] == "COMPLETED"


def removed(stack: Stack, execution: dict[str, Any]) -> bool:
    """Ask where the stack is: nobody else sees its work folder."""
    return not Path(f"/proc/{stack.pid}/root{stack.work_folder(execution)}").exists()
