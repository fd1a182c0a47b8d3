"""Requests that no client library would send, to a real web process."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from knox.models import get_token_model
from served import served

from scale.error.models import Error
from scale.job.models import Job, JobType

pytestmark = pytest.mark.django_db(transaction=True)
HEAD = b"POST /errors/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
GET = b"GET /jobs/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%s\r\n"


@pytest.fixture
def url(transactional_db: None, tmp_path: Path) -> Iterator[str]:
    with served(tmp_path, SCALE_ANONYMOUS_READ="true") as url:
        yield url


def sent(url: str, request: bytes) -> tuple[int, bytes]:
    """Send bytes; return status and body of the answer."""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=20) as peer:
        # It may have answered already, and not want the rest.
        with suppress(ConnectionResetError, BrokenPipeError):
            peer.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := peer.recv(65536)):
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].split()
        # What the server itself says has no length, and ends with the connection.
        while (not length or len(body) < int(length[0])) and (more := peer.recv(65536)):
            body += more
    return int(head.split()[1]), body


def test_what_is_no_request_is_refused_before_anything_is_done(url: str) -> None:
    counts = [model._base_manager.count() for model in apps.get_app_config("error").get_models()]
    for request in (
        HEAD + b"Content-Length: abc\r\n\r\n{}",
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Bad Header: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /jobs/ HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        GET % (b"", b"Host: other.example\r\n"),
        GET % (b"", b"X-Nul: a\x00b\r\n"),
        GET % (b"?\xff\xfe=1", b""),
        GET % (b"?page=%ff", b""),
        GET % (b"%ff/", b""),
    ):
        status, body = sent(url, request)
        assert 400 <= status < 500, (request, status)
        assert {"detail", "code"} <= set(json.loads(body)), (request, body)
    assert counts == [
        model._base_manager.count() for model in apps.get_app_config("error").get_models()
    ]


def test_a_body_that_comes_in_chunks_is_read_whole(url: str) -> None:
    user = User.objects.create_superuser("chunks")
    token = get_token_model().objects.create(user=user, expiry=None)[1].encode()
    body = b'{"name":"in-chunks","title":"t","description":"d","category":"ALGORITHM"}'
    request = HEAD + b"Authorization: Token %s\r\nTransfer-Encoding: chunked\r\n\r\n" % token
    for part in (body[:9], body[9:40], body[40:], b""):
        request += b"%x\r\n%s\r\n" % (len(part), part)
    assert sent(url, request)[0] == 201
    assert Error.objects.filter(name="in-chunks").exists()


def test_a_header_that_comes_twice_is_refused_by_its_name(
    url: str, make_job_type: Callable[..., JobType]
) -> None:
    job = b'{"job_type_id":%d}' % make_job_type().pk
    user = User.objects.create_superuser("twice")
    token = get_token_model().objects.create(user=user, expiry=None)[1].encode()
    known = b"Authorization: Token %s\r\n" % token
    body = b'{"name":"twice","title":"t","description":"d","category":"DATA"}'
    for address, twice, field in (
        (b"errors", b"Content-Type: application/json\r\n" + known, "Content-Type"),
        (b"errors", known * 2, "Authorization"),
        (b"jobs", b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n" + known, "Idempotency-Key"),
    ):
        head = HEAD.replace(b"errors", address) + twice
        said = job if address == b"jobs" else body
        status, answer = sent(url, head + b"Content-Length: %d\r\n\r\n%s" % (len(said), said))
        assert (400 <= status < 500, json.loads(answer)["field"]) == (True, field)
    assert not Error.objects.filter(name="twice").exists()
    assert not Job.objects.exists()


def test_the_pages_of_the_description_are_open_however_they_are_asked_for(url: str) -> None:
    for address in (b"/docs/", b"/schema/"):
        head = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Token \xff\r\n\r\n" % address
        assert sent(url, head)[0] == 200
        options = b"OPTIONS %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % address
        assert sent(url, options)[0] == 405


def test_a_body_that_is_too_large_is_refused_in_our_words(url: str) -> None:
    size = 17 * 1024 * 1024
    request = HEAD + b"Content-Length: %d\r\n\r\n" % size + b" " * size
    status, body = sent(url, request)
    assert (status, json.loads(body)["code"]) == (413, "too_large")
