"""The files API over the sandboxes of one agent (src/files/files.cpp), in constant memory.

Only `…/frameworks/<id>/executors/<id>/runs/<id or latest>/…` can be reached, by the short virtual
path or by the real one. Whatever a task does with symbolic links, nothing outside its own sandbox
is read: the opened file itself is checked.
"""

import base64
import grp
import mimetypes
import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any, Final

from scale.localmesos.http import JSON, Refused, Request, Response, date, json_response, respond
from scale.localmesos.validation import id_problem

READ_CAP: Final = 1 << 16  # 16 pages: /files/read
READ_FILE_CAP: Final = 1 << 20  # bytes of one READ_FILE answer; longer requests are cut
BLOCK: Final = 1 << 18
_LAYOUT: Final = ("frameworks", "executors", "runs")
_ESCAPED: Final = re.compile(rb'["\\\x00-\x1f\x7f]')
_SHORT: Final = {
    b'"': b'\\"', b"\\": b"\\\\", b"\n": b"\\n", b"\t": b"\\t", b"\r": b"\\r", b"\b": b"\\b",
    b"\f": b"\\f",
}  # fmt: skip


class NotServed(Exception):
    """A path that is not under a sandbox; `status` is what to answer."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Files:
    """Reads the sandboxes under `root`, an agent's part of the work folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def resolve(self, path: str) -> tuple[Path, Path]:
        """Return the sandbox and the real path inside it that a client names.

        Raises:
            NotServed: no such sandbox or file (404), or it leads out of its sandbox (403).
        """
        parts = self._inside(path)
        if len(parts) < 6 or parts[::2][:3] != _LAYOUT or "\0" in path:
            raise NotServed(HTTPStatus.NOT_FOUND)
        if any(id_problem(part) for part in parts[1:6:2]):
            raise NotServed(HTTPStatus.NOT_FOUND)
        sandbox = Path(os.path.realpath(self._root.joinpath(*parts[:6])))
        real = Path(os.path.realpath(sandbox.joinpath(*parts[6:])))
        if not real.is_relative_to(sandbox) or not sandbox.is_relative_to(
            os.path.realpath(self._root)
        ):
            raise NotServed(HTTPStatus.FORBIDDEN)
        if not real.exists():
            raise NotServed(HTTPStatus.NOT_FOUND)
        return sandbox, real

    def _inside(self, path: str) -> tuple[str, ...]:
        """Return the parts of a path below the agent's root."""
        asked = PurePosixPath(path)
        if asked.is_relative_to(self._root):
            asked = asked.relative_to(self._root)
        elif asked.is_relative_to(latest := self._root.parent / "latest"):
            asked = asked.relative_to(latest)
        return tuple(part for part in asked.parts if part != "/")

    def open(self, path: str) -> int:
        """Return a descriptor of a regular file in its sandbox; the caller closes it.

        Raises:
            NotServed: as `resolve`; 400 for what is no regular file.
        """
        sandbox, real = self.resolve(path)
        try:
            fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise NotServed(HTTPStatus.NOT_FOUND) from None
        opened = Path(f"/proc/self/fd/{fd}").readlink()
        mode = os.fstat(fd).st_mode
        if not opened.is_relative_to(sandbox):
            os.close(fd)
            raise NotServed(HTTPStatus.FORBIDDEN)
        if not stat.S_ISREG(mode):
            os.close(fd)
            raise NotServed(HTTPStatus.BAD_REQUEST)
        return fd

    def listing(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield (path as asked for plus name, status) of a folder's entries; none of a file."""
        _, real = self.resolve(path)
        if not real.is_dir():
            return
        for entry in sorted(real.iterdir()):
            shown = os.fsencode(entry.name).decode("utf-8", "replace")  # JSON holds no other bytes
            try:
                yield f"{path.rstrip('/')}/{shown}", entry.lstat()
            except FileNotFoundError:
                continue  # it went away meanwhile

    def roots(self) -> dict[str, str]:
        """Return each path by which a sandbox is known -> its real path."""
        found: dict[str, str] = {}
        for latest in self._root.glob("frameworks/*/executors/*/runs/latest"):
            real = os.path.realpath(latest)
            virtual = f"/{latest.relative_to(self._root)}"
            found.update(dict.fromkeys((virtual, str(latest), real), real))
        return found


def _asked_path(request: Request) -> str:
    path = request.query.get("path")
    if not path:
        raise Refused(HTTPStatus.BAD_REQUEST, "Expecting 'path=value' in query.\n")
    return path


def _number(query: Mapping[str, str], name: str) -> int:
    """Return a query parameter of /files/read, -1 if it is not there."""
    text = query.get(name)
    if text is None:
        return -1
    try:
        number = int(text)
    except ValueError:
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"Failed to parse {name}: Failed to convert '{text}' to number.\n",
        ) from None
    if number < -1:
        raise Refused(HTTPStatus.BAD_REQUEST, f"Negative {name} provided: {number}.\n")
    return number


def escaped(data: bytes) -> bytes:
    """Return the bytes as the inside of a JSON string; above 0x7F they go raw, as in Mesos."""

    def escape(found: re.Match[bytes]) -> bytes:
        byte = found.group()
        return _SHORT.get(byte) or b"\\u%04x" % ord(byte)

    return _ESCAPED.sub(escape, data)


class FilesApi:
    """The HTTP forms of `Files`."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def browse(self, request: Request) -> Response:
        path = _asked_path(request)
        try:
            listed = [_brief(name, status) for name, status in self._files.listing(path)]
        except NotServed as error:
            raise Refused(error.status) from None
        return json_response(listed)

    async def read(self, request: Request) -> Response:
        path = _asked_path(request)
        offset, length = _number(request.query, "offset"), _number(request.query, "length")
        fd = self._opened(path)
        try:
            size = os.fstat(fd).st_size
            data = b""
            if offset < 0:
                offset = size
            elif offset < size:
                data = os.pread(fd, min(length if length >= 0 else READ_CAP, READ_CAP), offset)
        finally:
            os.close(fd)
        body = b'{"data":"%s","offset":%d}' % (escaped(data), offset)
        jsonp = request.query.get("jsonp")
        if jsonp and re.fullmatch(r"[\w.$]{1,100}", jsonp):
            return Response(200, b"%s(%s)" % (jsonp.encode(), body), b"text/javascript")
        return Response(200, body, JSON)

    def _opened(self, path: str) -> int:
        try:
            return self._files.open(path)
        except NotServed as error:
            if error.status is HTTPStatus.BAD_REQUEST:
                raise Refused(error.status, "Cannot read a directory.\n") from None
            raise Refused(error.status) from None

    async def download(self, request: Request) -> Response | None:
        path = _asked_path(request)
        try:
            fd = self._files.open(path)
        except NotServed as error:
            text = "404 Not Found." if error.status is HTTPStatus.NOT_FOUND else "Not a file.\n"
            raise Refused(error.status, text) from None
        try:
            await _send_file(request, fd, PurePosixPath(path).name)
        finally:
            os.close(fd)
        return None

    async def debug(self, _: Request) -> Response:
        return json_response(self._files.roots())

    def list_files(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a v1 LIST_FILES."""
        try:
            entries = [_full(name, status) for name, status in self._files.listing(call["path"])]
        except NotServed as error:
            raise Refused(error.status) from None
        return {"file_infos": entries} if entries else {}  # stout leaves out an empty list

    def read_file(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a v1 READ_FILE, with at most READ_FILE_CAP bytes."""
        offset, length = call["offset"], call.get("length", READ_FILE_CAP)
        if offset < 0 or length < 0:
            raise Refused(HTTPStatus.BAD_REQUEST, "Negative offset or length provided.\n")
        fd = self._opened(call["path"])
        try:
            size = os.fstat(fd).st_size
            data = os.pread(fd, min(length, READ_FILE_CAP), offset) if offset < size else b""
        finally:
            os.close(fd)
        return {"size": size, "data": base64.b64encode(data).decode()}


async def _send_file(request: Request, fd: int, name: str) -> None:
    """Send as much of a file as it holds now, block by block."""
    size = os.fstat(fd).st_size
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    shown = re.sub(r'[^ -~]|["\\]', "_", name)
    headers = (
        (b"Content-Length", str(size).encode()),
        (b"Content-Type", kind.encode()),
        (b"Content-Disposition", f'attachment; filename="{shown}"'.encode()),
    )
    if request.method == "HEAD":
        await respond(Response(200, b"", None, headers[1:]), True, request.send)
        return
    started = {"type": "http.response.start", "status": 200, "headers": (date(), *headers)}
    await request.send(started)
    sent = 0
    while sent < size and (data := os.pread(fd, min(BLOCK, size - sent), sent)):
        sent += len(data)
        await request.send({"type": "http.response.body", "body": data, "more_body": sent < size})
    if sent < size or not size:
        await request.send({"type": "http.response.body", "body": b""})


@lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=256)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _brief(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "nlink": status.st_nlink,
        "size": status.st_size,
        "mtime": float(int(status.st_mtime)),
        "mode": stat.filemode(status.st_mode),
        "uid": _user(status.st_uid),
        "gid": _group(status.st_gid),
    }


def _full(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        **_brief(path, status),
        "mtime": {"nanoseconds": int(status.st_mtime) * 10**9},
        "mode": status.st_mode,
    }
