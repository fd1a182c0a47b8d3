"""No half file: not among the stored ones while bytes come, and not for ever if a process dies."""

import os
import time
from errno import EIO
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from scale.job.files import ReceivedFile, store_file
from scale.job.models import File

pytestmark = pytest.mark.django_db
DAY_S = 86_400


class Watched(BytesIO):
    """A stream that looks, whenever it is read, at what is stored already."""

    def __init__(self, content: bytes, folder: Path) -> None:
        super().__init__(content)
        self.folder = folder
        self.seen: list[str] = []

    def read(self, size: int | None = -1) -> bytes:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        self.seen += [path.parent.name for path in files]
        return super().read(size)


def store(stream: Any, **more: Any) -> Any:
    facts = {"name": "a", "media_type": "text/plain", "at": timezone.now(), "max_bytes": 10**6}
    return store_file(stream=stream, **{**facts, **more})


def test_bytes_are_among_the_stored_ones_only_when_all_have_come(folder: Path) -> None:
    stream = Watched(b"x" * 600_000, folder)
    file = store(stream)
    assert set(stream.seen) == {"incoming"}
    stored = folder / file.storage_name
    assert stored.stat().st_size == 600_000
    assert stored.stat().st_mode & 0o777 == 0o600
    assert list((folder / "incoming").iterdir()) == []


def test_a_file_and_the_folders_that_are_new_for_it_are_on_disk_before_it_has_a_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        assert not File.objects.exists()
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    stored = folder / store(BytesIO(b"x")).storage_name
    assert synced == [stored, stored.parent, folder]


def test_a_disk_that_fails_to_take_a_file_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_descriptor: int) -> None:
        raise OSError(EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        store(BytesIO(b"x"))
    assert not File.objects.exists()
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_stream_that_is_too_large_or_breaks_leaves_nothing(folder: Path) -> None:
    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError

    for stream, error in ((BytesIO(b"x" * 2_000_000), Exception), (Broken(), ConnectionResetError)):
        with pytest.raises(error):
            store(stream)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_row_whose_commit_was_not_answered_keeps_its_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = File.objects.create

    def unanswered(**facts: Any) -> None:
        create(**facts)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(File.objects, "create", unanswered)
    with pytest.raises(OperationalError):
        store(BytesIO(b"kept"))
    assert (folder / File.objects.get().storage_name).read_bytes() == b"kept"


def test_what_a_killed_process_left_goes_after_a_day(folder: Path) -> None:
    incoming = folder / "incoming"
    incoming.mkdir()
    for name, age_s in (("old", DAY_S + 60), ("young", DAY_S - 60)):
        (incoming / name).write_bytes(b"half")
        written = time.time() - age_s
        os.utime(incoming / name, (written, written))
    with ReceivedFile("a", "text/plain"):
        assert not (incoming / "old").exists()
        assert (incoming / "young").exists()
