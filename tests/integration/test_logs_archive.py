"""Archiving: byte for byte, whatever dies meanwhile, and never more than once."""

import gzip
import random
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import psycopg2
import pytest
from django.core.files.storage import default_storage
from django.db import DatabaseError, connection
from log_world import (
    NOON,
    THREE_PHASES,
    FakeAgent,
    Life,
    make_node,
    running_agent,
    wait_until,
)

from scale.api.log_reader import LogReader
from scale.job import archive, logs
from scale.job.archive import OFFLINE_GIVE_UP, REFUSED_GIVE_UP, archive_owed_logs
from scale.job.logs import CUT_NOTE, Agents, find_logs
from scale.job.models import ArchivedLog
from scale.job.tasks import archive_logs
from scale.mesos.files import AgentError, AgentFiles, AgentUnreachable, FileGone
from scale.node.models import Node

pytestmark = pytest.mark.django_db
BLOCK = ArchivedLog.BLOCK_BYTES


@pytest.fixture(autouse=True)
def stored_in(tmp_path: Path, settings: Any) -> Path:
    """Keep stored files in a folder of the test's own."""
    folder = tmp_path / "stored"
    storages = {**settings.STORAGES}
    storages["default"] = {**storages["default"], "OPTIONS": {"location": folder}}
    settings.STORAGES = storages
    return folder


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with running_agent(tmp_path / "agent") as agent:
        yield agent


@pytest.fixture
def node(db: None, agent: FakeAgent) -> Node:
    return make_node(agent)


@pytest.fixture
def life(node: Node, agent: FakeAgent) -> Life:
    return Life(node, agent)


@pytest.fixture
def agents() -> Iterator[Agents]:
    files = AgentFiles(None, None, timeout_s=5)
    yield Agents(files.read, FileGone, AgentUnreachable, AgentError)
    files.close()


@pytest.fixture
def run(agents: Agents) -> Callable[..., int]:
    def run(after: timedelta = timedelta()) -> int:
        return archive_owed_logs(agents, now=NOON + after)

    return run


def whole(agents: Agents, life: Life, name: str = "stdout") -> bytes:
    """Read a log as the interface does, with nothing in memory."""

    reader = LogReader(agents, find_logs)
    view = reader.view(life.pk, name)
    assert view.is_complete
    return reader.read(view, 0, view.size)


def row(life: Life, stream: str = "stdout") -> ArchivedLog:
    return ArchivedLog.objects.get(execution=life.pk, stream=stream)


def owed(life: Life) -> bool:
    return type(life.row).objects.get(pk=life.pk).logs_owed


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
@pytest.mark.parametrize("page", [64 * 1024, 1024 * 1024])
def test_an_archived_log_is_what_the_live_one_was(
    run: Callable[..., int], life: Life, agents: Agents, size: int, page: int
) -> None:
    life.agent.page = page
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    life.start(stdout=content, stderr=b"some\n").finish()
    names = ("stdout", "stderr", "combined")
    live = [whole(agents, life, name) for name in names]
    assert run() == 1
    asked = life.agent.reads.total()
    assert [whole(agents, life, name) for name in names] == live
    assert live[0] == content
    assert life.agent.reads.total() == asked  # the archive alone was read
    assert not owed(life)


def test_what_is_stored_is_plain_gzip(run: Callable[..., int], life: Life, stored_in: Path) -> None:
    content = b"line\n" * 200_000
    life.start(stdout=content).finish()
    run()
    log = row(life)
    [file] = [path for path in stored_in.rglob("*") if path.is_file()]
    assert gzip.decompress(file.read_bytes()) == content
    assert len(log.block_ends) == -(-len(content) // BLOCK)
    assert log.block_ends[-1] == file.stat().st_size
    assert (row(life, "stderr").size, row(life, "stderr").storage_name) == (0, "")


def test_every_phase_is_archived(
    run: Callable[..., int], node: Node, agent: FakeAgent, agents: Agents
) -> None:
    life = Life(node, agent, THREE_PHASES)
    life.start(stdout=b"pre\n").hold().start(stdout=b"job\n", stderr=b"oh\n").hold()
    life.start(stdout=b"post\n").finish()
    run()
    assert ArchivedLog.objects.filter(execution=life.pk).count() == 6
    assert whole(agents, life) == b"pre\njob\npost\n"
    assert whole(agents, life, "stderr") == b"oh\n"


def test_logs_are_found_under_the_framework_that_launched_the_task(
    run: Callable[..., int], node: Node, agent: FakeAgent, agents: Agents
) -> None:
    life = Life(node, agent, THREE_PHASES)
    life.start(stdout=b"pre\n").hold()
    life.framework_id = "the-next-framework"  # the master removed the first one meanwhile
    life.start(stdout=b"job\n").hold().start(stdout=b"post\n").finish()
    assert whole(agents, life) == b"pre\njob\npost\n"
    run()
    assert whole(agents, life) == b"pre\njob\npost\n"
    assert not ArchivedLog.objects.filter(execution=life.pk, lost=True).exists()


def test_what_still_runs_is_left_alone(run: Callable[..., int], life: Life) -> None:
    life.start(stdout=b"more to come")
    assert run() == 0
    assert not ArchivedLog.objects.exists()


def test_a_second_run_reads_nothing(run: Callable[..., int], life: Life) -> None:
    life.start(stdout=b"hello").finish()
    assert run() == 1
    asked = life.agent.reads.total()
    assert run() == 0
    assert life.agent.reads.total() == asked


def test_a_run_that_died_after_storing_is_done_again(
    run: Callable[..., int],
    life: Life,
    agents: Agents,
    stored_in: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life.start(stdout=b"hello" * 1000).finish()

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_settle", die)
        with pytest.raises(SystemExit):
            run()
    assert owed(life)
    assert run() == 1
    assert whole(agents, life) == b"hello" * 1000
    assert len([path for path in stored_in.rglob("*") if path.is_file()]) == 1


def test_a_run_that_died_before_the_debt_was_cleared_reads_nothing_again(
    run: Callable[..., int], life: Life
) -> None:
    life.start(stdout=b"hello").finish()
    run()
    type(life.row).objects.filter(pk=life.pk).update(logs_owed=True)
    asked = life.agent.reads.total()
    assert run() == 1
    assert life.agent.reads.total() == asked
    assert not owed(life)


def test_a_log_that_the_agent_no_longer_has_is_noted_as_lost(
    run: Callable[..., int], life: Life
) -> None:
    life.start(stdout=b"hello", stderr=b"there").finish()
    life.file("stdout").unlink()
    run()
    assert (row(life).lost, row(life).size) == (True, 0)
    assert (row(life, "stderr").lost, row(life, "stderr").size) == (False, 5)
    assert not owed(life)


def test_a_task_that_never_started_lost_nothing(run: Callable[..., int], life: Life) -> None:
    from scale.core.lifecycle import Event

    life.launch().move(Event.FAIL, error="node-lost")
    run()
    assert not row(life).lost
    assert not owed(life)


def test_logs_of_a_silent_agent_stay_owed_until_it_was_offline_for_long(
    run: Callable[..., int], life: Life, node: Node, tmp_path: Path
) -> None:
    life.start(stdout=b"hello").finish()
    Node.objects.filter(pk=node.pk).update(port=1)
    with running_agent(tmp_path / "other") as other:
        fine = Life(make_node(other), other).start(stdout=b"fine").finish()
        assert run() == 1
    assert (owed(life), owed(fine)) == (True, False)
    assert run(OFFLINE_GIVE_UP * 2) == 0  # it is online, as far as the cluster says
    Node.objects.filter(pk=node.pk).update(is_online=False)
    assert run(OFFLINE_GIVE_UP / 2) == 0
    assert run(OFFLINE_GIVE_UP * 2) == 1
    assert row(life).lost
    assert not owed(life)


def test_a_silent_agent_is_asked_about_one_execution_only(
    agents: Agents, run: Callable[..., int], node: Node, agent: FakeAgent
) -> None:
    for _ in range(30):
        Life(node, agent).start().finish()
    Node.objects.filter(pk=node.pk).update(port=1)
    tries = []

    def read(*where: Any) -> Any:
        tries.append(where)
        return agents.read_file(*where)

    counting = Agents(read, agents.gone, agents.unreachable, agents.refused)
    assert archive_owed_logs(counting, now=NOON) == 0
    assert len(tries) <= archive._READERS


def test_an_agent_that_refuses_one_log_holds_up_no_other(
    run: Callable[..., int], life: Life, node: Node, agent: FakeAgent
) -> None:
    life.start(stdout=b"hello").finish()
    agent.status = 500
    assert run() == 0
    assert owed(life)
    agent.refused = str(life.row.uuid)
    agent.status = 0
    other = Life(node, agent).start(stdout=b"x").finish()
    assert run() == 1
    assert (owed(life), owed(other)) == (True, False)
    assert run(REFUSED_GIVE_UP * 2) == 1
    assert row(life).lost


def test_what_is_readable_is_kept_once_while_the_rest_is_refused(
    run: Callable[..., int], life: Life, agent: FakeAgent, stored_in: Path
) -> None:
    life.start(stdout=b"hello", stderr=b"there").finish()
    agent.refused = "stderr"
    for _ in range(3):
        assert run() == 0
        assert len([path for path in stored_in.rglob("*") if path.is_file()]) == 1
    assert [times for path, times in agent.reads.items() if path.endswith("stdout")] == [1]
    assert owed(life)
    assert run(REFUSED_GIVE_UP * 2) == 1
    assert (row(life).lost, row(life).size) == (False, 5)
    assert row(life, "stderr").lost


def test_more_than_a_batch_is_done_in_one_run(
    run: Callable[..., int],
    node: Node,
    agent: FakeAgent,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_max_num_queries: Any,
) -> None:
    monkeypatch.setattr(archive, "_BATCH", 4)
    lives = [Life(node, agent).start(stdout=b"x").finish() for _ in range(10)]
    with django_assert_max_num_queries(2 + 3 * 7):
        assert run() == 10
    assert not any(owed(life) for life in lives)


def test_a_very_long_log_is_cut_and_says_so(
    run: Callable[..., int], life: Life, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "KEPT_BYTES", 2 * BLOCK + 100)
    life.start(stdout=b"x" * (9 * BLOCK)).finish()
    live = whole(agents, life)
    run()
    assert whole(agents, life) == live == b"x" * (2 * BLOCK + 100) + CUT_NOTE


def test_a_stored_file_that_was_lost_is_no_error_of_ours(
    run: Callable[..., int], life: Life, agents: Agents
) -> None:
    life.start(stdout=b"hello").finish()
    run()
    default_storage.delete(row(life).storage_name)
    with pytest.raises(logs.LogGone):
        whole(agents, life)


def test_only_one_archiver_works_at_a_time(run: Callable[..., int], life: Life) -> None:
    life.start(stdout=b"hello").finish()
    facts = connection.get_connection_params()
    facts.pop("cursor_factory", None)
    other = psycopg2.connect(**facts)
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [archive._LOCK])
        assert run() == 0
        assert owed(life)
    finally:
        other.close()
    wait_until(lambda: run() == 1)  # the server sees a moment later that we hung up


def test_the_task_archives_what_is_owed(life: Life) -> None:
    life.start(stdout=b"hello").finish()
    archive_logs()
    assert not owed(life)


def test_a_disk_that_is_full_has_no_half_logs_and_none_twice(
    run: Callable[..., int], life: Life, agents: Agents, stored_in: Path
) -> None:
    content = random.Random(7).randbytes(300_000)
    life.start(stdout=b"fits", stderr=content).finish()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(3):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as a disk that fills up
        try:
            with pytest.raises(OSError, match="File too large"):
                run()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert row(life).size == 4
        assert len([path for path in stored_in.rglob("*") if path.is_file()]) == 1
    assert owed(life)
    assert run() == 1
    assert whole(agents, life, "stderr") == content
    assert life.agent.reads[f"/{life.file('stdout').relative_to(life.agent.root)}"] == 1


@pytest.mark.django_db(transaction=True)
def test_an_archiver_that_lost_its_session_removes_no_file_of_the_next_one(
    run: Callable[..., int], life: Life, agents: Agents
) -> None:
    content = b"hello" * 1000
    life.start(stdout=content).finish()
    reads, goes_on = Event(), Event()
    backend: SimpleQueue[int] = SimpleQueue()

    def read(*where: Any) -> Any:
        chunk = agents.read_file(*where)
        reads.set()
        assert goes_on.wait(10)
        return chunk

    def first() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                backend.put(cursor.fetchone()[0])
            slow = Agents(read, agents.gone, agents.unreachable, agents.refused)
            archive_owed_logs(slow, now=NOON)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        died = pool.submit(first)
        assert reads.wait(10)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [backend.get()])
        wait_until(lambda: run() == 1)  # the lock is free a moment later
        goes_on.set()
        with pytest.raises(DatabaseError):
            died.result(10)
    assert whole(agents, life) == content
