"""Reading logs from agents: from v1, from those that have only /files/read, and from bad ones."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fake_mesos_master import FakeServer, Peer, Request, response

from scale.mesos.files import (
    MAX_LENGTH,
    AgentError,
    AgentFiles,
    AgentUnreachable,
    Chunk,
    FileGone,
)

SAMPLES = Path(__file__).parent.parent / "data" / "mesos"
PATH = "/frameworks/f/executors/t/runs/latest/stdout"
EVERY_BYTE = bytes(range(256))
SECRET = "do-not-tell"


class FakeAgent(FakeServer):
    """Serves one file; `page` caps a read, as real agents do at 64 KiB."""

    def __init__(self, content: bytes, *, v1: bool = True, page: int = 65536) -> None:
        self.content, self.v1, self.page = content, v1, page
        self.answer: Callable[[Peer, Request], None] = self.serve
        super().__init__()

    def handle(self, peer: Peer, request: Request) -> None:
        self.answer(peer, request)

    def serve(self, peer: Peer, request: Request) -> None:
        if request.method == "GET":
            peer.raw(response(200, self.files_read(request)))
        elif not self.v1 or request.json["read_file"]["path"] != PATH:
            peer.raw(response(404))
        else:
            peer.raw(response(200, self.read_file(request)))

    def read_file(self, request: Request) -> bytes:
        wanted = request.json["read_file"]
        assert request.json["type"] == "READ_FILE"
        data = self.slice(wanted["offset"], wanted["length"])
        answer = {"size": len(self.content), "data": base64.b64encode(data).decode()}
        return json.dumps({"type": "READ_FILE", "read_file": answer}).encode()

    def files_read(self, request: Request) -> bytes:
        """Copy bytes above 0x7F into the JSON unchecked, as Mesos does."""
        query = {name: value[0] for name, value in parse_qs(urlsplit(request.target).query).items()}
        assert query["path"] == PATH
        offset = int(query["offset"])
        if offset == -1:
            return b'{"data":"","offset":%d}' % len(self.content)
        data = self.slice(offset, int(query["length"]))
        escaped = json.dumps(data.decode("latin-1"), ensure_ascii=False).encode("latin-1")
        return b'{"data":%s,"offset":%d}' % (escaped, offset)

    def slice(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + min(length, self.page)]


@pytest.fixture
def files() -> Iterator[AgentFiles]:
    client = AgentFiles("scale", SECRET, timeout_s=5)
    yield client
    client.close()


@pytest.fixture(params=[True, False], ids=["v1", "files/read"])
def agent(request: pytest.FixtureRequest) -> Iterator[FakeAgent]:
    with FakeAgent(EVERY_BYTE * 4, v1=request.param) as fake:
        yield fake


def test_every_byte_arrives_as_it_is(agent: FakeAgent, files: AgentFiles) -> None:
    assert files.read("127.0.0.1", agent.port, PATH, 0, 256) == Chunk(EVERY_BYTE, 1024)


def test_a_read_starts_at_a_byte_and_is_as_long_as_asked(
    agent: FakeAgent, files: AgentFiles
) -> None:
    assert files.read("127.0.0.1", agent.port, PATH, 200, 3).data == bytes([200, 201, 202])
    assert files.read("127.0.0.1", agent.port, PATH, 1020, 100).data == bytes(range(252, 256))


def test_past_the_end_there_is_nothing_but_the_size(agent: FakeAgent, files: AgentFiles) -> None:
    assert files.read("127.0.0.1", agent.port, PATH, 1024, 10) == Chunk(b"", 1024)
    assert files.read("127.0.0.1", agent.port, PATH, 5000, 10) == Chunk(b"", 1024)
    assert files.size("127.0.0.1", agent.port, PATH) == 1024


def test_a_file_is_read_whole_by_advancing_over_short_reads(
    agent: FakeAgent, files: AgentFiles
) -> None:
    agent.page, whole, size = 100, b"", 1024
    while len(whole) < size:
        chunk = files.read("127.0.0.1", agent.port, PATH, len(whole), 4096)
        whole, size = whole + chunk.data, chunk.size
    assert whole == agent.content


def test_a_file_that_grows_between_the_two_requests_of_an_old_agent_is_at_least_that_long(
    files: AgentFiles,
) -> None:
    answers = [
        response(404),
        response(200, b'{"data":"","offset":3}'),
        response(200, b'{"data":"abcdef","offset":0}'),
    ]
    with FakeAgent(b"") as agent:
        agent.answer = lambda peer, request: peer.raw(answers.pop(0))
        assert files.read("127.0.0.1", agent.port, PATH, 0, 50) == Chunk(b"abcdef", 6)


def test_each_agent_is_asked_for_its_own_files(files: AgentFiles) -> None:
    with FakeAgent(b"one") as one, FakeAgent(b"other") as other:
        for agent in (one, other, one, other):
            chunk = files.read("127.0.0.1", agent.port, PATH, 0, 9)
            assert chunk.data == agent.content


@pytest.mark.parametrize(
    ("sample", "data"),
    [
        ("agent-read-cut-utf8", "é".encode()),
        ("agent-read-binary", b"a\xff\xfe\x00\xc3\xa9\xe2\x82\xacz\nxxxx"),
    ],
)
def test_what_real_mesos_answered_is_read_lossless(
    files: AgentFiles, sample: str, data: bytes
) -> None:
    body = (SAMPLES / f"{sample}.json").read_bytes()
    answers = [response(404), response(200, b'{"data":"","offset":99}'), response(200, body)]
    with FakeAgent(b"") as agent:
        agent.answer = lambda peer, request: peer.raw(answers.pop(0))
        assert files.read("127.0.0.1", agent.port, PATH, 0, 50) == Chunk(data, 99)


def test_one_connection_serves_one_reader_with_credentials(
    agent: FakeAgent, files: AgentFiles
) -> None:
    for _ in range(5):
        files.read("127.0.0.1", agent.port, PATH, 0, 1)
    assert agent.connections == 1
    assert {request.headers["authorization"] for request in agent.requests} == {
        "Basic " + base64.b64encode(f"scale:{SECRET}".encode()).decode()
    }


def test_a_connection_that_the_agent_closed_is_replaced(
    agent: FakeAgent, files: AgentFiles
) -> None:
    files.read("127.0.0.1", agent.port, PATH, 0, 1)
    agent.hang_up()
    assert files.read("127.0.0.1", agent.port, PATH, 0, 1).size == 1024


def test_many_threads_share_the_client_and_leave_few_connections() -> None:
    with FakeAgent(EVERY_BYTE) as agent:
        files = AgentFiles(None, None, timeout_s=5, max_idle=2)
        together = threading.Barrier(8, timeout=5)
        agent.answer = lambda peer, request: (together.wait(), agent.serve(peer, request))[1]
        with ThreadPoolExecutor(8) as pool:
            reads = [pool.submit(files.read, "127.0.0.1", agent.port, PATH, n, 1) for n in range(8)]
            assert [read.result().data for read in reads] == [bytes([n]) for n in range(8)]
        assert agent.connections == 8
        assert len(files._idle) == 2
        files.close()
        assert "authorization" not in agent.requests[0].headers


def test_a_missing_file_is_gone(agent: FakeAgent, files: AgentFiles) -> None:
    agent.answer = lambda peer, request: peer.raw(response(404))
    with pytest.raises(FileGone, match=PATH):
        files.read("127.0.0.1", agent.port, PATH, 0, 1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"Cannot read a directory.\n"),
        (401, b""),
        (403, b""),
        (500, b""),
        (200, b"nonsense"),
        (200, b'{"read_file": {"size": 3, "data": "***"}}'),
        (200, b'{"read_file": {"data": ""}}'),
        (200, b"{}"),
    ],
)
def test_an_answer_without_the_file_is_an_error(
    files: AgentFiles, status: int, body: bytes
) -> None:
    with FakeAgent(b"") as agent:
        agent.answer = lambda peer, request: peer.raw(response(status, body))
        with pytest.raises(AgentError) as raised:
            files.read("127.0.0.1", agent.port, PATH, 0, 1)
        assert SECRET not in str(raised.value)


def test_an_agent_that_is_away_is_unreachable(files: AgentFiles) -> None:
    with FakeAgent(b"") as agent:
        port = agent.port
    with pytest.raises(AgentUnreachable, match=f"127.0.0.1:{port}"):
        files.read("127.0.0.1", port, PATH, 0, 1)


def test_an_agent_that_hangs_is_unreachable_after_the_time_out() -> None:
    with FakeAgent(b"") as agent:
        agent.answer = lambda peer, request: None
        files = AgentFiles(None, None, timeout_s=0.05)
        with pytest.raises(AgentUnreachable, match="timed out"):
            files.size("127.0.0.1", agent.port, PATH)


def test_an_agent_that_speaks_no_http_is_unreachable(files: AgentFiles) -> None:
    with FakeAgent(b"") as agent:
        agent.answer = lambda peer, request: peer.raw(b"220 smtp ready\r\n\r\n")
        with pytest.raises(AgentUnreachable):
            files.size("127.0.0.1", agent.port, PATH)


def test_an_endless_answer_is_cut_off(files: AgentFiles) -> None:
    with FakeAgent(b"") as agent:
        agent.answer = lambda peer, request: peer.raw(response(200, b" " * 9 * MAX_LENGTH))
        with pytest.raises(AgentUnreachable, match="longer than"):
            files.size("127.0.0.1", agent.port, PATH)


def test_no_more_than_a_mebibyte_is_asked_for(files: AgentFiles) -> None:
    with FakeAgent(b"x") as agent:
        files.read("127.0.0.1", agent.port, PATH, 0, 10 * MAX_LENGTH)
        assert agent.requests[0].json["read_file"]["length"] == MAX_LENGTH
