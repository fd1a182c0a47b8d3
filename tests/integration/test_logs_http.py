"""Logs through our real web process, from a real HTTP server that plays the agent."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from knox.models import AuthToken
from log_world import (
    THREE_PHASES,
    Events,
    FakeAgent,
    Life,
    Web,
    make_node,
    running_agent,
    running_web,
    wait_until,
)

from scale.api import streams
from scale.api.streams import LogStreams
from scale.core.lifecycle import Event
from scale.node.models import Node

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with running_agent(tmp_path) as agent:
        yield agent


@pytest.fixture
def node(db: None, agent: FakeAgent) -> Node:
    return make_node(agent)


@pytest.fixture
def life(node: Node, agent: FakeAgent) -> Life:
    return Life(node, agent)


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[tuple[int, LogStreams]]:
    with running_web() as running:
        yield running


@pytest.fixture
def web(
    transactional_db: None, server: tuple[int, LogStreams], make_user: Callable[..., Any]
) -> Iterator[Web]:
    port, log_streams = server
    yield Web(port, AuthToken.objects.create(make_user(role="viewer"))[1])
    wait_until(lambda: log_streams.is_idle)


def logs_of(life: Life, rest: str = "") -> str:
    return f"/job-executions/{life.pk}/logs/{rest}"


@pytest.mark.parametrize("prefix", ["", "/v3"])
def test_a_live_log_is_served_as_it_is(web: Web, life: Life, prefix: str) -> None:
    binary = bytes(range(256)) * 3
    life.start(stdout=binary)
    answer = web.get(prefix + logs_of(life, "stdout/"))
    assert (answer.status, answer.body) == (200, binary)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Log-Complete"] == "false"
    assert answer.headers["Content-Security-Policy"] == "sandbox"


def test_a_poller_asks_only_for_what_is_new(web: Web, life: Life) -> None:
    life.start(stdout=b"one\n")
    first = web.get(logs_of(life, "stdout/"))
    nothing = web.get(logs_of(life, "stdout/"), Range="bytes=4-")
    same = web.get(logs_of(life, "stdout/"), If_None_Match=first.headers["ETag"])
    assert (nothing.status, nothing.headers["Content-Range"]) == (416, "bytes */4")
    assert (same.status, same.body) == (304, b"")
    life.write("stdout", b"two\n")
    wait_until(lambda: web.get(logs_of(life, "stdout/")).headers["ETag"] != first.headers["ETag"])
    news = web.get(logs_of(life, "stdout/"), Range="bytes=4-")
    assert (news.status, news.body, news.headers["Content-Range"]) == (206, b"two\n", "bytes 4-7/8")
    assert web.get(logs_of(life, "stdout/?offset=4&length=2")).body == b"tw"


def test_head_tells_the_size(web: Web, life: Life) -> None:
    life.start(stderr=b"12345")
    answer = web.ask("HEAD", logs_of(life, "stderr/"))
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "5", b"")


@pytest.mark.parametrize("page", [64 * 1024, 1024 * 1024])
def test_a_large_log_comes_whole(web: Web, life: Life, page: int) -> None:
    life.agent.page = page
    content = b"".join(b"%d\n" % number for number in range(200_000))
    life.start(stdout=content)
    assert web.get(logs_of(life, "stdout/")).body == content
    assert web.get(logs_of(life, "stdout/"), Range="bytes=-100").body == content[-100:]


def test_three_phases_are_one_log_and_finishing_changes_nothing(
    web: Web, node: Node, agent: FakeAgent, api: Any
) -> None:
    life = Life(node, agent, THREE_PHASES)
    life.start(stdout=b"pre\n").hold().start(stdout=b"job\n", stderr=b"oh\n").hold()
    life.start(stdout=b"post\n").finish()
    answer = web.get(logs_of(life, "stdout/"))
    assert (answer.body, answer.headers["X-Log-Complete"]) == (b"pre\njob\npost\n", "true")
    combined = web.get(logs_of(life, "combined/")).body.decode()
    assert combined.split("\n") == [
        "==> pre stdout <==", "pre", "", "==> job stdout <==", "job", "", "==> job stderr <==",
        "oh", "", "==> post stdout <==", "post", "",
    ]  # fmt: skip


def test_the_seeds_shape_has_text_and_says_when_it_is_cut(
    web: Web, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scale.api.logs._SHOWN_BYTES", 10)
    life.start(stdout=b"caf\xc3\xa9 \xff!", stderr=b"0123456789abc")
    body = web.get(logs_of(life)).json()
    assert body["id"] == life.pk
    assert (body["status"], body["is_finished"]) == ("RUNNING", False)
    assert body["stdout"] == "café �!"
    assert (body["stdout_truncated"], body["stdout_size"]) == (False, 8)
    assert body["stderr"] == "3456789abc"
    assert (body["stderr_truncated"], body["stderr_size"]) == (True, 13)
    assert body["log_problem"] is None
    assert body["job"]["job_type"]["name"].startswith("type-")


def test_an_execution_that_never_ran_has_empty_logs(web: Web, life: Life, agent: FakeAgent) -> None:
    waiting = web.get(logs_of(life, "stdout/"))
    assert (waiting.status, waiting.body, waiting.headers["X-Log-Complete"]) == (200, b"", "false")
    life.move(Event.CANCEL)
    body = web.get(logs_of(life)).json()
    assert (body["stdout"], body["is_finished"]) == ("", True)
    assert agent.reads.total() == 0


BAD_REQUESTS = {
    "/job-executions/{pk}/logs/stdout/?offset=x": (400, "offset"),
    "/job-executions/{pk}/logs/stdout/?offset=-1": (400, "offset"),
    "/job-executions/{pk}/logs/stdout/?length=0": (400, "length"),
    "/job-executions/{pk}/logs/stdout/?offset=1&offset=2": (400, "offset"),
    "/job-executions/{pk}/logs/stdout/?started=1": (400, "started"),
    "/job-executions/{pk}/logs/stdout/?offset=%FF": (400, "offset"),
    "/job-executions/{pk}/logs/stream/?stream=stdin": (400, "stream"),
    "/job-executions/{pk}/logs/stream/?offset=1e3": (400, "offset"),
    "/job-executions/{pk}/logs/?offset=1": (400, "offset"),
    "/job-executions/x/logs/stdout/": (400, "id"),
    "/job-executions/x/logs/stream/": (400, "id"),
    "/job-executions/99999999/logs/stdout/": (404, "id"),
    "/job-executions/99999999/logs/stream/": (404, "id"),
    "/job-executions/99999999/logs/": (404, "id"),
    "/job-executions/99999999999999999999999/logs/stdout/": (404, "id"),
    "/job-executions/{pk}/logs/other/": (404, None),
}


def test_a_request_that_makes_no_sense_is_told_why(web: Web, life: Life) -> None:
    answers = {path: web.get(path.format(pk=life.pk)) for path in BAD_REQUESTS}
    bodies = {path: answer.json() for path, answer in answers.items()}
    found = {path: (answers[path].status, body.get("field")) for path, body in bodies.items()}
    assert found == BAD_REQUESTS
    assert all(body["detail"] and body["code"] for body in bodies.values())


def test_nobody_reads_logs_without_permission(web: Web, life: Life) -> None:
    life.start(stdout=b"secret")
    for rest in ("", "stdout/", "combined/", "stream/"):
        for headers in ({"Authorization": ""}, {"Authorization": "Token " + "0" * 64}):
            answer = web.get(logs_of(life, rest), **headers)
            assert (answer.status, b"secret" in answer.body) == (401, False)
            assert answer.headers["WWW-Authenticate"] == "Token"
        assert web.get(logs_of(life, rest), Host="evil.example").status == 400
        assert web.ask("POST", logs_of(life, rest)).status == 405


def test_bytes_of_a_query_that_are_no_text_reach_django(web: Web) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as raw:
        raw.sendall(b"GET /jobs/?name=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.recv(100).split(b"\r\n")[0] in {
            b"HTTP/1.1 401 Unauthorized",
            b"HTTP/1.1 400 Bad Request",
        }


def test_the_session_of_the_admin_may_read(
    web: Web, life: Life, client: Any, make_user: Any
) -> None:
    life.start(stdout=b"hello")
    client.force_login(make_user(role="viewer"))
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    assert web.get(logs_of(life, "stdout/"), Authorization="", Cookie=cookie).body == b"hello"


def test_anonymous_reading_can_be_opened(web: Web, life: Life, settings: Any) -> None:
    life.start(stdout=b"hello")
    settings.SCALE_ANONYMOUS_READ = True
    # The cookie keeps what is remembered of this request away from other tests.
    nobody = {"Authorization": "", "Cookie": "theme=dark"}
    assert web.get(logs_of(life, "stdout/"), **nobody).body == b"hello"


def test_a_token_that_was_withdrawn_stops_reading_soon(
    web: Web, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scale.api.log_access._REMEMBERED_S", 0.0)
    life.start(stdout=b"hello")
    assert web.get(logs_of(life, "stdout/")).status == 200
    AuthToken.objects.all().delete()
    assert web.get(logs_of(life, "stdout/")).status == 401


def test_a_stream_ends_when_its_token_was_withdrawn(
    web: Web, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_ADMITTED_S", 0.0)
    life.start(stdout=b"hello")
    with web.stream(logs_of(life, "stream/")) as events:
        assert events.text(5) == "hello"
        AuthToken.objects.all().delete()
        life.write("stdout", b"secret")
        while event := events.next():
            assert event == {"id": "11", "data": '"secret"'}


def test_an_agent_that_is_gone_costs_no_error(web: Web, life: Life, agent: FakeAgent) -> None:
    life.start(stdout=b"hello")
    life.node.port = 1  # nothing listens there
    life.node.save()
    for rest in ("stdout/", "combined/"):
        answer = web.get(logs_of(life, rest))
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["X-Log-Problem"] == "agent_unreachable"
        assert answer.headers["X-Log-Complete"] == "false"
    body = web.get(logs_of(life)).json()
    assert (body["stdout"], body["log_problem"]) == ("", "agent_unreachable")


@pytest.mark.parametrize(("status", "answer"), [(500, 503), (404, 410)])
def test_bytes_that_cannot_be_had_are_never_left_out_in_silence(
    web: Web, life: Life, agent: FakeAgent, client: Any, make_user: Any, status: int, answer: int
) -> None:
    life.start(stdout=b"x" * (3 * 1024 * 1024)).finish()
    assert web.ask("HEAD", logs_of(life, "stdout/")).headers["X-Log-Complete"] == "true"
    agent.status = status
    part = web.get(logs_of(life, "stdout/"), Range="bytes=-10")
    assert (part.status, "detail" in part.json()) == (answer, True)
    with pytest.raises(IncompleteRead):
        web.get(logs_of(life, "stdout/"))
    client.force_login(make_user(role="viewer"))
    assert client.get(logs_of(life, "stdout/?offset=3000000")).status_code == answer


def test_an_agent_that_answers_nonsense_costs_no_error(
    web: Web, life: Life, agent: FakeAgent
) -> None:
    life.start(stdout=b"hello")
    agent.status = 500
    assert web.get(logs_of(life, "stdout/")).headers["X-Log-Problem"] == "agent_error"


def test_a_sandbox_that_is_gone_is_said_to_be_lost(web: Web, life: Life) -> None:
    life.start(stdout=b"hello").finish()
    life.file("stdout").unlink()
    answer = web.get(logs_of(life, "stdout/"))
    assert (answer.status, answer.headers["X-Log-Problem"]) == (200, "lost")
    assert answer.headers["X-Log-Complete"] == "true"


def test_a_stream_brings_what_is_written_and_ends_with_the_log(web: Web, life: Life) -> None:
    life.start(stdout="é1\n".encode())
    with web.stream(logs_of(life, "stream/?stream=stdout")) as events:
        assert events.answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert events.next() == {"id": "4", "data": '"\\u00e91\\n"'}
        life.write("stdout", "€".encode()[:2])
        life.agent.wait_for_reads(life.agent.reads.total() + 2)  # half of it was seen
        life.write("stdout", "€".encode()[2:] + b"\x00\n")
        assert events.text(9) == "€\x00\n"
        life.write("stdout", b"cut \xe2")
        life.finish()
        # Only the end tells that the last byte will never be a character.
        assert events.text(14) == "cut �"
        end = events.next()
        assert (end["event"], json.loads(end["data"])["size"]) == ("end", 14)
        assert events.next() == {}


def test_a_stream_resumes_where_it_was_cut(web: Web, life: Life) -> None:
    life.start(stdout=b"0123456789")
    with web.stream(logs_of(life, "stream/?offset=4")) as events:
        assert events.text(10) == "456789"
    with web.stream(logs_of(life, "stream/?offset=4"), Last_Event_ID="8") as events:
        assert events.text(10) == "89"
    life.finish()
    with web.stream(logs_of(life, "stream/")) as events:
        assert events.text(10) == "0123456789"
        assert events.next()["event"] == "end"
    # What a browser does after the end of a connection: 204 tells it to stop.
    assert web.get(logs_of(life, "stream/"), Last_Event_ID="10").status == 204


def test_a_stream_goes_through_all_phases(web: Web, node: Node, agent: FakeAgent) -> None:
    life = Life(node, agent, THREE_PHASES)
    with web.stream(logs_of(life, "stream/")) as events:
        life.start(stdout=b"pre\n")
        assert events.text(4) == "pre\n"
        life.hold().start(stdout=b"job\n")
        assert events.text(8) == "job\n"
        life.hold().start(stdout=b"post\n").finish()
        assert events.text(13) == "post\n"
        assert events.next()["event"] == "end"


def test_a_stream_says_that_the_agent_is_silent(web: Web, life: Life, agent: FakeAgent) -> None:
    life.start(stdout=b"hello")
    with web.stream(logs_of(life, "stream/")) as events:
        assert events.text(5) == "hello"
        agent.status = 500
        event = events.next()
        assert (event["event"], event["data"]) == ("problem", '{"problem": "agent_error"}')
        agent.status = 0
        life.write("stdout", b" again")
        while "event" in (event := events.next()):
            pass
        assert json.loads(event["data"]) == " again"


def test_a_quiet_stream_beats(web: Web, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_HEARTBEAT_S", 0.05)
    life.start()
    with web.stream(logs_of(life, "stream/")) as events:
        assert events.next() == {"": "still here"}


def test_two_hundred_followers_cost_one_read_per_interval(
    web: Web, life: Life, agent: FakeAgent
) -> None:
    life.start(stdout=b"first\n")
    lines = [f"line {number}\n" for number in range(2)]
    expected = "first\n" + "".join(lines)
    with ExitStack() as stack:
        followers: list[Events] = [
            stack.enter_context(web.stream(logs_of(life, "stream/"))) for _ in range(200)
        ]
        heads = {follower.next()["data"] for follower in followers}
        assert heads == {'"first\\n"'}
        began = agent.reads.total()
        for line in lines:
            life.write("stdout", line.encode())
            agent.wait_for_reads(agent.reads.total() + 2)
        rest = {follower.text(len(expected)) for follower in followers}
        asked = agent.reads.total() - began
    assert rest == {expected.removeprefix("first\n")}
    # Two reads for each line, as we waited for them, and what happened while we compared.
    assert 2 * len(lines) <= asked <= 2 * len(lines) + 8


def test_nobody_reads_when_nobody_listens(web: Web, life: Life, agent: FakeAgent) -> None:
    life.start(stdout=b"hello")
    with web.stream(logs_of(life, "stream/")) as events:
        assert events.text(5) == "hello"
        agent.wait_for_reads(4)
    other = Life(life.node, agent).start(stdout=b"x")
    with web.stream(logs_of(other, "stream/")) as events:
        first, path = agent.reads.copy(), str(life.file("stdout").relative_to(agent.root))
        agent.wait_for_reads(agent.reads.total() + 3)
        # At most one read was under way when the listener left.
        assert agent.reads["/" + path] - first["/" + path] <= 1


def test_a_follower_that_does_not_read_holds_up_nobody(web: Web, life: Life) -> None:
    size = 30 * 1024 * 1024
    life.start(stdout=b"x" * size)
    with (
        web.stream(logs_of(life, "stream/")),  # never reads on
        web.stream(logs_of(life, "stream/")) as events,
    ):
        assert len(events.text(size)) == size


def test_polls_and_streams_and_pages_at_once(web: Web, life: Life) -> None:
    life.start(stdout=b"hello")

    def poll(number: int) -> int:
        rest = ["stdout/", "stderr/", "combined/", ""][number % 4]
        return web.get(logs_of(life, rest)).status

    with web.stream(logs_of(life, "stream/")) as events, ThreadPoolExecutor(16) as pool:
        assert set(pool.map(poll, range(64))) == {200}
        assert events.text(5) == "hello"


def test_what_is_complete_is_not_asked_for_again(web: Web, life: Life, agent: FakeAgent) -> None:
    life.start(stdout=b"hello").finish()
    assert web.get(logs_of(life, "stdout/")).headers["X-Log-Complete"] == "true"
    asked = agent.reads.total()
    assert web.get(logs_of(life, "stdout/")).body == b"hello"
    assert agent.reads.total() == asked


def test_the_views_answer_like_the_native_paths(
    web: Web, life: Life, client: Any, make_user: Any
) -> None:
    life.start(stdout=b"0123456789").finish()
    client.force_login(make_user(role="viewer"))
    for rest, header in [("stdout/", ""), ("stdout/", "bytes=4-"), ("combined/?offset=99", "")]:
        headers = {"Range": header} if header else {}
        ours = client.get(logs_of(life, rest), headers=headers)
        theirs = web.get(logs_of(life, rest), **headers)
        content = b"".join(ours.streaming_content) if ours.streaming else ours.content
        assert (ours.status_code, content) == (theirs.status, theirs.body)
        for name in ("ETag", "Content-Type", "X-Log-Complete", "Content-Length", "Content-Range"):
            assert ours.headers.get(name) == theirs.headers.get(name)
    head = client.head(logs_of(life, "stdout/"))
    assert (head.headers["Content-Length"], head.content) == ("10", b"")
    assert client.get(logs_of(life, "stream/")).status_code == 501


def test_an_event_id_that_is_none_of_ours_is_refused(web: Web, life: Life) -> None:
    life.start(stdout=b"hello")
    for headers in ({"Last_Event_ID": "12x"}, {"Last_Event_ID": "1", "last_event_id": "2"}):
        answer = web.get(logs_of(life, "stream/"), **headers)
        assert answer.status == 400, headers
        assert json.loads(answer.body)["field"] == "Last-Event-ID"


def test_two_ranges_are_as_if_none_were_there(web: Web, life: Life) -> None:
    life.start(stdout=b"hello").finish()
    answer = web.get(logs_of(life, "stdout/"), Range="bytes=0-1", range="bytes=2-3")
    assert (answer.status, answer.body) == (200, b"hello")
