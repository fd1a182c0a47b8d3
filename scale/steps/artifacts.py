"""Finds `ARTIFACT:<output name>:<path>` lines in what the job printed."""

from __future__ import annotations

import os
import stat
from itertools import chain
from pathlib import Path
from typing import Iterable, Iterator, Mapping

from .errors import InvalidOutputs
from .manifest import MAX_BYTES, MAX_FILES, NamedFile, NamedOutput
from .paths import PATH_MAX
from .say import say

BLOCK = 1024 * 1024
#: Longer lines cannot name a file: an output's name, two colons and a path.
MAX_LINE = PATH_MAX + 1024

_MARK = b"\nARTIFACT:"
SOURCE = "an ARTIFACT line"


def artifact_lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield what follows `ARTIFACT:` at the start of a line.

    Memory is bounded whatever was printed: only a line that starts so is ever kept, and dropped if
    it is longer than MAX_LINE bytes.
    """
    kept = b"\n"
    for block in chain(blocks, [b"\n"]):
        text = kept + block
        start = text.find(_MARK)
        while start >= 0:
            end = text.find(b"\n", start + 1)
            if end < 0:
                break
            if end - start <= MAX_LINE:
                line = text[start + len(_MARK) : end]
                yield line.rstrip(b"\r").decode("utf-8", "surrogateescape")
            start = text.find(_MARK, end)
        # Keep a line that has begun, or what may be the beginning of the mark.
        kept = text[start:] if 0 <= start >= len(text) - MAX_LINE else text[-len(_MARK) + 1 :]


def job_stdout(job_task_id: str, environ: Mapping[str, str]) -> Path | None:
    """Return where the job task's stdout is, seen from this task's sandbox.

    Both run on one agent: `…/executors/<task id>/runs/<container id>/stdout` (contract, section 7).
    """
    sandbox = environ.get("MESOS_DIRECTORY") or environ.get("MESOS_SANDBOX")
    if not sandbox:
        return None
    executors = Path(os.path.normpath(f"{sandbox}/../../.."))
    return executors / job_task_id / "runs" / "latest" / "stdout"


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield what the file holds now; a process that the job left behind may go on writing."""
    # The job could have put anything in the place of its stdout, also a pipe that blocks.
    opened = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(opened, "rb", buffering=0) as stream:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        left = status.st_size
        while left > 0:
            block = stream.read(min(left, BLOCK))
            if not block:
                return
            left -= len(block)
            yield block


def read_artifacts(path: Path | None) -> dict[str, NamedOutput]:
    """Return output name -> what the lines say; without a readable stdout, nothing.

    Raises InvalidOutputs if they say more than a manifest may.
    """
    if path is None:
        say("ARTIFACT lines are not read: this task's sandbox is not known")
        return {}
    # The inner dict is an ordered set: the same line may be printed many times.
    found: dict[str, dict[str, None]] = {}
    useless = count = size = 0
    try:
        for line in artifact_lines(_blocks(path)):
            name, _, file = line.partition(":")
            if not name or not file:
                useless += 1
            elif file not in found.setdefault(name, {}):
                found[name][file] = None
                count, size = count + 1, size + len(line)
                _refuse_excess(count, size)
    except OSError as error:
        say(f"ARTIFACT lines are not read: the job's stdout: {error.strerror or error}")
    if useless:
        say(f"{useless} ARTIFACT lines without a name and a path are ignored")
    return {
        name: NamedOutput(name, tuple(map(NamedFile, files)), several=True, source=SOURCE)
        for name, files in found.items()
    }


def _refuse_excess(count: int, size: int) -> None:
    if count > MAX_FILES or size > MAX_BYTES:
        most = f"{MAX_FILES} files, or {MAX_BYTES // 2**20} MiB of names"
        raise InvalidOutputs(f"the ARTIFACT lines in its stdout name more than {most}")
