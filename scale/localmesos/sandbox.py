"""Folders of tasks: `slaves/<agent>/frameworks/<framework>/executors/<task>/runs/<container>`."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scale.localmesos.children import Owner

DISK_HEADROOM: Final = 0.1  # --gc_disk_headroom


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A task's folder, with its two output files open for appending."""

    directory: str
    stdout: int
    stderr: int

    def close(self) -> None:
        os.close(self.stdout)
        os.close(self.stderr)


def agent_root(work_dir: Path, agent_id: str) -> Path:
    return work_dir / "slaves" / agent_id


def executor_dir(root: Path, framework_id: str, executor_id: str) -> Path:
    return root / "frameworks" / framework_id / "executors" / executor_id


def create(root: Path, framework_id: str, task_id: str, container_id: str) -> str:
    """Make the folder of a run and point `latest` to it; about 50 microseconds on ext4."""
    runs = executor_dir(root, framework_id, task_id) / "runs"
    try:
        runs.mkdir(parents=True)
    except FileExistsError:
        (runs / "latest").unlink(missing_ok=True)
    directory = runs / container_id
    directory.mkdir(0o750)
    (runs / "latest").symlink_to(container_id)
    return str(directory)


def open_output(directory: str, owner: Owner | None) -> Sandbox:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    stdout = os.open(f"{directory}/stdout", flags, 0o644)
    stderr = os.open(f"{directory}/stderr", flags, 0o644)
    if owner is not None:
        for target in (directory, stdout, stderr):
            os.chown(target, owner.uid, owner.gid)
    return Sandbox(directory, stdout, stderr)


def _executor_dirs(root: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError), os.scandir(root / "frameworks") as frameworks:
        for framework in frameworks:
            with suppress(OSError), os.scandir(f"{framework.path}/executors") as executors:
                yield from executors


def allowed_age_s(gc_delay_s: float, path: Path) -> float:
    """Return how old a sandbox may get: less the fuller the disk is (docs/sandbox.md of Mesos)."""
    usage = shutil.disk_usage(path)
    return gc_delay_s * max(0.0, usage.free / usage.total - DISK_HEADROOM)


def collect(root: Path, gc_delay_s: float, is_live: Callable[[str, str], bool]) -> float | None:
    """Delete the sandboxes that are old enough; slow, runs in a thread.

    Args:
        is_live: (framework id, task id) -> the task still has a process or may get one.

    Returns:
        Seconds until the next one is old enough, None if nothing is left to delete.
    """
    age_s = allowed_age_s(gc_delay_s, root)
    soonest: float | None = None
    for entry in _executor_dirs(root):
        framework_id = Path(entry.path).parent.parent.name
        with suppress(FileNotFoundError):
            left = entry.stat(follow_symlinks=False).st_mtime + age_s - time.time()
            if is_live(framework_id, entry.name):
                continue
            if left <= 0:
                shutil.rmtree(entry.path, ignore_errors=True)
            elif soonest is None or left < soonest:
                soonest = left
    return soonest
