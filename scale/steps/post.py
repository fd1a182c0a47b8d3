"""The phase after the job: its outputs are checked, stored and reported, its folder removed."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from pathlib import Path
from typing import Any, Iterator, Mapping

from .api import Api
from .artifacts import job_stdout, read_artifacts
from .errors import FilesystemFailure, InvalidOutputs, reason, shown
from .folders import remove_tree
from .manifest import read_manifest
from .net import BLOCK
from .orders import Orders, Output
from .outputs import Produced, Result, choose, effective_manifest, merge
from .paths import open_inside
from .say import MIB, say


def run_post(api: Api, orders: Orders, environ: Mapping[str, str]) -> None:
    """Store the outputs, remove the work folder, report.

    Safe to repeat until the folder is removed: storing a file again replaces it. Nothing is stored
    before all outputs have been found and checked.
    """
    folder = orders.work_dir / "outputs"
    try:
        _require_folder(orders.work_dir, folder)
        manifest = read_manifest(folder)
        said = {output.name for output in manifest.outputs} if manifest else set()
        unsaid = [output for output in orders.outputs if output.name not in said]
        stdout = job_stdout(orders.job_task_id, environ) if orders.job_task_id else None
        artifacts = read_artifacts(stdout) if unsaid else {}
        results = choose(orders.outputs, merge(manifest, artifacts), folder)
    except PermissionError as error:
        # All of it was ours, so the job took the right to read it away, or ran as somebody else.
        raise InvalidOutputs(f"the outputs cannot be read: {reason(error)}") from None
    except OSError as error:
        raise FilesystemFailure(f"the outputs cannot be read: {reason(error)}") from None
    _refuse_excess(results, orders.max_output_bytes)
    stored = [_store(result, folder, api) for result in results]
    removed = remove_tree(orders.work_dir)
    say(f"{orders.work_dir} {'is removed' if removed else 'could not be removed'}")
    api.results(
        {
            "results_manifest": effective_manifest(manifest, results),
            "outputs": stored,
            "folder_removed": removed,
        }
    )


def _require_folder(work_dir: Path, folder: Path) -> None:
    if not work_dir.is_dir():
        raise FilesystemFailure(f"the work folder {work_dir} is gone, and the outputs with it")
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidOutputs("the job removed its outputs folder, or replaced it")


def _refuse_excess(results: list[Result], max_bytes: int) -> None:
    total = sum(file.size for result in results for file in result.files)
    if total > max_bytes:
        raise InvalidOutputs(
            f"the outputs have {total / MIB:.1f} MiB in all, {max_bytes / MIB:.1f} are allowed"
        )


def _store(result: Result, folder: Path, api: Api) -> dict[str, Any]:
    ids = [_store_file(file, result.output, folder, api) for file in result.files]
    named = {"file_ids": ids} if result.output.several else {"file_id": ids[0]}
    return {"name": result.output.name, **named}


def _store_file(file: Produced, output: Output, folder: Path, api: Api) -> int:
    summed = hashlib.sha256()
    for block in _content(file, output, folder):
        summed.update(block)
    guessed = mimetypes.guess_type(file.name)[0]
    file_id = api.upload(
        output.name,
        file.name,
        output.media_type or guessed or "application/octet-stream",
        file.size,
        summed.hexdigest(),
        lambda: _content(file, output, folder),
    )
    size = f"{file.size} bytes" if file.size < MIB else f"{file.size / MIB:.1f} MiB"
    say(f"output {output.name}: {file.name}, {size}, is stored as file {file_id}")
    return file_id


def _content(file: Produced, output: Output, folder: Path) -> Iterator[bytes]:
    """Yield exactly `file.size` bytes; raise if the file has more, fewer, or is another by now."""
    what = f"output {shown(output.name)}: {shown('/'.join(file.parts))}"
    changed = InvalidOutputs(f"{what} changed while it was stored; does the job still run?")
    try:
        opened = open_inside(folder, file.parts)
        with os.fdopen(opened, "rb", buffering=0) as content:
            left = file.size
            while left:
                block = content.read(min(left, BLOCK))
                if not block:
                    raise changed
                left -= len(block)
                yield block
            if os.fstat(opened).st_size != file.size:
                raise changed
    except ValueError:
        raise changed from None
    except FileNotFoundError:
        raise changed from None
    except OSError as error:
        raise FilesystemFailure(f"{what} cannot be read: {reason(error)}") from None
