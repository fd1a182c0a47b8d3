"""Where the bytes of files go: stored under names that nobody can guess, never half a file."""

import hashlib
import mimetypes
import re
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final
from uuid import uuid4

from django.conf import settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import InterfaceError, OperationalError, transaction

from scale.core.errors import InvalidInput, NotAllowedNow
from scale.core.lifecycle import HAS_TASK
from scale.job.models import File, JobExecution
from scale.job.reports import room_for_output

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

_CHUNK_BYTES: Final = 256 * 1024
_LEFTOVER_S: Final = 86_400
_NAME_BYTES: Final = 255  # what file systems take (NAME_MAX)
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9.+_-]{1,120}/[A-Za-z0-9.+_-]{1,120}\Z")
UNKNOWN_MEDIA_TYPE: Final = "application/octet-stream"


class TooLarge(InvalidInput):
    """There is more of it than is taken."""

    code: ClassVar[str] = "too_large"


class ReceivedFile(TemporaryUploadedFile):
    """A file that was measured while it came in; storing it moves it and reads nothing again.

    It lies beside the stored files, so that a large one needs no room in /tmp and a move is a
    rename.
    """

    def __init__(self, name: str, media_type: str) -> None:
        folder = settings.SCALE_STORAGE_DIR / "incoming"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget_old(folder)
        # The request closes it, and that removes what has not been moved.
        file = NamedTemporaryFile(dir=folder)  # noqa: SIM115
        super(TemporaryUploadedFile, self).__init__(file, name, media_type, size=0, charset=None)
        self._spool = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def add(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size = (self.size or 0) + len(chunk)
        self._spool.write(chunk)


def _forget_old(folder: Path) -> None:
    """Remove what killed processes left here: nothing was written to it for a day."""
    oldest = time.time() - _LEFTOVER_S
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < oldest:
                file.unlink()


def _received(stream: BinaryIO, name: str, media_type: str, max_bytes: int) -> ReceivedFile:
    """Take a stream to its end; leaves nothing if it is too large or cannot be read."""
    file = ReceivedFile(name, media_type)
    try:
        while chunk := stream.read(_CHUNK_BYTES):
            file.add(chunk)
            if (file.size or 0) > max_bytes:
                raise _too_large(max_bytes)
        file.flush()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def store_file(
    *,
    name: str,
    media_type: str,
    stream: BinaryIO | ReceivedFile,
    at: datetime,
    uploaded_by: "AbstractBaseUser | None" = None,
    execution: JobExecution | None = None,
    output_name: str = "",
    expected_size: int | None = None,
    expected_sha256: str | None = None,
    max_bytes: int,
) -> File:
    """Store the bytes of a stream and their row; memory does not grow with the file.

    An earlier file of the same execution, output and name is replaced and keeps its id, so that a
    repeated call is harmless. `expected_sha256` is in hex, of either case.

    Raises:
        TooLarge: there are more than `max_bytes`.
        InvalidInput: size or checksum are not those expected.
        NotAllowedNow: the task that `execution` had has ended meanwhile.
        Nothing is left behind then. A session that breaks may leave the bytes.
    """
    name = safe_name(name)
    if not isinstance(stream, ReceivedFile):
        stream = _received(stream, name, media_type, max_bytes)
    unguessable = uuid4().hex
    stored_as = f"{unguessable[:2]}/{unguessable}"
    try:
        stored_as = default_storage.save(stored_as, stream)
        size = stream.size or 0
        _check(size, stream.sha256, expected_size, expected_sha256, max_bytes)
        facts: dict[str, Any] = {
            "size": size,
            "sha256": stream.sha256,
            "storage_name": stored_as,
            "media_type": safe_media_type(media_type, name),
            "created": at,
        }
        if execution is None:
            return File.objects.create(name=name, uploaded_by_id=_key(uploaded_by), **facts)
        return _store_output(execution, output_name, name, facts)
    except BaseException as error:
        # If the answer to the commit was lost nobody knows whether the row is there: bytes that no
        # row has are better than a row that has no bytes.
        if not isinstance(error, OperationalError | InterfaceError):
            default_storage.delete(stored_as)
        raise
    finally:
        stream.close()


@transaction.atomic
def _store_output(
    execution: JobExecution, output_name: str, name: str, facts: dict[str, Any]
) -> File:
    # Calls of one execution take turns here. All may have changed while the bytes came.
    now = JobExecution.objects.select_for_update(no_key=True).get(pk=execution.pk)
    if _task_of(now) != _task_of(execution):
        raise NotAllowedNow("the task has ended")
    room = room_for_output(execution, output_name, name)
    if facts["size"] > room:
        raise _too_large(room)
    key: dict[str, Any] = {"execution": execution, "output_name": output_name, "name": name}
    earlier = File.objects.filter(**key).values_list("storage_name", flat=True).first()
    file, _created = File.objects.update_or_create(**key, defaults=facts)
    if earlier:
        transaction.on_commit(lambda: default_storage.delete(earlier), robust=True)
    return file


def _task_of(execution: JobExecution) -> str:
    return execution.task_id if execution.state in HAS_TASK else ""


def _key(user: "AbstractBaseUser | None") -> Any:
    return user.pk if user else None


def _check(
    size: int,
    sha256: str,
    expected_size: int | None,
    expected_sha256: str | None,
    max_bytes: int,
) -> None:
    if size > max_bytes:
        raise _too_large(max_bytes)
    if expected_size is not None and size != expected_size:
        raise InvalidInput("size", f"{expected_size} bytes were announced and {size} came")
    if expected_sha256 is not None and sha256 != expected_sha256.lower():
        raise InvalidInput("sha256", f"the bytes have the checksum {sha256}")


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge("file", f"is larger than {max_bytes} bytes")


def safe_name(name: str) -> str:
    """Return a name that can be shown, and used in any folder: no path, nothing invisible."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(c for c in last if c.isprintable()).strip()
    stem, dot, suffix = shown.rpartition(".")
    room = _NAME_BYTES - len((dot + suffix).encode())
    if len(shown.encode()) > _NAME_BYTES:
        # The suffix is worth keeping unless it is most of the name.
        kept = _cut(stem, room) + dot + suffix if stem and room > 200 else _cut(shown, _NAME_BYTES)
        shown = kept.strip()
    return "file" if shown in {"", ".", ".."} else shown


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def safe_media_type(media_type: str, name: str) -> str:
    """Return the media type without parameters; by the name if none that makes sense was given."""
    given = media_type.partition(";")[0].strip().lower()
    if _MEDIA_TYPE.match(given) and given != UNKNOWN_MEDIA_TYPE:
        return given
    return mimetypes.guess_type(name)[0] or UNKNOWN_MEDIA_TYPE
