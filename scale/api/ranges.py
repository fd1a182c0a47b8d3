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


class FilePart:
    """The bytes `start` to `end` of an open file, in pieces; `close` closes the file."""

    def __init__(self, file: IO[bytes], start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        left = self._end - self._start
        while left > 0 and (chunk := self._file.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk

    def close(self) -> None:
        self._file.close()
