"""The journal, sandboxes and what may be read of them, archives."""

import asyncio
import gzip
import lzma
import os
import random
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pytest

from scale.localmesos import sandbox
from scale.localmesos.fetcher import FetchFailed, Order, fetch_all
from scale.localmesos.files import Files, NotServed, escaped
from scale.localmesos.journal import Journal, read_lines
from scale.localmesos.memory import next_look

# --- the journal ---


def write(
    path: Path, records: list[Any], *, limit: int = 1 << 20, snapshot: Iterable[Any] = ()
) -> None:
    async def run() -> None:
        journal = Journal(path, limit, lambda: None)
        journal.begin(lambda: snapshot)
        for record in records:
            done = asyncio.get_running_loop().create_future()
            journal.append(orjson.dumps(record), partial(done.set_result, None))
            await done
        journal.close()

    asyncio.run(run())


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [{"n": n} for n in range(100)], snapshot=[{"first": 1}])
    assert read_lines(path) == [{"first": 1}, *({"n": n} for n in range(100))]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("rest", [b'{"n":', bytes(5000), b'{"n":' + bytes(5000), b'{"n":3'])
def test_a_torn_last_line_is_left_out(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'{"n":1}\n{"n":2}\n' + rest)
    assert read_lines(path) == [{"n": 1}, {"n": 2}]


def test_nothing_counts_that_stands_after_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'{"n":1}\n' + bytes(4096) + b'\n{"n":3}\n')
    assert read_lines(path) == [{"n": 1}]


def test_a_journal_is_replaced_when_the_new_one_is_on_the_disk_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError("the disk is gone")

    path = tmp_path / "journal"
    write(path, [{"n": 1}])
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="the disk is gone"):
        write(path, [], snapshot=[{"n": 2}])
    assert read_lines(path) == [{"n": 1}]


def test_a_long_journal_is_replaced_by_its_snapshot_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [{"n": n, "x": "y" * 100} for n in range(50)], limit=1000, snapshot=[{"k": "s"}])
    found = read_lines(path)
    assert found[0] == {"k": "s"}
    assert len(found) < 15
    assert found[-1]["n"] == 49


def test_a_journal_that_cannot_be_written_says_so_and_tells_nobody(tmp_path: Path) -> None:
    told: list[str] = []

    async def run() -> None:
        journal = Journal(tmp_path / "journal", 1 << 20, lambda: told.append("failed"))
        journal.begin(list)
        os.close(journal._fd)
        journal.append(b"{}", lambda: told.append("safe"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        journal._fd = -1
        journal.close()
        assert journal.error is not None

    asyncio.run(run())
    assert told == ["failed"]


# --- sandboxes ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "slaves" / "agent"


def made(root: Path, task_id: str = "t", container: str = "c1") -> Path:
    folder = Path(sandbox.create(root, "f", task_id, container))
    (folder / "stdout").write_text("out")
    return folder


def test_a_sibling_is_found_from_a_sandbox_and_latest_follows_the_last_run(root: Path) -> None:
    first = made(root)
    second = made(root, container="c2")
    other = made(root, "other")
    assert Path(f"{other}/../../../t/runs/latest").resolve() == second != first


def test_old_sandboxes_are_deleted_and_live_ones_kept(root: Path) -> None:
    old, live, young = made(root, "old"), made(root, "live"), made(root, "young")
    for folder in (old, live):
        os.utime(folder.parent.parent, (1, 1))
    soonest = sandbox.collect(root, 1000, lambda _, task_id: task_id == "live")
    assert (old.exists(), live.exists(), young.exists()) == (False, True, True)
    assert soonest is not None
    assert 0 < soonest <= 1000


VIRTUAL = "/frameworks/f/executors/t/runs/latest"


def test_a_file_is_found_by_its_virtual_and_its_real_path(root: Path) -> None:
    folder = made(root)
    files = Files(root)
    for path in (f"{VIRTUAL}/stdout", f"{VIRTUAL}/stdout/", f"{folder}/stdout"):
        assert files.resolve(path) == (folder, folder / "stdout")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", HTTPStatus.NOT_FOUND),
        ("/etc/passwd", HTTPStatus.NOT_FOUND),
        ("/frameworks/f/executors/t/runs", HTTPStatus.NOT_FOUND),
        ("/frameworks/../executors/t/runs/latest/stdout", HTTPStatus.NOT_FOUND),
        (f"{VIRTUAL}/missing", HTTPStatus.NOT_FOUND),
        (f"{VIRTUAL}/\0", HTTPStatus.NOT_FOUND),
        (f"{VIRTUAL}/../../../../../../..", HTTPStatus.FORBIDDEN),
        (f"{VIRTUAL}/../c10/stdout", HTTPStatus.FORBIDDEN),
        (f"{VIRTUAL}/link", HTTPStatus.FORBIDDEN),
        (f"{VIRTUAL}/fifo", HTTPStatus.BAD_REQUEST),
        (VIRTUAL, HTTPStatus.BAD_REQUEST),
    ],
)
def test_nothing_else_can_be_opened(root: Path, path: str, status: HTTPStatus) -> None:
    made(root, container="c10")
    folder = made(root)
    (folder / "link").symlink_to("/etc/hostname")
    os.mkfifo(folder / "fifo")
    with pytest.raises(NotServed) as caught:
        os.close(Files(root).open(path))
    assert caught.value.status is status


def test_a_link_that_is_swapped_in_after_the_check_leads_nowhere(root: Path) -> None:
    folder = made(root)
    (folder / "swapped").symlink_to("/etc")

    class Late(Files):
        def resolve(self, path: str) -> tuple[Path, Path]:
            return folder, folder / "swapped" / "hostname"

    with pytest.raises(NotServed) as caught:
        os.close(Late(root).open(f"{VIRTUAL}/swapped/hostname"))
    assert caught.value.status is HTTPStatus.FORBIDDEN


def test_bytes_become_the_inside_of_a_json_string() -> None:
    assert escaped(b'a"\\\n\x00\x7f\xff') == b'a\\"\\\\\\n\\u0000\\u007f\xff'
    ascii_only = bytes(range(128))
    assert orjson.loads(b'"%s"' % escaped(ascii_only)).encode() == ascii_only


# --- the fetcher ---


def fetch(directory: Path, *uris: dict[str, Any]) -> None:
    fetch_all(Order(uris, str(directory), None, threading.Event()))


def tar_of(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for entry in entries:
            archive.addfile(entry, BytesIO(b""))
    return path


def tar_entry(name: str, **fields: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def evil_zip(folder: Path, make: Callable[[zipfile.ZipFile], None]) -> Path:
    path = folder / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        make(archive)
    return path


def zip_link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    "make",
    [
        lambda at: tar_of(at / "x.tar", tar_entry("../up")),
        lambda at: tar_of(at / "x.tar", tar_entry("/tmp/abs-evil/../../x")),
        lambda at: tar_of(at / "x.tar", tar_entry("l", type=tarfile.SYMTYPE, linkname="/etc")),
        lambda at: tar_of(at / "x.tar", tar_entry("d", type=tarfile.CHRTYPE)),
        lambda at: evil_zip(at, lambda archive: archive.writestr("../up", "x")),
        lambda at: evil_zip(at, zip_link),
    ],
)
def test_an_archive_cannot_leave_the_sandbox(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    archive, target = make(tmp_path), tmp_path / "run"
    target.mkdir()
    with pytest.raises(FetchFailed):
        fetch(target, {"value": str(archive)})
    assert not (tmp_path / "up").exists()
    assert not (target / "l").is_symlink()


def test_files_are_copied_named_and_unpacked(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "good.tar", tar_entry("in/side"))
    target = tmp_path / "run"
    target.mkdir()
    plain = tmp_path / "plain file.txt"
    plain.write_text("x")
    fetch(
        target,
        {"value": str(archive)},
        {"value": f"file://{archive}", "output_file": "kept.tar", "extract": False},
        {"value": f"file://{tmp_path}/plain%20file.txt", "executable": True},
    )
    names = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert names == ["good.tar", "in", "in/side", "kept.tar", "plain file.txt"]
    assert (target / "plain file.txt").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "uri",
    [
        {"value": "ftp://example.org/x"},
        {"value": "relative/path"},
        {"value": "/no/such/file"},
        {"value": "/etc/hostname", "output_file": "/abs"},
        {"value": "/etc/hostname", "output_file": "../up"},
        {"value": "http://"},
        {"value": "http://[bad"},
        {"value": "http://127.0.0.1:99999/x"},
        {"value": "http://127.0.0.1:1/two words"},
        {"value": "/etc/hostname", "output_file": "nul\0"},
    ],
)
def test_a_uri_that_cannot_be_fetched_is_told(tmp_path: Path, uri: dict[str, Any]) -> None:
    with pytest.raises(FetchFailed):
        fetch(tmp_path, uri)


def encrypted(archive: Path) -> None:
    """Mark the only member of a zip file as encrypted, in both of its headers."""
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\3\4") + 6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)


@pytest.mark.parametrize("kind", ["gz", "tar.gz", "tar.xz", "zip"])
def test_a_broken_archive_is_told(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / f"broken.{kind}", tmp_path / "run"
    target.mkdir()
    noise = random.Random(1).randbytes(50_000).hex().encode()
    if kind == "zip":
        evil_zip(tmp_path, lambda archive: archive.writestr("x", noise)).rename(path)
        encrypted(path)
    else:
        pack = lzma.compress if kind == "tar.xz" else gzip.compress
        inner = tar_of_bytes(noise) if kind.startswith("tar") else noise
        whole = bytearray(pack(inner))
        whole[20_000:20_100] = bytes(100)
        path.write_bytes(whole)
    with pytest.raises(FetchFailed, match="broken"):
        fetch(target, {"value": str(path)})


def tar_of_bytes(content: bytes) -> bytes:
    into = BytesIO()
    with tarfile.open(fileobj=into, mode="w") as archive:
        archive.addfile(tar_entry("x", size=len(content)), BytesIO(content))
    return into.getvalue()


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://user:hidden@example.org/x?token=hidden",
        "http://user:hidden@example.org/two words?token=hidden",
        "http://user:hidden@exampl\u2100.org/x",
        "http://user:hidden@[bad/x",
    ],
)
def test_a_failed_fetch_shows_no_secret(tmp_path: Path, uri: str) -> None:
    with pytest.raises(FetchFailed) as caught:
        fetch(tmp_path, {"value": uri})
    assert "hidden" not in str(caught.value)


# --- memory ---


def test_a_task_is_looked_at_more_often_the_closer_it_is_to_its_limit() -> None:
    far = next_look(4 << 30, grew=True, waited_s=0.05)
    near = next_look(64 << 20, grew=True, waited_s=0.5)
    still = next_look(64 << 20, grew=False, waited_s=0.4)
    assert (far, near, still) == (1.0, 0.0625, 0.5)
    assert next_look(0, grew=True, waited_s=1) == 0.05
