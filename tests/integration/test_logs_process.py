"""The web process as a whole: how it ends, and that no body makes it grow."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from knox.models import AuthToken
from log_world import THREE_PHASES, FakeAgent, Life, Web, make_node, running_agent

from scale.job import tokens
from scale.job.models import File

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024
# uvicorn as it comes: it waits for open responses for ever.
PROGRAM = """
import socket, uvicorn
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config("scale.asgi:application", lifespan="on", log_config=None, ws="none")
uvicorn.Server(config).run([listener])
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with running_agent(tmp_path) as agent:
        yield agent


@pytest.fixture
def process(transactional_db: None, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    facts = connection.settings_dict
    query = urlencode({"host": facts["HOST"], "user": facts["USER"]})
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"postgresql:///{facts['NAME']}?{query}",
        "SCALE_SECRET_KEY": "only for tests",
        "SCALE_STORAGE_DIR": str(tmp_path / "stored"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def web(process: subprocess.Popen[str], make_user: Callable[..., Any]) -> Web:
    assert process.stdout is not None
    token = AuthToken.objects.create(make_user(role="viewer"))[1]
    return Web(int(process.stdout.readline()), token)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_end_when_the_process_is_told_to(
    web: Web, process: subprocess.Popen[str], agent: FakeAgent, number: signal.Signals
) -> None:
    life = Life(make_node(agent), agent).start(stdout=b"hello")
    with ExitStack() as stack:
        path = f"/job-executions/{life.pk}/logs/stream/"
        followers = [stack.enter_context(web.stream(path)) for _ in range(5)]
        assert {follower.text(5) for follower in followers} == {"hello"}
        process.send_signal(number)
        # A response that ends as it should, not a connection that breaks.
        assert [follower.next() for follower in followers] == [{}] * 5
        process.wait(20)


def test_a_large_output_does_not_grow_the_process(
    web: Web, process: subprocess.Popen[str], agent: FakeAgent
) -> None:
    life = Life(make_node(agent), agent, THREE_PHASES)
    life.start().hold().start().hold().start()
    token = tokens.issue(life.row.uuid, life.row.task_id)
    assert web.get("/healthz").status == 200
    before = peak_mib(process)
    answer = web.ask(
        "PUT",
        f"/agent/executions/{life.row.uuid}/outputs/?output=out&name=large",
        (b"x" * MIB for _ in range(100)),
        Authorization=f"Bearer {token}",
        Content_Length=str(100 * MIB),
    )
    assert answer.status == 201
    assert File.objects.get(pk=answer.json()["file_id"]).size == 100 * MIB
    assert peak_mib(process) - before < 20


def test_an_output_that_was_cut_off_leaves_nothing(
    web: Web, agent: FakeAgent, tmp_path: Path
) -> None:
    life = Life(make_node(agent), agent, THREE_PHASES)
    life.start().hold().start().hold().start()
    token = tokens.issue(life.row.uuid, life.row.task_id)
    path = f"/agent/executions/{life.row.uuid}/outputs/?output=out&name=cut"

    def breaks() -> Iterator[bytes]:
        yield b"x" * MIB
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        web.ask("PUT", path, breaks(), Authorization=f"Bearer {token}", Content_Length=str(9 * MIB))
    whole = web.ask("PUT", path, b"all", Authorization=f"Bearer {token}")
    assert whole.status == 201
    assert File.objects.get(execution=life.pk).size == 3


def peak_mib(process: subprocess.Popen[str]) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    [peak] = [line for line in lines if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 1024
