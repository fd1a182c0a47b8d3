"""Shared reads: how often an agent is asked, and that everybody gets the right bytes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scale.api.log_reader import BACK_OFF_S, INTERVAL_S, LogReader, Recent, View
from scale.job import logs
from scale.job.logs import CUT_NOTE, Agents, LogGone, Logs, LogUnreachable, Piece
from scale.job.models import ArchivedLog

BLOCK = ArchivedLog.BLOCK_BYTES
PAGE = 64 * 1024
#: No part of it is like another.
NUMBERS = b"".join(b"%d," % number for number in range(3 * BLOCK // 4))


@dataclass
class Chunk:
    data: bytes
    size: int


class Gone(Exception):
    pass


class Silent(Exception):
    pass


class Refused(Exception):
    pass


@dataclass
class Cluster:
    """One execution on one agent, in memory; the test turns the clock."""

    now: float = 1000.0
    files: dict[str, bytes] = field(default_factory=dict)
    reads: list[tuple[str, int]] = field(default_factory=list)
    finds: int = 0
    is_silent: bool = False
    is_refusing: bool = False
    is_finished: bool = False
    phases: dict[str, bool] = field(default_factory=lambda: {"job": False})

    def read(self, address: str, port: int, path: str, offset: int, length: int) -> Chunk:
        self.reads.append((path, offset))
        if self.is_silent:
            raise Silent
        if self.is_refusing:
            raise Refused
        if path not in self.files:
            raise Gone
        content = self.files[path]
        return Chunk(content[offset : offset + min(length, PAGE)], len(content))

    def find(self, execution_id: int) -> Logs:
        self.finds += 1
        pieces = tuple(
            Piece(phase, stream, "127.0.0.1", 5051, f"{phase}/{stream}", True, ended)
            for phase, ended in self.phases.items()
            for stream in ("stdout", "stderr")
        )
        return Logs(execution_id, self.is_finished, pieces)

    def pass_time(self, seconds: float = INTERVAL_S) -> None:
        self.now += seconds

    def write(self, path: str, data: bytes) -> None:
        self.files[path] = self.files.get(path, b"") + data

    def end(self) -> None:
        self.phases = dict.fromkeys(self.phases, True)
        self.is_finished = True


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(files={"job/stdout": b"", "job/stderr": b""})


@pytest.fixture
def reader(cluster: Cluster) -> LogReader:
    return make_reader(cluster)


def make_reader(cluster: Cluster, cache_bytes: int = 64 * 1024 * 1024) -> LogReader:
    agents = Agents(cluster.read, Gone, Silent, Refused)
    return LogReader(agents, cluster.find, clock=lambda: cluster.now, cache_bytes=cache_bytes)


def whole(reader: LogReader, view: View) -> bytes:
    return reader.read(view, 0, view.size)


def test_who_knows_that_it_ended_gets_all_of_it_within_the_interval(
    cluster: Cluster, reader: LogReader
) -> None:
    cluster.write("job/stdout", b"half")
    assert whole(reader, reader.view(1, "stdout")) == b"half"
    cluster.write("job/stdout", b" and half")
    cluster.end()
    assert whole(reader, reader.view(1, "stdout", ended=True)) == b"half and half"
    for _ in range(10):
        assert reader.view(1, "stdout", ended=True).is_complete
    assert len(cluster.reads) == 2


def test_many_readers_cost_one_read_per_interval(cluster: Cluster, reader: LogReader) -> None:
    cluster.write("job/stdout", b"hello")
    for _ in range(3):
        views = [reader.view(1, "stdout") for _ in range(100)]
        assert {whole(reader, view) for view in views} == {b"hello"}
        cluster.pass_time()
    assert cluster.reads == [("job/stdout", 0), ("job/stdout", 5), ("job/stdout", 5)]
    assert cluster.finds == 3


def test_logs_of_the_same_piece_share_its_reads(cluster: Cluster, reader: LogReader) -> None:
    cluster.write("job/stdout", b"hello")
    assert whole(reader, reader.view(1, "stdout")) == b"hello"
    assert whole(reader, reader.view(1, "combined")) == b"==> job stdout <==\nhello"
    assert len(cluster.reads) == 1


def test_news_after_a_block_that_was_dropped_are_not_taken_for_its_start(
    cluster: Cluster,
) -> None:
    reader = make_reader(cluster, cache_bytes=1)
    cluster.write("job/stdout", NUMBERS[: BLOCK + 1000])
    view = reader.view(1, "stdout")
    assert reader.read(view, BLOCK, 1000) == NUMBERS[BLOCK : BLOCK + 1000]
    assert reader.read(view, 0, 1000) == NUMBERS[:1000]  # now the second block is not in memory
    cluster.write("job/stdout", b"news")
    cluster.pass_time()
    view = reader.view(1, "stdout")
    assert reader.read(view, BLOCK, 2000) == NUMBERS[BLOCK : BLOCK + 1000] + b"news"


def test_readers_in_many_threads_share_a_read(cluster: Cluster, reader: LogReader) -> None:
    cluster.write("job/stdout", b"x" * 1000)
    together = Barrier(16)

    def look(_: int) -> bytes:
        together.wait()
        return whole(reader, reader.view(1, "stdout"))

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(look, range(16))) == {b"x" * 1000}
    assert len(cluster.reads) == 1


def test_what_grows_is_read_from_where_it_ended(cluster: Cluster, reader: LogReader) -> None:
    written = b""
    for line in (b"one\n", b"two\n", b"three\n"):
        cluster.write("job/stdout", line)
        written += line
        view = reader.view(1, "stdout")
        assert whole(reader, view) == written
        assert not view.is_complete
        cluster.pass_time()
    assert [offset for _, offset in cluster.reads] == [0, 4, 8]


def test_what_is_in_memory_is_had_without_waiting(cluster: Cluster, reader: LogReader) -> None:
    assert reader.recent_view(1, "stdout") is None
    cluster.write("job/stdout", b"hello")
    view = reader.view(1, "stdout")
    assert reader.recent_view(1, "stdout") is view
    assert reader.recent_bytes(view, 1, 3) == b"ell"
    assert reader.recent_bytes(view, 5, 3) == b""
    cluster.pass_time()
    assert reader.recent_view(1, "stdout") is None


def test_phases_follow_each_other_and_offsets_stay(cluster: Cluster, reader: LogReader) -> None:
    cluster.files = {f"{p}/{s}": b"" for p in ("pre", "job") for s in ("stdout", "stderr")}
    cluster.phases = {"pre": False}
    cluster.write("pre/stdout", b"pre\n")
    first = whole(reader, reader.view(1, "stdout"))
    cluster.write("pre/stdout", b"more\n")
    cluster.phases = {"pre": True, "job": False}
    cluster.write("job/stdout", b"job\n")
    cluster.pass_time()
    later = whole(reader, reader.view(1, "stdout"))
    assert (first, later) == (b"pre\n", b"pre\nmore\njob\n")
    cluster.pass_time()
    cluster.reads.clear()
    assert reader.view(1, "stdout").size == 13
    assert [path for path, _ in cluster.reads] == ["job/stdout"]  # pre is final


def test_a_combined_log_only_grows_at_its_end(cluster: Cluster, reader: LogReader) -> None:
    seen = [whole(reader, reader.view(1, "combined"))]
    for path, line in [("job/stderr", b"bad\n"), ("job/stdout", b"good"), ("job/stderr", b"!\n")]:
        cluster.write(path, line)
        cluster.pass_time()
        seen.append(whole(reader, reader.view(1, "combined")))
    cluster.end()
    cluster.pass_time()
    seen.append(whole(reader, reader.view(1, "combined")))
    assert all(after.startswith(before) for before, after in pairwise(seen))
    assert seen[-1] == b"==> job stdout <==\ngood\n==> job stderr <==\nbad\n!\n"
    assert reader.view(1, "combined").is_complete


def test_a_log_is_complete_when_it_was_read_after_the_end(
    cluster: Cluster, reader: LogReader
) -> None:
    cluster.write("job/stdout", b"a")
    assert not reader.view(1, "stdout").is_complete
    cluster.write("job/stdout", b"b")
    cluster.end()
    cluster.pass_time()
    view = reader.view(1, "stdout")
    assert (view.is_complete, whole(reader, view)) == (True, b"ab")
    cluster.reads.clear()
    cluster.pass_time(5)
    assert reader.view(1, "stdout").is_complete
    assert cluster.reads == []


def test_a_sandbox_that_is_not_there_yet_is_an_empty_log(
    cluster: Cluster, reader: LogReader
) -> None:
    cluster.files.clear()
    view = reader.view(1, "stdout")
    assert (view.size, view.problem, view.is_complete) == (0, "", False)
    cluster.write("job/stdout", b"now")
    cluster.pass_time()
    assert reader.view(1, "stdout").size == 3


def test_a_sandbox_that_is_gone_is_a_lost_log(cluster: Cluster, reader: LogReader) -> None:
    cluster.files.clear()
    cluster.end()
    view = reader.view(1, "stdout")
    assert (view.size, view.problem, view.is_complete) == (0, "lost", True)


def test_an_agent_that_is_silent_is_left_alone_and_what_was_read_stays(
    cluster: Cluster, reader: LogReader
) -> None:
    cluster.write("job/stdout", b"hello")
    reader.view(1, "stdout")
    cluster.is_silent = True
    cluster.reads.clear()
    for _ in range(int(BACK_OFF_S / INTERVAL_S)):
        cluster.pass_time()
        view = reader.view(1, "stdout")
        other = reader.view(2, "stderr")
        assert (view.problem, whole(reader, view)) == ("agent_unreachable", b"hello")
        assert other.problem == "agent_unreachable"
    assert len(cluster.reads) == 1
    cluster.is_silent = False
    cluster.pass_time(BACK_OFF_S)
    assert reader.view(1, "stdout").problem == ""
    assert reader.view(2, "stderr").problem == ""


def test_an_agent_that_refuses_is_said_so(cluster: Cluster, reader: LogReader) -> None:
    cluster.is_refusing = True
    view = reader.view(1, "stdout")
    assert (view.problem, view.size, view.is_complete) == ("agent_error", 0, False)


def test_bytes_that_cannot_be_had_now_raise(cluster: Cluster) -> None:
    reader = make_reader(cluster, cache_bytes=1)
    cluster.write("job/stdout", b"x" * (2 * BLOCK))
    view = reader.view(1, "stdout")
    cluster.is_silent = True
    with pytest.raises(LogUnreachable):
        reader.read(view, BLOCK, 10)
    cluster.is_silent = False
    cluster.pass_time(BACK_OFF_S)
    cluster.files.clear()
    with pytest.raises(LogGone):
        reader.read(view, BLOCK, 10)


def test_a_log_that_became_shorter_keeps_its_offsets(cluster: Cluster, reader: LogReader) -> None:
    cluster.write("job/stdout", b"0123456789")
    reader.view(1, "stdout")
    cluster.files["job/stdout"] = b"x"
    cluster.pass_time()
    view = reader.view(1, "stdout")
    assert (view.size, whole(reader, view)) == (10, b"0123456789")


def test_a_very_long_log_ends_with_a_note(
    cluster: Cluster, reader: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "KEPT_BYTES", 1000)
    cluster.write("job/stdout", b"x" * 1000)
    exactly = whole(reader, reader.view(1, "stdout"))
    cluster.write("job/stdout", b"y")
    cluster.pass_time()
    over = whole(reader, reader.view(1, "stdout"))
    cluster.write("job/stdout", b"z" * 5000)
    cluster.end()
    cluster.pass_time()
    view = reader.view(1, "stdout")
    assert exactly == b"x" * 1000
    assert over == b"x" * 1000 + CUT_NOTE == whole(reader, view)
    assert view.is_complete


@settings(max_examples=50, deadline=None)
@given(
    growth=st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=5),
    where=st.floats(0, 1),
    length=st.integers(0, 3 * BLOCK),
    cache=st.sampled_from([1, BLOCK, 64 * BLOCK]),
)
def test_any_range_of_any_log_is_what_the_agent_has(
    growth: list[int], where: float, length: int, cache: int
) -> None:
    cluster = Cluster(files={"job/stdout": b"", "job/stderr": b""})
    reader = make_reader(cluster, cache_bytes=cache)
    for size in growth:
        cluster.write("job/stdout", NUMBERS[:size])
        cluster.pass_time()
        view = reader.view(1, "stdout")
        offset = int(view.size * where)
        expected = cluster.files["job/stdout"][offset : offset + length]
        assert reader.read(view, offset, length) == expected
        assert reader.recent_bytes(view, offset, length) in {None, expected}


@pytest.fixture
def recent() -> Recent[str, bytes]:
    return Recent(10, len)


def test_what_was_used_longest_ago_is_dropped_first(recent: Recent[str, bytes]) -> None:
    recent.put("a", b"1234")
    recent.put("b", b"1234")
    assert recent.get("a") == b"1234"
    recent.put("c", b"1234")
    assert [recent.get(key) for key in "abc"] == [b"1234", None, b"1234"]
    recent.put("c", b"12")
    assert recent.weight == 6
    recent.drop("a")
    recent.drop("a")
    assert recent.weight == 2
