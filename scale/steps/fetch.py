"""Brings one input into the work folder: from the web, from Scale, or from the agent itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterator, Optional, Tuple
from urllib.parse import unquote, urljoin, urlsplit

from .api import Api
from .errors import (
    ApiUnreachable,
    FilesystemFailure,
    ForbiddenInput,
    MissingFile,
    PullFailed,
    StepError,
    reason,
    shown,
)
from .limits import Limits
from .net import (
    BLOCK,
    TRANSIENT_STATUS,
    Answer,
    ForbiddenAddress,
    NetError,
    Target,
    exchange,
    parse_target,
)
from .orders import Input, Orders
from .retry import patiently
from .say import MIB, Progress

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: What inputs leave free on the agent's disk, where others work, too: a share, at most so much.
RESERVED_SHARE = 0.05
RESERVED_BYTES = 1024 * MIB
#: How much is written between two looks at the disk.
LOOK_BYTES = 32 * MIB

#: The size, as far as it is known, and the content.
Opened = Tuple[Optional[int], Iterator[bytes]]


@dataclass(frozen=True)
class Source:
    """Where inputs come from, and by which rules."""

    api: Api
    orders: Orders
    limits: Limits


def fetch(item: Input, source: Source) -> None:
    """Write the input to its place; it appears there whole and checked, or not at all.

    Raises:
        PullFailed, MissingFile, ForbiddenInput, FilesystemFailure, ApiUnreachable
    """
    what = f"input {shown(item.name)}"
    limits = source.limits
    tries = limits.api_tries if item.stored else limits.tries
    try:
        patiently(
            lambda: _bring_once(item, source),
            what,
            tries=tries,
            backoff_s=limits.backoff_s,
        )
    except ForbiddenAddress as error:
        raise ForbiddenInput(f"{what}: {error}") from None
    except NetError as error:
        kind = ApiUnreachable if item.stored else PullFailed
        raise kind(f"{what}: {_place(item)}: {error}") from None


def _bring_once(item: Input, source: Source) -> None:
    folder = source.orders.work_dir
    part = folder / ".part"
    opening = _copy if urlsplit(item.uri).scheme.lower() == "file" else _download
    try:
        with opening(item, source) as (length, blocks):
            total = length if item.size is None else item.size
            with contextlib.closing(Arriving(part, item, total, source.limits)) as arriving:
                for block in blocks:
                    arriving.write(block)
        arriving.check()
    except BaseException:
        # It may have filled the disk; others need not wait for the clean-up.
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    place = folder.joinpath(*item.path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
    except OSError as error:
        raise FilesystemFailure(f"input {shown(item.name)}: {reason(error)}") from None


class Arriving:
    """A file under its temporary name, counted and summed while it is written."""

    def __init__(self, part: Path, item: Input, total: int | None, limits: Limits) -> None:
        self._item = item
        self._total = total
        self._sum = hashlib.sha256() if item.sha256 else None
        self._size = 0
        self._look_at = LOOK_BYTES
        self._folder = part.parent
        self._progress = Progress("/".join(item.path), limits.progress_s)
        with self._disk():
            self._file = part.open("wb")

    def write(self, block: bytes) -> None:
        expected = self._item.size
        self._size += len(block)
        if expected is not None and self._size > expected:
            raise self._wrong(f"more than the expected {expected} bytes arrived")
        with self._disk():
            self._file.write(block)
            if self._size >= self._look_at:
                self._look_at += LOOK_BYTES
                self._leave_room()
        if self._sum:
            self._sum.update(block)
        self._progress.add(len(block), self._total)

    def check(self) -> None:
        """Raise PullFailed unless size and checksum are what was ordered."""
        item = self._item
        if item.size is not None and self._size != item.size:
            raise self._wrong(f"{item.size} bytes were expected, {self._size} arrived")
        if self._sum and self._sum.hexdigest() != item.sha256:
            raise self._wrong("its SHA-256 sum is not the expected one")
        self._progress.finish()

    def close(self) -> None:
        with self._disk():
            self._file.close()

    def _leave_room(self) -> None:
        """Nothing promised how much comes: stop before there is no room for anybody."""
        if room_on(self._folder) <= 0:
            size = f"it has more than {self._size / MIB:.0f} MiB"
            raise _too_large(
                self._item, self._folder, f"{size}, and the agent's disk is nearly full"
            )

    def _wrong(self, how: str) -> PullFailed:
        return PullFailed(f"input {shown(self._item.name)}: {_place(self._item)}: {how}")

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"input {shown(self._item.name)} cannot be written: {reason(error)}"
            raise FilesystemFailure(message) from None


def room_on(folder: Path) -> int:
    """Return how many bytes inputs may still take of the folder's disk; raises OSError."""
    usage = shutil.disk_usage(str(folder))
    return usage.free - _reserve(usage.total)


def _reserve(total: int) -> int:
    return min(int(total * RESERVED_SHARE), RESERVED_BYTES)


def _too_large(item: Input, folder: Path, how: str) -> StepError:
    """Say that an input does not fit; the disk is to blame only if it was nearly full without us.

    A few that lie about their size, or have none, would else have good nodes set aside.
    """
    usage = shutil.disk_usage(str(folder))
    ours = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    was_full = usage.free + ours < 2 * _reserve(usage.total)
    kind = FilesystemFailure if was_full else PullFailed
    return kind(f"input {shown(item.name)} does not fit: {how}")


@contextlib.contextmanager
def _download(item: Input, source: Source) -> Iterator[Opened]:
    answer = _follow(item, source)
    with contextlib.closing(answer):
        if answer.status != 200:
            raise _refusal(answer, item)
        _check_promise(answer.length, item, source)
        yield answer.length, answer.blocks()


def _follow(item: Input, source: Source) -> Answer:
    """Return the first answer that is not a redirect.

    Scale's own files are exempt from the forbidden networks, also where Scale sends us on: it often
    lives in one of them, and it is Scale that chose the address.
    """
    forbidden = () if item.stored else source.orders.forbidden
    uri: str = item.uri
    seen: set[str] = set()
    while True:
        target = _target(uri, item)
        if item.stored and not seen and target.origin != source.api.origin:
            raise ForbiddenInput(f"input {shown(item.name)} is not at Scale's own address")
        seen.add(uri)
        headers = source.api.credentials_for(target.origin) if item.stored else {}
        answer = exchange(target, source.limits, headers=headers, forbidden=forbidden)
        location = answer.header("Location")
        if answer.status not in REDIRECTS or not location:
            return answer
        answer.close()
        uri = urljoin(uri, location)
        if uri in seen:
            raise NetError("it redirects in a loop", transient=False)
        if len(seen) > MAX_REDIRECTS:
            raise NetError(f"it redirects more than {MAX_REDIRECTS} times", transient=False)


def _target(uri: str, item: Input) -> Target:
    try:
        return parse_target(uri)
    except ValueError as error:
        what = "its address" if uri == item.uri else "it redirects to an address that"
        raise ForbiddenInput(f"input {shown(item.name)}: {what} cannot be used: {error}") from None


def _refusal(answer: Answer, item: Input) -> Exception:
    if answer.status in TRANSIENT_STATUS:
        return NetError(f"answered {answer}")
    message = f"input {shown(item.name)}: {_place(item)} answered {answer}"
    if answer.status in {404, 410}:
        return MissingFile(message)
    return ApiUnreachable(message) if item.stored else PullFailed(message)


def _check_promise(length: int | None, item: Input, source: Source) -> None:
    """Refuse before the transfer what cannot end well."""
    if length is None:
        return
    if item.size is not None and length != item.size:
        how = f"{item.size} bytes were expected, {length} are promised"
        raise PullFailed(f"input {shown(item.name)}: {_place(item)}: {how}")
    folder = source.orders.work_dir
    try:
        room = room_on(folder)
        if length > room:
            needs, has = -(-length // MIB), max(0, room) // MIB
            size = f"it has {needs} MiB, the agent's disk room for {has}"
            raise _too_large(item, folder, size)
    except OSError as error:
        raise FilesystemFailure(f"input {shown(item.name)}: {reason(error)}") from None


@contextlib.contextmanager
def _copy(item: Input, source: Source) -> Iterator[Opened]:
    with _reading(item):
        file = os.fdopen(_open_allowed(item, source.orders), "rb", buffering=0)
    with file:
        yield os.fstat(file.fileno()).st_size, _file_blocks(file, item)


def _file_blocks(file: BinaryIO, item: Input) -> Iterator[bytes]:
    while True:
        with _reading(item):
            block = file.read(BLOCK)
        if not block:
            return
        yield block


@contextlib.contextmanager
def _reading(item: Input) -> Iterator[None]:
    what = f"input {shown(item.name)}: its file"
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"{what} does not exist on this agent") from None
    except OSError as error:
        raise FilesystemFailure(f"{what} cannot be read: {reason(error)}") from None


def _open_allowed(item: Input, orders: Orders) -> int:
    """Open what a `file:` URI names; links are followed first, and what is opened is checked."""
    parts = urlsplit(item.uri)
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
        raise ForbiddenInput(f"input {shown(item.name)}: its file: address is not an absolute path")
    real = Path(os.path.realpath(path))
    _check_root(real, item, orders)
    if not stat.S_ISREG(real.stat().st_mode):
        raise ForbiddenInput(f"input {shown(item.name)}: it is not a regular file")
    opened = os.open(str(real), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # A folder on the way may have become a link since: look at what was opened.
        _check_root(Path(os.readlink(f"/proc/self/fd/{opened}")), item, orders)
    except (OSError, StepError):
        os.close(opened)
        raise
    return opened


def _check_root(real: Path, item: Input, orders: Orders) -> None:
    roots = [Path(os.path.realpath(str(root))) for root in orders.file_roots]
    if not any(root in real.parents for root in roots):
        raise ForbiddenInput(
            f"input {shown(item.name)}: file: inputs may not come from that folder"
        )


def _place(item: Input) -> str:
    """Return where the input comes from, without a query that may hold a key."""
    try:
        return str(parse_target(item.uri))
    except ValueError:
        return "its file"
