"""Peers that stop in the middle of a transfer: they keep nobody else waiting, agents least of all.

An agent whose power fails sends no end of its connection, and a download may just not be read.
"""

import http.client
import io
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from knox.models import AuthToken
from log_world import THREE_PHASES, FakeAgent, Life, Web, make_node, running_agent, running_web

from scale import asgi
from scale.job import tokens
from scale.job.files import store_file
from scale.job.models import File

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("folder")]

#: More than web has threads of any kind.
MANY = 12


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with running_agent(tmp_path / "agent") as agent:
        yield agent


@pytest.fixture
def web(make_user: Callable[..., Any]) -> Iterator[Web]:
    token = AuthToken.objects.create(make_user(role="operator"))[1]
    with running_web() as (port, _):
        yield Web(port, token)


@pytest.fixture
def post(agent: FakeAgent) -> Life:
    return Life(make_node(agent), agent, THREE_PHASES).start().hold().start().hold().start()


def begun(
    web: Web, method: str, path: str, length: int = 0, token: str = "", body: bytes = b""
) -> socket.socket:
    """Send the head of a request, what there is of its body and no more, and read nothing yet."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.settimeout(10)
    peer.connect(("127.0.0.1", web.port))
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: {token or f'Token {web.token}'}",
        f"Content-Length: {length}",
        "Content-Type: multipart/form-data; boundary=X",
    ]
    peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
    return peer


def output_of(life: Life) -> tuple[str, str]:
    """Return where an output of the execution is put, and by which right."""
    token = tokens.issue(life.row.uuid, life.row.task_id)
    return f"/agent/executions/{life.row.uuid}/outputs/?output=out&name=a", f"Bearer {token}"


def serves_agents(web: Web, life: Life) -> list[int]:
    path, bearer = output_of(life)
    orders = path.partition("outputs")[0] + "orders/"
    return [
        web.get("/agent/steps.pyz").status,
        web.get(orders, Authorization=bearer).status,
        web.ask("PUT", path, b"42", Authorization=bearer).status,
    ]


def test_downloads_that_nobody_reads_keep_nobody_waiting(web: Web, post: Life) -> None:
    large = store_file(
        name="large",
        media_type="",
        stream=io.BytesIO(b"x" * 16 * 2**20),  # more than sockets take
        at=timezone.now(),
        max_bytes=2**30,
    )
    with ExitStack() as peers:
        for _ in range(MANY):
            peer = begun(web, "GET", f"/files/{large.pk}/content/")
            assert peers.enter_context(peer).recv(12) == b"HTTP/1.1 200"
        assert serves_agents(web, post) == [200, 200, 201]
        assert web.get(f"/files/{large.pk}/content/", Range="bytes=0-3").body == b"xxxx"


def test_uploads_of_people_keep_no_agent_waiting(web: Web, post: Life) -> None:
    with ExitStack() as peers:
        for _ in range(MANY):
            peers.enter_context(begun(web, "POST", "/files/", length=1000))
        assert serves_agents(web, post) == [200, 200, 201]
        assert web.get("/files/").status == 200


def test_who_falls_silent_in_an_upload_is_given_up(
    web: Web, post: Life, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "_SILENT_S", 0.1)
    path, bearer = output_of(post)
    with ExitStack() as peers:
        silent = [
            peers.enter_context(begun(web, "PUT", path, 1000, bearer, b"the first half"))
            for _ in range(MANY)
        ]
        for peer in silent:
            answer = http.client.HTTPResponse(peer)
            answer.begin()
            assert (answer.status, b"in time" in answer.read()) == (408, True)
            assert peer.recv(1) == b"", "the connection is at its end"
        monkeypatch.undo()
        assert serves_agents(web, post)[-1] == 201
    assert File.objects.count() == 1
    assert list((folder / "incoming").iterdir()) == []
