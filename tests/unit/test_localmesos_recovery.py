"""What the master and an agent know again after `kill -9`, from their journals' records."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from scale.localmesos.agent import Agent
from scale.localmesos.messages import BadFrame
from scale.localmesos.place import Home
from scale.localmesos.recovery import Found, Registry, read_agent
from scale.localmesos.report import Report, TaskReport, decode_report, encode_report
from scale.localmesos.resources import Resources
from scale.localmesos.schema import convert
from scale.localmesos.tasks import launch_from
from scale.localmesos.updates import Update, UpdateStreams, make_update

# --- an agent ---


def record_of(task_id: str = "t") -> dict[str, Any]:
    info = {
        "name": task_id,
        "task_id": {"value": task_id},
        "agent_id": {"value": "a"},
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}}],
    }
    return {
        "k": "task", "framework": "f", "agent": "a", "info": convert("TaskInfo", info),
        "role": "*", "user": "root", "checkpoint": True, "killing": False,
    }  # fmt: skip


def status(uuid: str, state: str) -> dict[str, Any]:
    return {
        "task_id": {"value": "t"}, "state": state, "uuid": uuid, "agent_id": {"value": "a"},
        "timestamp": 1.5,
    }  # fmt: skip


def update(uuid: str, state: str) -> dict[str, Any]:
    return {"k": "update", "framework": "f", "status": status(uuid, state)}


def ack(uuid: str) -> dict[str, Any]:
    return {"k": "ack", "framework": "f", "task": "t", "uuid": uuid}


AWARE = {"capabilities": [{"type": "PARTITION_AWARE"}]}


def replayed(*records: dict[str, Any], info: dict[str, Any] | None = None) -> Found:
    found = Found()
    framework: dict[str, Any] = {"k": "framework", "id": "f", "info": info or {}}
    for record in ({"k": "agent", "id": "a"}, framework, *records):
        found.apply(record)
    return found


def test_a_task_without_an_end_is_found_alive() -> None:
    found = replayed(record_of(), update("1", "TASK_RUNNING"), ack("1"))
    assert found.launches[("f", "t")].resources == Resources({"cpus": 1000})
    assert (found.agent_id, found.updates, found.ended) == ("a", {}, set())


def test_an_end_that_was_not_acknowledged_waits() -> None:
    found = replayed(record_of(), update("1", "TASK_RUNNING"), update("2", "TASK_FINISHED"))
    assert [each.uuid for each in found.updates["f", "t"]] == ["1", "2"]
    assert found.ended == {("f", "t")}


def test_an_acknowledged_end_is_forgotten() -> None:
    found = replayed(record_of(), update("1", "TASK_FINISHED"), ack("1"))
    assert (found.launches, found.updates, found.ended) == ({}, {}, set())


def test_records_may_be_told_twice() -> None:
    records = (record_of(), update("1", "TASK_RUNNING"), update("2", "TASK_FINISHED"))
    assert replayed(*records, *records) == replayed(*records)


@pytest.mark.parametrize(
    "last", [{"k": "removed", "id": "f"}, {"k": "forget", "framework": "f", "task": "t"}]
)
def test_what_was_removed_or_forgotten_is_not_told(last: dict[str, Any]) -> None:
    found = replayed(record_of(), update("1", "TASK_FAILED"), last)
    found.bury()
    assert (found.launches, found.updates, found.ended) == ({}, {}, set())


@pytest.mark.parametrize(("info", "state"), [(AWARE, "TASK_GONE"), ({}, "TASK_LOST")])
def test_a_task_that_died_with_its_agent_is_told_after_what_waited(
    info: dict[str, Any], state: str
) -> None:
    found = replayed(record_of(), update("1", "TASK_RUNNING"), info=info)
    found.bury()
    first, last = found.updates["f", "t"]
    assert (first.uuid, last.status["state"]) == ("1", state)
    assert last.status["reason"] == "REASON_AGENT_RESTARTED"
    assert last.status["agent_id"] == {"value": "a"}


def test_a_task_that_has_ended_does_not_die_again() -> None:
    found = replayed(record_of(), update("1", "TASK_FINISHED"))
    found.bury()
    assert [each.uuid for each in found.updates["f", "t"]] == ["1"]


def test_an_agent_without_a_journal_gets_an_id_of_its_own(tmp_path: Path) -> None:
    first, second = (read_agent(tmp_path / "journal", 1).agent_id for _ in range(2))
    assert first.endswith("-S1")
    assert first != second


# --- the master ---


def registry(*records: dict[str, Any]) -> Registry:
    made = Registry()
    for record in records:
        made.apply(record)
    return made


HERE = {"k": "agent", "id": "a"}
AWAY = {"k": "unreachable", "id": "a", "since": 5.0}


def test_the_last_word_on_an_agent_counts() -> None:
    assert registry(HERE).absent.recovered == {"a"}
    away = registry(HERE, AWAY).absent
    assert (away.recovered, away.unreachable) == (set(), {"a": 5.0})
    back = registry(HERE, AWAY, HERE).absent
    assert (back.recovered, back.unreachable) == ({"a"}, {})
    left = registry(HERE, {"k": "left", "id": "a"}).absent
    assert (left.recovered, left.unreachable, left.gone) == (set(), {}, {})
    gone = registry(HERE, AWAY, {"k": "gone", "id": "a", "since": 6.0}).absent
    assert (gone.recovered, gone.unreachable, gone.gone) == (set(), {}, {"a": 6.0})


def test_a_removed_framework_is_known_as_such() -> None:
    framework = {"k": "framework", "id": "f", "info": AWARE}
    made = registry(framework, {"k": "removed", "id": "f"}, {"k": "removed", "id": "f"})
    assert (made.frameworks, made.removed) == ({}, ["f"])


# --- what an agent reports ---


def test_a_report_is_read_as_it_was_written() -> None:
    launch = launch_from(record_of())
    told = {"state": "TASK_RUNNING", "timestamp": 1.5, "uuid": "u"}
    report = Report(
        Resources({"cpus": 2500}, {"ports": ((1, 5),)}),
        {"f": AWARE},
        [TaskReport(launch, told)],
        [launch],
    )
    assert decode_report(encode_report(report)) == report


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"[]",
        b"{}",
        b'{"resources":[{}],"frameworks":{},"tasks":[],"holders":[]}',
        b'{"resources":[],"frameworks":[],"tasks":[],"holders":[]}',
        b'{"resources":[],"frameworks":{},"tasks":[1],"holders":[]}',
        b'{"resources":[],"frameworks":{},"tasks":[[{},{}]],"holders":[]}',
        b'{"resources":[],"frameworks":{},"tasks":[],"holders":[{"info":0}]}',
    ],
)
def test_a_report_that_is_none_is_refused(encoded: bytes) -> None:
    with pytest.raises(BadFrame):
        decode_report(encoded)


@pytest.mark.parametrize("missing", ["state", "uuid", "timestamp", "task_id"])
def test_a_status_without_what_each_has_is_refused(missing: str) -> None:
    told = {name: value for name, value in status("1", "TASK_RUNNING").items() if name != missing}
    with pytest.raises((LookupError, TypeError)):
        make_update("f", orjson.dumps(told))


# --- what is told ---


class SlowDisk:
    """A journal whose records are safe when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def append(self, _: bytes, then: Callable[[], None] | None = None) -> None:
        if then is not None:
            self.waiting.append(then)


def test_an_update_is_told_when_it_is_on_the_disk_and_not_before(tmp_path: Path) -> None:
    async def run() -> None:
        disk, told = SlowDisk(), list[Update]()
        place = Home("a", "host", "127.0.0.1", 1, Resources(), tmp_path)
        tools: Any = SimpleNamespace(
            journal=disk, children=None, threads=None, docker=None, ack_retry_s=60, gc_delay_s=60
        )
        master: Any = SimpleNamespace(forward=told.append)
        agent = Agent(place, tools, master)
        agent.missing(("f", "t"), "TASK_DROPPED")
        assert told == []
        disk.waiting.pop()()
        assert [each.status["state"] for each in told] == ["TASK_DROPPED"]
        agent.streams.forget(("f", "t"))

    asyncio.run(run())


# --- streams ---


def in_loop(work: Callable[[UpdateStreams, list[Update]], None]) -> None:
    async def run() -> None:
        sent: list[Update] = []
        streams = UpdateStreams(sent.append, 60.0)
        work(streams, sent)
        for key in streams.waiting():
            streams.forget(key)

    asyncio.run(run())


def test_a_new_master_is_sent_every_head_again_and_nothing_behind_it() -> None:
    first, second = (
        make_update("f", orjson.dumps(status(uuid, "TASK_RUNNING"))) for uuid in ("1", "2")
    )

    def work(streams: UpdateStreams, sent: list[Update]) -> None:
        streams.append(first)
        streams.append(second)
        assert sent == [first]
        streams.resend()
        streams.resend("other")
        streams.resend("f")
        assert sent == [first] * 3
        assert streams.acknowledge(("f", "t"), "1") == first
        assert sent[-1] == second

    in_loop(work)
