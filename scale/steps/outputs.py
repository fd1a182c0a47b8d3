"""Decides which files are which output: the manifest, else ARTIFACT lines, else the pattern."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence, Tuple

from .errors import (
    InvalidOutputs,
    MissingRequiredOutput,
    StepError,
    UnexpectedMultipleOutputs,
    shown,
)
from .manifest import FILE_NAME, MAX_FILES, Manifest, NamedFile, NamedOutput
from .orders import Output
from .paths import PATH_MAX, check_name, open_inside, relative_parts
from .say import say

Parts = Tuple[str, ...]


@dataclass(frozen=True)
class Produced:
    """A file to take away. `name` is what it is stored under: unique within its output."""

    name: str
    parts: Parts
    size: int
    geo_metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Result:
    output: Output
    files: tuple[Produced, ...]


def choose(
    outputs: Sequence[Output], named: Mapping[str, NamedOutput], folder: Path
) -> list[Result]:
    """Return the files of each declared output that has some, in the order of declaration.

    `named` is what the job itself said, output name -> files; patterns are for the others.

    Raises:
        MissingRequiredOutput, UnexpectedMultipleOutputs
        InvalidOutputs: a file cannot be taken; names the output.
        OSError: the disk cannot be read.
    """
    trimmed = sorted(set(named) - {output.name for output in outputs})
    if trimmed:
        listed = ", ".join(shown(name, 60) for name in trimmed[:10])
        say(f"not declared in the job type's interface, so left out: {listed}")
    matched = _matches([output for output in outputs if output.name not in named], folder)
    results = []
    for output in outputs:
        files = _named_files(output, named.get(output.name), folder) or [
            _produced(output, parts, target, folder)
            for parts, target in sorted(matched.get(output.name, ()))
        ]
        _check_number(output, files, output.name in named)
        if files:
            results.append(Result(output, _with_names(output, files)))
    return results


def merge(
    manifest: Manifest | None, artifacts: Mapping[str, NamedOutput]
) -> dict[str, NamedOutput]:
    """Return output name -> files; the manifest wins."""
    of_manifest = {output.name: output for output in manifest.outputs} if manifest else {}
    return {**artifacts, **of_manifest}


def effective_manifest(manifest: Manifest | None, results: Iterable[Result]) -> dict[str, Any]:
    """Return what was found, in version 1.1 of the manifest, whoever found it."""
    said = manifest or Manifest()
    document = {
        "version": "1.1",
        "output_data": [_entry(result) for result in results],
        "errors": list(said.errors),
        "parse_results": list(said.parse_results),
    }
    return {**document, "info": list(said.info)} if said.info else document


def _entry(result: Result) -> dict[str, Any]:
    files = [
        {"path": "/".join(file.parts)}
        if file.geo_metadata is None
        else {"path": "/".join(file.parts), "geo_metadata": file.geo_metadata}
        for file in result.files
    ]
    if result.output.several:
        return {"name": result.output.name, "files": files}
    return {"name": result.output.name, "file": files[0]}


def _named_files(output: Output, named: NamedOutput | None, folder: Path) -> list[Produced]:
    if named is None:
        return []
    if not named.several and output.several:
        raise InvalidOutputs(
            f"{named.source} has a file for output {shown(output.name)}, not files"
        )
    if named.source == FILE_NAME and named.several and not output.several and len(named.files) < 2:
        raise InvalidOutputs(
            f"{named.source} has files for output {shown(output.name)}, not a file"
        )
    if not output.several and len(named.files) > 1:
        raise _too_many(output, [file.path for file in named.files])
    return [_named_file(output, named.source, file, folder) for file in named.files]


def _named_file(output: Output, source: str, file: NamedFile, folder: Path) -> Produced:
    what = f"{source} names {shown(file.path)} for output {shown(output.name)}"
    try:
        parts = relative_parts(below(folder, file.path))
        size = _size(folder, parts)
    except (FileNotFoundError, NotADirectoryError):
        kind = MissingRequiredOutput if output.required else InvalidOutputs
        raise kind(f"{what}, but there is no such file in the outputs folder") from None
    except ValueError as error:
        raise InvalidOutputs(f"{what}, which {error}") from None
    return Produced(parts[-1], parts, size, file.geo_metadata)


def below(folder: Path, path: str) -> str:
    """Return `path` relative to the outputs folder; raise ValueError if it leads elsewhere."""
    if not path.startswith("/"):
        return path
    for base in (str(folder), os.path.realpath(str(folder))):
        if path.startswith(f"{base}/"):
            return path[len(base) :].lstrip("/")
    raise ValueError("is outside the outputs folder")


def _size(folder: Path, parts: Parts) -> int:
    opened = open_inside(folder, parts)
    try:
        return os.fstat(opened).st_size
    finally:
        os.close(opened)


def _produced(output: Output, parts: Parts, target: Parts, folder: Path) -> Produced:
    """Return a matched file; `target` is where it is when `parts` is a link."""
    path = "/".join(parts)
    try:
        for part in parts:
            check_name(part)
        return Produced(parts[-1], target, _size(folder, target))
    except ValueError as error:
        raise InvalidOutputs(f"output {shown(output.name)}: {shown(path)} {error}") from None
    except FileNotFoundError:
        raise InvalidOutputs(
            f"output {shown(output.name)}: {shown(path)} went away while it was taken"
        ) from None


def _check_number(output: Output, files: Sequence[Produced], was_named: bool) -> None:
    if not files and output.required:
        raise _missing(output, was_named)
    if len(files) > 1 and not output.several:
        raise _too_many(output, ["/".join(file.parts) for file in files])


def _missing(output: Output, was_named: bool) -> StepError:
    how = "neither results_manifest.json nor an ARTIFACT line names a file for it"
    if was_named:
        how = "results_manifest.json names no file for it"
    elif output.pattern:
        how = f"no file matches {shown(output.pattern)}"
    return MissingRequiredOutput(f"required output {shown(output.name)} is missing: {how}")


def _too_many(output: Output, paths: Sequence[str]) -> StepError:
    listed = ", ".join(shown(path, 60) for path in paths[:3])
    return UnexpectedMultipleOutputs(
        f"output {shown(output.name)} is one file, but there are {len(paths)}: {listed}"
        + (", …" if len(paths) > 3 else "")
    )


def _with_names(output: Output, files: Sequence[Produced]) -> tuple[Produced, ...]:
    """Give files of the same name in different folders names that tell them apart."""
    count = Counter(file.name for file in files)
    named = [
        file
        if count[file.name] == 1
        else Produced("__".join(file.parts), file.parts, file.size, file.geo_metadata)
        for file in files
    ]
    names = {file.name for file in named}
    if len(names) < len(named):
        raise InvalidOutputs(f"output {shown(output.name)} has the same file twice")
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            what = f"output {shown(output.name)}: {shown(name)}"
            raise InvalidOutputs(f"{what} {error}") from None
    return tuple(named)


def matches(parts: Parts, pattern: Parts) -> bool:
    """Tell whether a path matches as in a shell: `*` stays in its folder, `**` is any folders.

    A name that begins with a dot is matched only by a pattern that does, too. Takes time that grows
    with the product of both lengths, whatever they are.
    """
    # reached[n]: the pattern so far matches the first n parts.
    reached = [True] + [False] * len(parts)
    for wanted in pattern:
        after = reached[:] if wanted == "**" else [False] * len(reached)
        for n, part in enumerate(parts):
            if wanted == "**":
                after[n + 1] |= after[n] and not part.startswith(".")
            elif reached[n]:
                after[n + 1] = _name_matches(part, wanted)
        reached = after
    return reached[-1]


def _name_matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _matches(outputs: Sequence[Output], folder: Path) -> dict[str, list[tuple[Parts, Parts]]]:
    """Return output name -> (path, where it really is) of the files that match its pattern.

    Links that stay in the outputs folder are followed to files, never to folders; the others are
    refused where they match, as are devices, pipes and sockets.
    """
    patterns = {
        output: tuple(part for part in output.pattern.split("/") if part not in {"", "."})
        for output in outputs
        if output.pattern
    }
    found: dict[str, list[tuple[Parts, Parts]]] = {}
    deep = any(len(pattern) > 1 for pattern in patterns.values())
    for parts, entry in _walk(folder, deep=deep) if patterns else ():
        for output, pattern in patterns.items():
            if not matches(parts, pattern):
                continue
            target = _target(entry, parts, folder, output)
            if target is not None:
                files = found.setdefault(output.name, [])
                files.append((parts, target))
                if len(files) > MAX_FILES:
                    raise InvalidOutputs(
                        f"output {shown(output.name)}: more than {MAX_FILES} files match"
                    )
    return found


def _target(entry: os.DirEntry[str], parts: Parts, folder: Path, output: Output) -> Parts | None:
    """Return the path of the file itself, or None if there is none behind the name."""
    if not entry.is_symlink():
        return parts
    real = Path(os.path.realpath(entry.path))
    root = Path(os.path.realpath(str(folder)))
    if root not in real.parents:
        path = "/".join(parts)
        raise InvalidOutputs(
            f"output {shown(output.name)}: {shown(path)} is a link that leaves the outputs folder"
        )
    return real.relative_to(root).parts if real.is_file() else None


def _walk(folder: Path, *, deep: bool) -> Iterator[tuple[Parts, os.DirEntry[str]]]:
    """Yield everything in the folder that is no folder itself, without recursion."""
    todo: list[Parts] = [()]
    while todo:
        here = todo.pop()
        with os.scandir(str(folder.joinpath(*here))) as entries:
            for entry in entries:
                parts = (*here, entry.name)
                if not entry.is_dir(follow_symlinks=False):
                    if parts != (FILE_NAME,):
                        yield parts, entry
                elif deep:
                    if len(os.fsencode("/".join(parts))) > PATH_MAX - 512:
                        raise InvalidOutputs("the outputs folder is nested too deeply")
                    todo.append(parts)
