"""/files/: what is uploaded comes back byte for byte, and nothing else gets in or out."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from scale.api.uploads import BoundedUploadHandler
from scale.core.errors import InvalidInput
from scale.core.lifecycle import State
from scale.job import files
from scale.job.files import TooLarge, store_file
from scale.job.models import File, JobExecution
from scale.job.selectors import FILE_ORDER

TEXT = b"one two\nthree\n"
SHA256 = hashlib.sha256(TEXT).hexdigest()


def upload(
    api: APIClient, content: bytes = TEXT, name: str = "a.txt", kind: str = "text/plain"
) -> Any:
    file = SimpleUploadedFile(name, content, kind)
    return api.post("/files/", {"file": file}, format="multipart")


def stored() -> set[Path]:
    return {path for path in Path(settings.SCALE_STORAGE_DIR).rglob("*") if path.is_file()}


def get(api: APIClient, url: str, **headers: str) -> tuple[Any, bytes]:
    answer = api.get(url, headers=headers)
    # Reading a stream to its end closes it, as a server would.
    return answer, b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_what_is_uploaded_comes_back(api: APIClient) -> None:
    answer = upload(api)
    assert answer.status_code == 201
    file = answer.json()
    assert answer["Location"] == f"http://testserver/files/{file['id']}/"
    assert api.get(answer["Location"]).json() == file
    assert (
        file | {"name": "a.txt", "size": 14, "media_type": "text/plain", "sha256": SHA256} == file
    )
    assert (file["job_exe"], file["output_name"]) == (None, "")
    assert file["url"] == f"http://testserver/files/{file['id']}/content/"

    content, body = get(api, file["url"])
    assert (content.status_code, body) == (200, TEXT)
    assert content["Content-Type"] == "text/plain"
    assert content["Content-Length"] == "14"
    assert content["Content-Disposition"] == 'attachment; filename="a.txt"'
    assert content["X-Content-Type-Options"] == "nosniff"
    assert content["ETag"] == f'"{SHA256}"'
    row = File.objects.get()
    assert "a.txt" not in row.storage_name
    assert row.uploaded_by_id is not None


def test_storing_an_upload_leaves_no_copy(api: APIClient) -> None:
    before = stored()
    upload(api, b"x" * 3_000_000)
    (new,) = stored() - before
    assert new.stat().st_size == 3_000_000
    assert new.stat().st_mode & 0o777 == 0o600
    assert "incoming" not in new.parts


def test_what_is_not_read_to_its_end_is_closed(api: APIClient) -> None:
    # An unclosed file is a warning, and a warning is a failure here.
    answer = api.get(upload(api).json()["url"])
    for close in answer._resource_closers:
        close()


def test_an_empty_file_is_a_file(api: APIClient) -> None:
    file = upload(api, b"").json()
    assert (file["size"], file["sha256"]) == (0, hashlib.sha256(b"").hexdigest())
    content, body = get(api, file["url"])
    assert (content.status_code, body) == (200, b"")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("a\u202eb.txt", "ab.txt"),
        ("Übung 1.txt", "Übung 1.txt"),
        ("a';b.txt", "a';b.txt"),
        ("é" * 300 + ".txt", None),
    ],
)
def test_names_are_made_safe(given: str, kept: str | None, api: APIClient) -> None:
    file = upload(api, name=given).json()
    assert kept is None or file["name"] == kept
    assert len(file["name"].encode()) <= 255
    header = get(api, file["url"])[0]["Content-Disposition"]
    assert header.startswith("attachment; filename")
    assert header.isprintable()


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("application/xhtml+xml", "application/octet-stream"),
        ("text/javascript", "application/octet-stream"),
        ("image/png", "image/png"),
        ("text/plain; charset=latin-1", "text/plain"),
    ],
)
def test_only_harmless_types_are_sent_as_they_are(kind: str, sent: str, api: APIClient) -> None:
    file = upload(api, kind=kind).json()
    assert file["media_type"] == kind.partition(";")[0]
    content, _ = get(api, file["url"])
    assert content["Content-Type"] == sent
    assert "sandbox" in content["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("header", "body", "span"),
    [
        ("bytes=0-3", b"one ", "bytes 0-3/14"),
        ("bytes=8-", b"three\n", "bytes 8-13/14"),
        ("bytes=-6", b"three\n", "bytes 8-13/14"),
        ("bytes=0-999", TEXT, "bytes 0-13/14"),
    ],
)
def test_a_part_can_be_read(header: str, body: bytes, span: str, api: APIClient) -> None:
    url = upload(api).json()["url"]
    part, received = get(api, url, Range=header)
    assert (part.status_code, part["Content-Range"], received) == (206, span, body)
    assert part["Content-Length"] == str(len(body))


def test_a_part_that_is_not_there(api: APIClient) -> None:
    url = upload(api).json()["url"]
    answer = api.get(url, headers={"Range": "bytes=14-"})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer["Content-Range"] == "bytes */14"


def test_a_part_of_another_version_is_the_whole_of_this(api: APIClient) -> None:
    url = upload(api).json()["url"]
    headers = {"Range": "bytes=0-3", "If-Range": '"other"'}
    assert get(api, url, **headers)[0].status_code == 200
    headers["If-Range"] = f'"{SHA256}"'
    assert get(api, url, **headers)[0].status_code == 206


def test_what_the_client_has_is_not_sent_again(api: APIClient) -> None:
    url = upload(api).json()["url"]
    answer = api.get(url, headers={"If-None-Match": f'"{SHA256}"'})
    assert (answer.status_code, answer.content) == (304, b"")


def test_head_says_all_but_the_bytes(api: APIClient) -> None:
    url = upload(api).json()["url"]
    answer = api.head(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["Content-Length"] == "14"
    assert answer["Accept-Ranges"] == "bytes"


def test_a_body_without_the_file_is_refused(api: APIClient) -> None:
    def field(body: dict[str, Any]) -> tuple[int, str]:
        answer = api.post("/files/", body, format="multipart")
        return answer.status_code, answer.json()["field"]

    two = [SimpleUploadedFile("a", b"1"), SimpleUploadedFile("b", b"2")]
    before = stored()
    assert field({}) == (400, "file")
    assert field({"file": "only text"}) == (400, "file")
    assert field({"file": two}) == (400, "file")
    assert field({"file": two[0], "note": "x"}) == (400, "note")
    assert field({"other": two[0]}) == (400, "other")
    assert stored() == before
    assert not File.objects.exists()


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"--x", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense", 400),
        ("text/plain", b"text", 415),
    ],
)
def test_a_body_of_another_form_is_refused(
    kind: str, body: bytes, status: int, api: APIClient, db: None
) -> None:
    answer = api.post("/files/", data=body, content_type=kind)
    assert answer.status_code == status
    assert {"detail", "code"} <= set(answer.json())


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 1024 * 1024 + 70_000])
def test_an_upload_that_is_too_large_is_refused_and_leaves_nothing(
    size: int, api: APIClient
) -> None:
    # The second is refused by its announced length, before it is read.
    before = stored()
    with override_settings(SCALE_MAX_UPLOAD_MIB=1):
        answer = upload(api, b"x" * size)
        assert upload(api, b"x" * 1024 * 1024).status_code == 201
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert File.objects.count() == 1
    assert len(stored() - before) == 1


def test_an_interrupted_upload_leaves_nothing(
    api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the database went away")

    before = stored()
    monkeypatch.setattr(File.objects, "create", fail)
    with pytest.raises(RuntimeError):
        upload(api)
    assert stored() == before


def test_the_list_shows_files_and_orders_them(
    api: APIClient, django_assert_num_queries: Callable[..., Any]
) -> None:
    ids = [upload(api, b"x" * size).json()["id"] for size in (3, 1, 2)]
    with django_assert_num_queries(2):
        found = api.get("/files/").json()["results"]
    assert [each["id"] for each in found] == ids
    assert found[0] == api.get(f"/files/{ids[0]}/").json()
    by_size = api.get("/files/?order=size").json()["results"]
    assert [each["size"] for each in by_size] == [1, 2, 3]
    for field in FILE_ORDER:
        assert api.get(f"/files/?order={field}").status_code == 200
    assert api.get("/files/?order=storage_name").json()["field"] == "order"
    assert api.get("/files/?started=PT0S").json()["field"] == "started"


def test_an_output_replaces_the_one_before_and_keeps_its_id(
    make_execution: Callable[..., JobExecution], django_capture_on_commit_callbacks: Any
) -> None:
    execution = make_execution(State.QUEUED)

    def store(content: bytes) -> File:
        return store_file(
            name="a.txt",
            media_type="text/plain",
            stream=BytesIO(content),
            at=timezone.now(),
            execution=execution,
            output_name="out",
            max_bytes=100,
        )

    first = store(b"first")
    with django_capture_on_commit_callbacks(execute=True):
        second = store(b"second")
    assert second.pk == first.pk
    assert File.objects.get(pk=first.pk).size == 6
    with default_storage.open(second.storage_name) as file:
        assert file.read() == b"second"
    assert not default_storage.exists(first.storage_name)


@pytest.mark.django_db(transaction=True)
def test_many_that_store_the_same_output_leave_one(
    make_execution: Callable[..., JobExecution],
) -> None:
    contents = [f"{n}".encode() for n in range(8)]
    execution, together, before = make_execution(State.QUEUED), Barrier(8), stored()

    def store(content: bytes) -> int:
        together.wait()
        try:
            return store_file(
                name="a.txt",
                media_type="text/plain",
                stream=BytesIO(content),
                at=timezone.now(),
                execution=execution,
                output_name="out",
                max_bytes=100,
            ).pk
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(store, contents))
    (row,) = File.objects.all()
    assert ids == {row.pk}
    (path,) = stored() - before
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256


def test_an_upload_longer_than_announced_is_stopped_where_it_is_too_long(
    tmp_path: Path,
) -> None:
    with override_settings(SCALE_MAX_UPLOAD_MIB=1, SCALE_STORAGE_DIR=tmp_path):
        handler = BoundedUploadHandler()
        handler.handle_raw_input(None, {}, 10, "x")
        handler.new_file("file", "a.txt", "text/plain", 10)
        handler.receive_data_chunk(b"x" * 1024 * 1024, 0)
        with pytest.raises(RequestDataTooBig):
            handler.receive_data_chunk(b"x", 1024 * 1024)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("expected", "error", "field"),
    [
        ({"expected_size": 13}, InvalidInput, "size"),
        ({"expected_sha256": "0" * 64}, InvalidInput, "sha256"),
        ({"max_bytes": 13}, TooLarge, "file"),
    ],
)
def test_a_stream_that_is_not_what_was_announced_is_not_stored(
    expected: dict[str, Any], error: type[InvalidInput], field: str, db: None
) -> None:
    before = stored()
    announced = {"max_bytes": 14, **expected}
    with pytest.raises(error) as refusal:
        store_file(name="a", media_type="", stream=BytesIO(TEXT), at=timezone.now(), **announced)
    assert refusal.value.field == field
    assert stored() == before
    assert not File.objects.exists()


def test_a_stream_is_read_in_pieces(db: None) -> None:
    class Endless(BytesIO):
        largest = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            Endless.largest = max(Endless.largest, size)
            return b"x" * size

    with pytest.raises(TooLarge):
        store_file(
            name="a", media_type="", stream=Endless(), at=timezone.now(), max_bytes=5_000_000
        )
    assert 0 < Endless.largest <= files._CHUNK_BYTES
