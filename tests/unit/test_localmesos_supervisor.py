"""What the keeper does when the machine refuses: no process, no whole file of credentials."""

import errno
import io
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from scale.localmesos import options, supervisor
from scale.localmesos.http import Credentials
from scale.localmesos.server import credentials
from scale.localmesos.supervisor import SIGNALS, Part, Supervisor


def refuse() -> int:
    raise OSError(errno.EAGAIN, "no more processes")


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Supervisor, Part]]:
    """A keeper of one part, which cannot be forked."""
    monkeypatch.setattr(os, "fork", refuse)
    given = options.parse(["--work-dir", str(tmp_path)])
    with socket.socket() as http:
        part = Part("agent-1", http, lambda _: pytest.fail("it was forked"), 0.0)
        made = Supervisor(given, Credentials("p", "s"), -1)
        made.parts = [part]
        yield made, part
        made._selector.close()
        for descriptor in made._wakeup:
            os.close(descriptor)


def blocked() -> set[int]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(SIGNALS)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_part_that_cannot_be_forked_is_tried_again_later_and_later(
    keeper: tuple[Supervisor, Part],
) -> None:
    made, part = keeper
    made._announced = True
    before = descriptors()
    waits = []
    for _ in range(3):
        made._start(part)
        assert part.start_at is not None
        waits.append(part.start_at - time.monotonic())
    assert blocked() == set(), "the keeper would hear of nothing any more"
    assert part.pid == 0
    assert descriptors() <= before
    assert [0.05 < wait < supervisor.LONGEST_PAUSE_S for wait in waits] == [True] * 3
    assert waits == sorted(waits)


def test_at_the_first_start_a_part_that_cannot_be_forked_ends_the_keeper(
    keeper: tuple[Supervisor, Part],
) -> None:
    made, part = keeper
    with pytest.raises(OSError, match="no more processes"):
        made._start(part)
    assert blocked() == set()


class Ended(BaseException):
    """What `os._exit` is here."""


class FullDisk(io.StringIO):
    """A log that takes nothing."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "no space")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "no space")

    def close(self) -> None:
        """Do not flush."""


def test_a_part_that_cannot_even_say_why_it_fails_ends_and_is_no_second_keeper(
    keeper: tuple[Supervisor, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, part = keeper

    def end(status: int) -> None:
        raise Ended(status)

    def fail(_: object) -> NoReturn:
        raise OSError("the journal cannot be read")

    part.make = fail
    monkeypatch.setattr(made, "_links", None, raising=False)
    monkeypatch.setattr(made, "_folder", 0, raising=False)
    monkeypatch.setattr(made, "_separate", lambda *_: None)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(sys, "stderr", FullDisk())
    with pytest.raises(Ended) as caught:
        made._become(part, (1, 1), -1)
    assert caught.value.args == (1,)


# --- the credentials ---


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_credentials_are_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "credentials"
    with full_disk(), pytest.raises(OSError, match="File too large"):
        credentials(path)
    assert list(path.parent.iterdir()) == []
    made = credentials(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert credentials(path).principal == made.principal
    principal, secret = path.read_text().split()
    assert (principal, len(secret) > 30) == (made.principal, True)


@pytest.mark.parametrize("torn", ["", "local-1", "local-1\n", "\nsecret\n", "a:b\nsecret\n"])
def test_a_file_without_both_is_refused_in_words(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(torn)
    with pytest.raises(ValueError, match="must hold a principal without colon and a secret"):
        credentials(path)
    assert path.read_text() == torn
