"""Cutting the event stream into events, pacing of attempts, and what importing pymesos changes."""

import inspect
import select
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale.core.cluster import Disconnected, OfferRescinded
from scale.mesos.connection import Records
from scale.mesos.document import parse
from scale.mesos.events import EventQueue
from scale.mesos.gateway import MesosGateway
from scale.mesos.subscription import Timing
from scale.scheduler.gateway import Gateway


def framed(*records: bytes) -> bytes:
    return b"".join(b"%d\n%s" % (len(record), record) for record in records)


@given(st.lists(st.binary(min_size=1), max_size=5), st.integers(1, 40))
def test_records_come_out_whole_however_they_were_cut(records: list[bytes], size: int) -> None:
    data, reader, seen = framed(*records), Records(), []
    for start in range(0, len(data), size):
        seen += reader.feed(data[start : start + size])
    assert seen == records


@pytest.mark.parametrize("data", [b"x1\n", b"\n", b"-1\n", b"1234567890123\n", b"1234567890123"])
def test_a_broken_length_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="record length"):
        Records().feed(data)


def test_an_event_with_a_tasks_binary_message_is_read() -> None:
    assert parse(b'{"message": "\xff\x01"}') == {"message": "\N{REPLACEMENT CHARACTER}\x01"}


@pytest.mark.parametrize("data", [b"{", b"[]", b"1", b""])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(data)


def test_pauses_double_up_to_the_longest() -> None:
    timing = Timing(first_pause_s=0.5, longest_pause_s=15, jitter=lambda: 1)
    assert [timing.pause_s(failures) for failures in range(8)] == [0, 0.5, 1, 2, 4, 8, 15, 15]
    assert timing.pause_s(10_000) == 15


def test_pauses_differ_between_schedulers() -> None:
    pauses = {Timing().pause_s(3) for _ in range(20)}
    assert len(pauses) > 1
    assert all(1 <= pause <= 2 for pause in pauses)


def test_the_queue_is_readable_exactly_while_it_holds_events() -> None:
    queue = EventQueue()

    def readable() -> bool:
        return bool(select.select([queue], [], [], 0)[0])

    assert not readable()
    queue.put(Disconnected())
    queue.put(OfferRescinded("o"))
    assert readable()
    assert queue.drain() == [Disconnected(), OfferRescinded("o")]
    assert not readable()
    assert queue.drain() == []
    queue.put(Disconnected())
    assert readable()


def test_importing_pymesos_leaves_signals_and_logs_alone() -> None:
    program = """
import logging, signal
mine = lambda *_: None
signal.signal(signal.SIGINT, mine)
import scale.mesos.gateway
assert signal.getsignal(signal.SIGINT) is mine
logger = logging.getLogger("pymesos")
assert logger.handlers == [] and logger.level == logging.NOTSET
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_reading_logs_does_not_import_pymesos() -> None:
    program = "import sys, scale.mesos.files; assert 'pymesos' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def members(of: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(of).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_the_mesos_gateway_has_every_method_of_the_protocol_as_it_is_there() -> None:
    ours = members(MesosGateway)
    assert {name: ours.get(name) for name in members(Gateway)} == members(Gateway)
