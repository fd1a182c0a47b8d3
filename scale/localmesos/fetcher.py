"""Brings a task's URIs into its sandbox, before it starts (src/launcher/fetcher.cpp).

Runs in a thread; http, https, `file://` and plain paths. Archives are unpacked without leaving the
sandbox: no absolute names, no `..`, no links or devices that point out of it.
"""

import gzip
import http.client
import os
import shutil
import stat
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

from scale.localmesos.children import Owner

STALL_S: Final = 60.0  # --fetcher_stall_timeout
BLOCK: Final = 1 << 16
TAR_ENDINGS: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class FetchFailed(Exception):
    """A URI that could not be brought; the text is told to the framework."""


@dataclass(frozen=True, slots=True)
class Order:
    """The URIs of one task (CommandInfo.URI), where they go, to whom, and a way to stop."""

    uris: Sequence[Mapping[str, Any]]
    directory: str
    owner: Owner | None
    cancelled: threading.Event


def fetch_all(order: Order) -> None:
    """Fetch one after the other.

    Raises:
        FetchFailed: one of them failed; what came before it stays in the sandbox.
    """
    for uri in order.uris:
        try:
            _fetch(order, uri)
        # Addresses, servers and archives raise whatever they like; a task must not wait for ever.
        except Exception as error:
            raise FetchFailed(_told(uri["value"], error)) from error
    if order.owner is not None:
        _give_to(Path(order.directory), order.owner)


def _told(uri: str, error: Exception) -> str:
    """Return URI and error without what may be secret: user, password and query."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return "not a URI"
    why = "not a URL" if isinstance(error, http.client.InvalidURL) else error  # it shows all of it
    place = f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path
    return f"{place}: {why}"


def _fetch(order: Order, uri: Mapping[str, Any]) -> None:
    parts = urlsplit(uri["value"])
    name = uri.get("output_file") or PurePosixPath(unquote(parts.path)).name
    relative = PurePosixPath(name)
    if not name or relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"'{name}' is not a file name inside the sandbox")
    target = Path(order.directory, relative)
    target.parent.mkdir(parents=True, exist_ok=True)
    if parts.scheme in ("http", "https"):
        _download(uri["value"], target, order.cancelled)
    elif parts.scheme in ("", "file"):
        source = Path(unquote(parts.path))
        if not source.is_absolute():
            raise ValueError("a path must be absolute")
        with source.open("rb") as opened, target.open("wb") as written:
            _copy(opened, written, order.cancelled)
    else:
        raise ValueError(f"scheme '{parts.scheme}' is not supported")
    if uri.get("executable", False):
        target.chmod(0o755)
    elif uri.get("extract", True):
        _extract(target)


def _download(uri: str, target: Path, cancelled: threading.Event) -> None:
    request = urllib.request.Request(uri, headers={"User-Agent": "localmesos"})  # noqa: S310 - checked
    try:
        with urllib.request.urlopen(request, timeout=STALL_S) as answer:  # noqa: S310
            with target.open("wb") as written:
                got = _copy(answer, written, cancelled)
            promised = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        error.close()
        raise ValueError(f"HTTP status {error.code}") from None
    if promised is not None and got != int(promised):
        raise ValueError(f"got {got} of {promised} bytes")


def _copy(source: IO[bytes], target: IO[bytes], cancelled: threading.Event) -> int:
    got = 0
    while block := source.read(BLOCK):
        if cancelled.is_set():
            raise ValueError("the task was killed")
        target.write(block)
        got += len(block)
    return got


def _extract(archive: Path) -> None:
    for endings, unpack in _UNPACKERS:
        if archive.name.endswith(endings):
            unpack(archive)
            return


def _untar(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        _untar_members(opened, archive.parent)
        while opened.fileobj is not None and opened.fileobj.read(BLOCK):
            pass  # to the end, where the checksum of what is compressed is looked at


def _untar_members(opened: tarfile.TarFile, folder: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        opened.extractall(folder, filter="data")
        return
    # Python before 3.11.4: no links at all, for chains of them are hard to judge.
    for member in opened.getmembers():
        parts = PurePosixPath(member.name)
        if parts.is_absolute() or ".." in parts.parts or not (member.isreg() or member.isdir()):
            raise ValueError(f"'{member.name}' may lead out of the sandbox")
    opened.extractall(folder)  # noqa: S202 - every member was checked


def _unzip(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            parts = PurePosixPath(member.filename)
            mode = member.external_attr >> 16
            if parts.is_absolute() or ".." in parts.parts or stat.S_ISLNK(mode):
                raise ValueError(f"'{member.filename}' leads out of the sandbox")
            extracted = Path(opened.extract(member, archive.parent))
            if stat.S_ISREG(mode):
                extracted.chmod(stat.S_IMODE(mode) & 0o777)


def _gunzip(archive: Path) -> None:
    with gzip.open(archive, "rb") as opened, archive.with_suffix("").open("wb") as target:
        shutil.copyfileobj(opened, target)


_UNPACKERS: Final[tuple[tuple[tuple[str, ...], Callable[[Path], None]], ...]] = (
    (TAR_ENDINGS, _untar),
    ((".zip",), _unzip),
    ((".gz",), _gunzip),
)


def _give_to(directory: Path, owner: Owner) -> None:
    for folder, _, files in os.walk(directory):
        os.chown(folder, owner.uid, owner.gid)
        for name in files:
            os.chown(Path(folder, name), owner.uid, owner.gid, follow_symlinks=False)
