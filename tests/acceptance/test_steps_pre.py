"""The pre step, run as agents run it, against servers that behave and servers that do not."""

import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_steps_web import TOKEN, UUID, Agent, FakeWeb, Handler, running_web

from scale.steps import net
from scale.steps.limits import Limits

TEXT = b"one two three\n"


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    with running_web() as web:
        yield web


@pytest.fixture
def agent(web: FakeWeb, tmp_path: Path) -> Agent:
    return Agent(web, tmp_path)


def failed(agent: Agent, code: int, sentence: str, **environ: str) -> None:
    """Run pre and demand its exit code, its sentence on stderr, and the same one told to Scale."""
    ended = agent.run("pre", **environ)
    assert (ended.code, ended.err.count("\n")) == (code, 1), ended
    assert sentence in ended.err
    assert [failure["phase"] for failure in agent.web.failures] == ["pre"]
    assert ended.err == f"steps: {agent.web.failures[0]['message']}\n"
    assert not list(agent.work_dir.glob("inputs/*/*"))


def test_inputs_are_brought_and_checked(web: FakeWeb, agent: Agent) -> None:
    size, sha256 = len(TEXT), hashlib.sha256(TEXT).hexdigest()
    plain = agent.wants(web.serve("/a.txt", TEXT), "plain")
    checked = agent.wants(web.serve("/b.txt", TEXT), "checked", size=size, sha256=sha256)
    empty = agent.wants(web.serve("/empty", b""), "empty", size=0)
    stored = agent.wants(web.serve("/files/3", TEXT), "stored", stored=True)
    ended = agent.run("pre")
    assert (ended.code, ended.err) == (0, "")
    assert [p.read_bytes() for p in (plain, checked, empty, stored)] == [TEXT, TEXT, b"", TEXT]
    assert list(agent.outputs.iterdir()) == []
    assert sorted(p.name for p in agent.work_dir.iterdir()) == ["inputs", "outputs"]
    assert agent.work_dir.stat().st_mode & 0o777 == 0o700
    assert agent.work_dir.parent.stat().st_mode & 0o777 == 0o700
    assert "inputs/plain/file.txt: 100 %, 0.0 MiB" in ended.out
    tokens = {r.path: r.authorization for r in web.requests}
    assert tokens["/files/3"] == f"Bearer {TOKEN}"
    assert tokens["/a.txt"] is None


def test_a_repeated_pre_starts_from_an_empty_folder(web: FakeWeb, agent: Agent) -> None:
    place = agent.wants(web.serve("/a.txt", TEXT))
    agent.outputs.mkdir(parents=True)
    (agent.outputs / "left-over").touch()
    place.parent.mkdir(parents=True)
    place.mkdir()
    for _ in range(2):
        assert agent.run("pre").code == 0
        assert place.read_bytes() == TEXT
        assert list(agent.outputs.iterdir()) == []


def test_progress_is_printed_while_bytes_arrive(web: FakeWeb, agent: Agent) -> None:
    go_on = web.ended

    def route(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n")
        handler.wfile.write(bytes(1048576))
        web.asked.set()
        go_on.wait()
        handler.wfile.write(bytes(3145728))

    web.routes["/big"] = route
    agent.wants(f"{web.url}/big")
    with agent.started("pre", SCALE_STEPS_PROGRESS_S="0.000001") as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(2)]
        go_on.set()
        process.communicate()
    assert process.returncode == 0
    assert seen[1].startswith("inputs/text/file.txt: ")
    assert seen[1].endswith(" of 4.0 MiB\n")


@pytest.mark.parametrize("status", [404, 410])
def test_a_missing_input_is_named(web: FakeWeb, agent: Agent, status: int) -> None:
    agent.wants(web.serve("/gone.txt", b"sorry", status=status) + "?key=secret")
    failed(agent, 11, f"input 'text': {web.url}/gone.txt?… answered {status}")
    assert web.paths().count("/gone.txt") == 1


def test_a_refusal_is_not_repeated(web: FakeWeb, agent: Agent) -> None:
    agent.wants(web.serve("/no.txt", b"", status=403))
    failed(agent, 10, "answered 403 Forbidden")
    assert web.paths().count("/no.txt") == 1


def test_a_passing_failure_is_tried_again(web: FakeWeb, agent: Agent) -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    place = agent.wants(web.raw("/a", busy, short, good))
    again = agent.wants(web.raw("/b", b"", good), "again")
    ended = agent.run("pre")
    assert ended.code == 0
    assert (place.read_bytes(), again.read_bytes()) == (b"ok", b"ok")
    assert "input 'text': answered 503 Busy; try 2 of 3" in ended.out
    assert "input 'text': 9 bytes were promised, 2 arrived; try 3 of 3" in ended.out


@pytest.mark.parametrize(
    ("answer", "sentence", "times"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "answered 500 No", 3),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", "9 bytes were promised, 2 arrived", 3),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", "more than the promised 2 bytes", 1),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "ended before its last chunk",
            3,
        ),
        (b"SSH-2.0-OpenSSH\r\n", "it does not speak HTTP properly", 3),
        (b"", "it closed the connection without an answer", 3),
    ],
    ids=["500", "short", "long", "chunk", "ssh", "nothing"],
)
def test_a_bad_answer_ends_in_a_sentence(
    web: FakeWeb, agent: Agent, answer: bytes, sentence: str, times: int
) -> None:
    agent.wants(web.raw("/bad", answer))
    failed(agent, 10, sentence)
    assert web.paths().count("/bad") == times


def test_a_body_of_unknown_length_is_taken_to_its_end(web: FakeWeb, agent: Agent) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    one = agent.wants(web.raw("/chunked", chunked), "one")
    two = agent.wants(web.raw("/closed", b"HTTP/1.0 200 OK\r\n\r\nabc"), "two", size=3)
    assert agent.run("pre").code == 0
    assert (one.read_bytes(), two.read_bytes()) == (b"abc", b"abc")


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ({"size": 15}, "15 bytes were expected, 14 are promised"),
        ({"size": 13}, "13 bytes were expected, 14 are promised"),
        ({"sha256": "0" * 64}, "its SHA-256 sum is not the expected one"),
    ],
)
def test_a_file_other_than_the_ordered_one_is_refused(
    web: FakeWeb, agent: Agent, order: dict[str, object], sentence: str
) -> None:
    agent.wants(web.serve("/a.txt", TEXT), **order)
    failed(agent, 10, sentence)


def test_an_endless_body_is_cut_at_the_expected_size(web: FakeWeb, agent: Agent) -> None:
    def route(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while not web.ended.is_set():
            handler.wfile.write(bytes(65536))

    web.routes["/endless"] = route
    agent.wants(f"{web.url}/endless", size=1000)
    failed(agent, 10, "more than the expected 1000 bytes arrived")


def test_a_file_that_cannot_fit_is_refused_before_it_is_brought(web: FakeWeb, agent: Agent) -> None:
    agent.wants(web.serve("/huge", b"x", length=2**60))
    failed(agent, 10, "input 'text' does not fit: it has")


def test_a_server_that_hangs_is_given_up(web: FakeWeb, agent: Agent) -> None:
    agent.wants(web.hang("/hang"))
    failed(agent, 10, "it stalled", SCALE_STEPS_STALL_S="0.2")
    assert web.paths().count("/hang") == 3


def test_nobody_listens(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    agent.wants(f"http://127.0.0.1:{port}/a")
    failed(agent, 10, "Connection refused")


def test_a_name_that_does_not_exist(agent: Agent) -> None:
    agent.wants("http://no-such-host.invalid/a")
    failed(agent, 10, "its name cannot be resolved")


def test_redirects_are_followed_five_times(web: FakeWeb, agent: Agent) -> None:
    for n in range(6):
        web.redirect(f"/{n}", f"{n + 1}")
    web.serve("/6", TEXT)
    place = agent.wants(f"{web.url}/1")
    assert agent.run("pre").code == 0
    assert place.read_bytes() == TEXT
    agent.wants(f"{web.url}/0", "more")
    assert "redirects more than 5 times" in agent.run("pre").err


def test_a_redirect_loop_is_seen(web: FakeWeb, agent: Agent) -> None:
    web.redirect("/a", "/b")
    agent.wants(web.redirect("/b", "/a"))
    failed(agent, 10, "it redirects in a loop")
    assert web.paths().count("/b") == 1


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://u:p@h/"])
def test_a_redirect_to_something_else_is_refused(web: FakeWeb, agent: Agent, location: str) -> None:
    agent.wants(web.redirect("/a", location))
    failed(agent, 12, "it redirects to an address that cannot be used")


def test_the_token_is_sent_to_nobody_else(web: FakeWeb, agent: Agent) -> None:
    with running_web() as other:
        other.serve("/b", TEXT)
        web.redirect("/a", f"{other.url}/b")
        web.redirect("/own", "/own-2")
        web.serve("/own-2", TEXT)
        place = agent.wants(f"{web.url}/a", stored=True)
        agent.wants(f"{web.url}/own", "own", stored=True)
        assert agent.run("pre").code == 0
        assert place.read_bytes() == TEXT
        assert [request.authorization for request in other.requests] == [None]
    seen = {request.path: request.authorization for request in web.requests}
    assert seen["/own-2"] == f"Bearer {TOKEN}"


def test_a_stored_input_elsewhere_is_refused(agent: Agent) -> None:
    with running_web() as other:
        agent.wants(other.serve("/a", TEXT), stored=True)
        failed(agent, 12, "input 'text' is not at Scale's own address")
        assert other.requests == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433"]
)
def test_a_forbidden_address_is_never_connected_to(web: FakeWeb, agent: Agent, host: str) -> None:
    web.orders["forbidden_networks"] = ["127.0.0.0/8", "::1/128"]
    web.serve("/a", TEXT)
    agent.wants(web.url.replace("127.0.0.1", host) + "/a")
    failed(agent, 12, "is in a network that inputs must not come from")
    assert "/a" not in web.paths()


def test_a_redirect_to_a_forbidden_address_is_refused(web: FakeWeb, agent: Agent) -> None:
    web.orders["forbidden_networks"] = ["127.0.0.2/32"]
    web.serve("/b", TEXT)
    agent.wants(web.redirect("/a", web.url.replace("127.0.0.1", "127.0.0.2") + "/b"))
    failed(agent, 12, "127.0.0.2 is in a network")
    assert "/b" not in web.paths()


def test_a_stored_input_may_come_from_a_forbidden_network(web: FakeWeb, agent: Agent) -> None:
    web.orders["forbidden_networks"] = ["127.0.0.0/8"]
    agent.wants(web.serve("/a", TEXT), stored=True)
    assert agent.run("pre").code == 0


def test_the_address_that_was_checked_is_the_one_connected_to(
    web: FakeWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.serve("/a", TEXT)
    port = int(web.url.rpartition(":")[2])
    lookups = iter(["127.0.0.1"])  # a second lookup would be an error

    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(lookups), port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    answer = net.exchange(net.parse_target(f"http://rebind.test:{port}/a"), Limits())
    assert b"".join(answer.blocks()) == TEXT
    answer.close()


def test_files_of_the_agent_come_from_allowed_roots_only(agent: Agent, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a b.txt").write_bytes(TEXT)
    (tmp_path / "secret").write_bytes(b"secret")
    (data / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(data / "pipe")
    agent.web.orders["file_roots"] = [str(data)]
    place = agent.wants(f"file://{data}/a%20b.txt", size=len(TEXT))
    assert agent.run("pre").code == 0
    assert place.read_bytes() == TEXT
    for uri, code in [
        (f"file://{tmp_path}/secret", 12),
        (f"file://{data}/../secret", 12),
        (f"file://{data}/%2e%2e/secret", 12),
        (f"file://{data}/link", 12),
        (f"file://elsewhere{data}/a%20b.txt", 12),
        (f"file://{data}/pipe", 12),
        (f"file://{data}", 12),
        ("file:relative", 12),
        (f"file://{data}/nothing", 11),
    ]:
        agent.web.orders["inputs"].clear()
        agent.wants(uri)
        assert (uri, agent.run("pre").code) == (uri, code)


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "inputs/../../../x", "inputs/a\nb"])
def test_orders_that_lead_out_of_the_folder_are_refused(
    web: FakeWeb, agent: Agent, path: str
) -> None:
    agent.wants(web.serve("/a", TEXT), path=path)
    failed(agent, 12, "the path for input 'text'")
    assert not agent.work_dir.exists()


def test_a_folder_that_cannot_be_made_is_a_filesystem_failure(agent: Agent) -> None:
    agent.work_dir.parent.write_text("a file where the folder should be")
    failed(agent, 13, "cannot be made")


@pytest.mark.parametrize(
    ("statuses", "code", "times"),
    [([503, 200], 0, 1), ([503], 14, 3), ([401], 14, 1), ([404], 14, 1)],
)
def test_scale_itself_is_asked_again_unless_it_refuses(
    web: FakeWeb, agent: Agent, statuses: list[int], code: int, times: int
) -> None:
    web.answers["orders"] = [status for status in statuses if status != 200] + [0] * (code == 0)
    ended = agent.run("pre")
    assert ended.code == code
    if code:
        assert f"asking for orders: Scale {'at ' if times > 1 else 'answered '}" in ended.err
        assert f"{statuses[0]}" in ended.err
        assert len([p for p in web.paths() if p.endswith("/orders/")]) == times


def test_scale_that_is_not_there_is_said_and_not_waited_for_long(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    ended = agent.run("pre", SCALE_API_URL=url)
    assert ended.code == 14
    assert f"Scale at {url} cannot be reached: Connection refused" in ended.err


def test_a_stored_file_that_scale_cannot_give_is_scales_failure(web: FakeWeb, agent: Agent) -> None:
    agent.wants(web.serve("/files/3", b"", status=503), stored=True)
    failed(agent, 14, "answered 503")


def test_a_failure_is_reported_once_and_its_loss_changes_nothing(
    web: FakeWeb, agent: Agent
) -> None:
    agent.wants(f"{web.url}/nothing-here")
    web.answers["failure"] = [503]
    assert agent.run("pre").code == 11
    assert web.paths().count(f"/agent/executions/{UUID}/failure/") == 1


def test_a_token_that_comes_back_in_an_answer_is_not_shown(web: FakeWeb, agent: Agent) -> None:
    detail = b'{"detail": "no such token: ' + TOKEN.encode() + b'"}'
    web.serve(f"/agent/executions/{UUID}/orders/", detail, status=401)
    failed(agent, 14, "Scale answered 401 Unauthorized (no such token: [token])")


@pytest.mark.parametrize(
    "environ",
    [
        {"SCALE_EXECUTION_TOKEN": ""},
        {"SCALE_EXECUTION_TOKEN": "two\nlines"},
        {"SCALE_EXECUTION_UUID": "../x"},
        {"SCALE_API_URL": "nowhere"},
        {"SCALE_STEPS_STALL_S": "soon"},
    ],
    ids=str,
)
def test_a_bad_environment_is_named(agent: Agent, environ: dict[str, str]) -> None:
    ended = agent.run("pre", **environ)
    assert ended.code == 2
    assert next(iter(environ)) in ended.err
    assert "two" not in ended.err


@pytest.mark.parametrize("arguments", [[], ["pre", "x"], ["cleanup"], ["other"]], ids=str)
def test_other_arguments_show_the_usage(agent: Agent, arguments: list[str]) -> None:
    ended = agent.run(*arguments)
    assert (ended.code, ended.err[:13]) == (2, "steps: usage:")


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_at_once(
    web: FakeWeb, agent: Agent, stop: signal.Signals, code: int
) -> None:
    agent.wants(web.hang("/hang"))
    with agent.started("pre") as process:
        assert web.asked.wait(30)
        process.send_signal(stop)
        assert process.wait(3) == code
        process.communicate()


@pytest.mark.parametrize("trusted", [True, False])
def test_https_is_used_with_certificates_that_are_trusted(
    agent: Agent, tmp_path: Path, *, trusted: bool
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([openssl, *make.split(), *more], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running_web(context) as secure:
        place = agent.wants(secure.serve("/a", TEXT))
        if trusted:
            assert agent.run("pre", SSL_CERT_FILE=str(certificate)).code == 0
            assert place.read_bytes() == TEXT
        else:
            failed(agent, 10, "its certificate is not trusted")


def test_orders_of_another_execution_are_refused(web: FakeWeb, agent: Agent) -> None:
    web.orders["execution"] = UUID.replace("0", "1")
    failed(agent, 14, "they are another execution's")
