"""Which processes belong to a task: what is ending could be about to leave us its children."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

from scale.localmesos import tree
from scale.localmesos.children import Children

# Above every pid that Linux gives; 0 is what the session of one who entered a namespace looks like.
_ENDED_TASK = 2**22 + 1


def test_who_waits_for_the_end_of_a_task_looks_again_while_something_is_ending(
    tmp_path: Path,
) -> None:
    children = Children(SimpleNamespace(pid=-1))  # type: ignore[arg-type]
    lives = subprocess.Popen(["sleep", "60"])
    ends = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, ends.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        assert tree.is_ending(ends.pid)
        assert not tree.is_ending(lives.pid)
        members = children.members(_ENDED_TASK, str(tmp_path))
        assert ends.pid in members
        assert lives.pid not in members, "it is somebody else's"
    finally:
        lives.kill()
        lives.wait()
        ends.wait()
    assert not tree.is_ending(ends.pid)
