"""The work folder of an execution: made empty before the job, removed after it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Callable, Mapping, Sequence

from .errors import BadUsage, FilesystemFailure, reason, shown
from .orders import UUID
from .say import say


def make_work_folder(folder: Path) -> None:
    """Make `folder` with empty `inputs` and `outputs`; what an earlier try left goes away.

    Only the agent's user can enter the work folder. Below it all is open, because the two folders
    are also mounted into containers, whose user may be another one.
    """
    if not remove_tree(folder):
        raise FilesystemFailure(f"what an earlier try left in {folder} cannot be removed")
    os.umask(0o077)
    try:
        folder.mkdir(parents=True)
        os.umask(0o022)
        (folder / "inputs").mkdir()
        (folder / "outputs").mkdir()
        (folder / "outputs").chmod(0o777)
    except OSError as error:
        raise FilesystemFailure(f"{folder} cannot be made: {reason(error)}") from None


def remove_tree(folder: Path) -> bool:
    """Remove `folder` and all in it, whatever a job did to it; return whether it is gone."""
    for attempt in (_remove, _remove_read_only, _remove_deep):
        if not os.path.lexists(str(folder)):
            break
        _attempt(attempt, folder)
    return not os.path.lexists(str(folder))


def _attempt(attempt: Callable[[Path], None], folder: Path) -> None:
    try:
        attempt(folder)
    except (OSError, RecursionError, subprocess.SubprocessError) as error:
        said = reason(error) if isinstance(error, OSError) else type(error).__name__
        say(f"removing {folder}: {said}")


def _remove(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink()
    else:
        shutil.rmtree(str(folder))


def _remove_read_only(folder: Path) -> None:
    """Open up folders that their owner may not change, then try again."""
    folder.chmod(stat.S_IRWXU)
    for here, names, _ in os.walk(str(folder)):
        for name in names:
            below = Path(here, name)
            if not below.is_symlink():
                below.chmod(stat.S_IRWXU)
    shutil.rmtree(str(folder))


def _remove_deep(folder: Path) -> None:
    """Python walks by recursion and keeps every level open; rm does not, so depth is no limit."""
    subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=True)


def clean_up(folders: Sequence[str], environ: Mapping[str, str]) -> None:
    """Remove work folders that other phases left behind; those that are gone already are fine.

    Raises:
        BadUsage: one of them is not a work folder; nothing was removed.
        FilesystemFailure: some could not be removed; the others are.
    """
    base = environ.get("SCALE_AGENT_WORK_DIR", "")
    if not base.startswith("/") or os.path.normpath(base) == "/":
        raise BadUsage("SCALE_AGENT_WORK_DIR must be an absolute path")
    paths = [_work_folder(folder, base) for folder in folders]
    left = [path for path in paths if not _removed(path)]
    if left:
        raise FilesystemFailure(f"{', '.join(map(str, left))} cannot be removed")


def _work_folder(folder: str, base: str) -> Path:
    parent, name = os.path.split(os.path.normpath(folder))
    if parent != os.path.normpath(base) or not UUID.fullmatch(name):
        raise BadUsage(f"{shown(folder)} is not a work folder in {base}")
    path = Path(parent, name)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise BadUsage(f"{shown(folder)} is not a folder")
    return path


def _removed(path: Path) -> bool:
    there = path.exists()
    gone = remove_tree(path)
    if gone:
        say(f"{path}: {'removed' if there else 'was gone already'}")
    return gone
