"""Names from elsewhere may only lead to files below one folder: no `..`, no links, no devices."""

from __future__ import annotations

import os
import stat
import unicodedata
from pathlib import Path

#: Limits of Linux (NAME_MAX, PATH_MAX), in bytes.
NAME_MAX = 255
PATH_MAX = 4095

# Control, surrogate (not UTF-8), line and paragraph separator.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def relative_parts(path: str) -> tuple[str, ...]:
    """Return the components of a path below a folder; raise ValueError with the reason if none."""
    if path.startswith("/"):
        raise ValueError("is absolute")
    parts = tuple(part for part in path.split("/") if part not in {"", "."})
    if not parts or path.endswith("/"):
        raise ValueError("names no file")
    if ".." in parts:
        raise ValueError("has a '..' in it")
    for part in parts:
        check_name(part)
    if len(os.fsencode("/".join(parts))) > PATH_MAX:
        raise ValueError(f"is longer than {PATH_MAX} bytes")
    return parts


def check_name(name: str) -> None:
    """Raise ValueError if one component of a path is nothing to store, show or log."""
    categories = {unicodedata.category(character) for character in name}
    if "Cs" in categories:
        raise ValueError("is not UTF-8")
    if categories & _REFUSED_CATEGORIES:
        raise ValueError("has a newline or another control character in it")
    if len(name.encode()) > NAME_MAX:
        raise ValueError(f"has a name longer than {NAME_MAX} bytes")


def open_inside(folder: Path, parts: tuple[str, ...]) -> int:
    """Open a regular file below `folder` for reading and return its descriptor.

    Each component is opened relative to the one before and none may be a link, so that nobody who
    renames things meanwhile leads us elsewhere. Nothing but a regular file is ever opened.

    Raises:
        ValueError: a component is a link, or the file is not a regular one; says which.
        FileNotFoundError, OSError: as the system says.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(str(folder), flags | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            _refuse_link(part, here)
            below = os.open(part, flags | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        _refuse_link(parts[-1], here)
        _refuse_special(os.stat(parts[-1], dir_fd=here, follow_symlinks=False))
        # Should a pipe have taken its place since, opening must not wait for a writer.
        opened = os.open(parts[-1], flags | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)
    try:
        _refuse_special(os.fstat(opened))
    except ValueError:
        os.close(opened)
        raise
    return opened


def _refuse_link(part: str, folder: int) -> None:
    if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
        raise ValueError("is or goes through a symbolic link")


def _refuse_special(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is a device, pipe or socket, not a regular file")
