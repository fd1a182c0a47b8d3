"""Parts of files: which bytes of how many (RFC 9110, section 14)."""

import re
from collections.abc import Iterator
from typing import IO, Final

from scale.api.errors import RangeNotSatisfiable

_ONE_RANGE: Final = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*\Z", re.ASCII)
_CHUNK_BYTES: Final = 256 * 1024


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one after the last; None means all of it.

    Several ranges, and what is no range, are answered with everything, as the RFC allows.
    Raises RangeNotSatisfiable if nothing of the range exists.
    """
    match = _ONE_RANGE.match(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise RangeNotSatisfiable(size)
    return start, end


def read_range(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """Read bytes `start` to `end` of an open file, then close it; memory stays small."""
    with file:
        file.seek(start)
        left = end - start
        while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
