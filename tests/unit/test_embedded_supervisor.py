"""The supervisor with small real processes; its clock and its back-off are the test's."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from scale.embedded.console import Console
from scale.embedded.errors import CannotStart
from scale.embedded.supervisor import Backoff, Part, Supervisor, how_it_ended


class Stage:
    """A supervisor whose log is a file and whose waits are events."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("wb")
        self.now = 0.0
        self.delays: asyncio.Queue[float] = asyncio.Queue()
        self.go_on = asyncio.Semaphore(0)
        self.supervisor = Supervisor(
            Console(self._log.fileno()), clock=lambda: self.now, sleep=self._sleep
        )
        self.pids: asyncio.Queue[int] = asyncio.Queue()

    async def _sleep(self, seconds: float) -> None:
        self.delays.put_nowait(seconds)
        await self.go_on.acquire()

    def part(self, script: str, name: str = "part", **fields: Any) -> Part:
        async def missing(pid: int) -> str | None:
            self.pids.put_nowait(pid)
            return None

        fields = {"missing": missing, **fields}
        return Part(
            name=name, launch=lambda: ["/bin/sh", "-c", script], environment=os.environ, **fields
        )

    def said(self) -> str:
        return Path(self._log.name).read_text()

    def close(self) -> None:
        self._log.close()


Play = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Play], Stage]:
    """Run a scene, then stop everything; return the stage to look at."""

    async def run(scene: Play) -> Stage:
        stage = Stage(tmp_path / "log")
        try:
            async with asyncio.timeout(10):
                await scene(stage)
        finally:
            await stage.supervisor.stop()
            stage.close()
        return stage

    return lambda scene: asyncio.run(run(scene))


def test_a_crashed_part_is_started_again_after_longer_and_longer_waits(
    play: Callable[[Play], Stage],
) -> None:
    delays, pids = [], set()

    async def scene(stage: Stage) -> None:
        stage.supervisor.start(stage.part("exec sleep 100"))
        await stage.supervisor.ready("part")
        for _ in range(7):
            pid = await stage.pids.get()
            pids.add(pid)
            os.kill(pid, signal.SIGKILL)
            delays.append(await stage.delays.get())
            stage.go_on.release()
        await stage.pids.get()

    said = play(scene).said()
    assert delays == [1, 2, 4, 8, 16, 30, 30]
    assert len(pids) == 7
    assert "scale     | part was killed by signal SIGKILL; it starts again in 16 s\n" in said
    assert "scale     | part runs again\n" in said


def test_a_part_that_lived_a_minute_is_started_again_after_a_second(
    play: Callable[[Play], Stage],
) -> None:
    delays = []

    async def scene(stage: Stage) -> None:
        stage.supervisor.start(stage.part("exec sleep 100"))
        for lived_s in (0, 0, 60):
            pid = await stage.pids.get()
            stage.now += lived_s
            os.kill(pid, signal.SIGKILL)
            delays.append(await stage.delays.get())
            stage.go_on.release()

    play(scene)
    assert delays == [1, 2, 1]


def test_back_off_is_forgiven_only_after_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (0, 59.9, 60, 0)] == [1, 2, 1, 2]


def test_a_part_that_fails_three_times_before_it_was_ready_stops_the_start(
    play: Callable[[Play], Stage],
) -> None:
    async def scene(stage: Stage) -> None:
        part = stage.part("echo the reason >&2; exit 3", missing=_never)
        stage.supervisor.start(part)
        stage.go_on.release()
        stage.go_on.release()
        with pytest.raises(CannotStart, match="part ended with exit code 3, 3 times of 3"):
            await stage.supervisor.ready("part")

    assert play(scene).said().count("part      | the reason\n") == 3


def test_a_part_that_is_not_ready_in_time_stops_the_start_and_says_what_it_lacks(
    play: Callable[[Play], Stage],
) -> None:
    async def scene(stage: Stage) -> None:
        stage.supervisor.start(stage.part("exec sleep 100", missing=_never, ready_within_s=0.05))
        with pytest.raises(CannotStart, match=r"not ready within 0\.05 s: it lacks everything"):
            await stage.supervisor.ready("part")

    play(scene)


def test_a_program_that_does_not_exist_stops_the_start_by_name(
    play: Callable[[Play], Stage],
) -> None:
    async def scene(stage: Stage) -> None:
        part = Part(name="ghost", launch=lambda: ["/nonexistent"], environment={})
        stage.supervisor.start(part)
        with pytest.raises(CannotStart, match=r"ghost cannot be started: .*No such file"):
            await stage.supervisor.ready("ghost")

    play(scene)


def test_a_one_time_part_must_end_well(play: Callable[[Play], Stage]) -> None:
    async def scene(stage: Stage) -> None:
        await stage.supervisor.once(stage.part("echo done"))
        with pytest.raises(CannotStart, match="part ended with exit code 7"):
            await stage.supervisor.once(stage.part("exit 7"))

    assert "part      | done\n" in play(scene).said()


def test_parts_stop_in_reverse_and_each_only_when_the_one_above_has_ended(
    play: Callable[[Play], Stage], tmp_path: Path
) -> None:
    ends = tmp_path / "ends"
    script = (
        "trap 'echo {0} begins >>{1}; sleep 0.05; echo {0} ends >>{1}; exit' TERM; "
        "touch {1}.{0}; while :; do sleep 0.01; done"
    )

    async def scene(stage: Stage) -> None:
        for name in ("first", "second", "third"):
            part = stage.part(
                script.format(name, ends), name, missing=_until_exists(Path(f"{ends}.{name}"))
            )
            stage.supervisor.start(part)
            await stage.supervisor.ready(name)

    play(scene)
    assert ends.read_text().split("\n")[:-1] == [
        f"{name} {what}" for name in ("third", "second", "first") for what in ("begins", "ends")
    ]


def test_a_part_that_ignores_the_stop_signal_is_killed_after_its_grace(
    play: Callable[[Play], Stage], tmp_path: Path
) -> None:
    pids = []

    async def scene(stage: Stage) -> None:
        mark = tmp_path / "deaf"
        write = f"echo $$ > {mark}.new; mv {mark}.new {mark}"
        script = f"trap '' TERM; {write}; while :; do sleep 0.05; done"
        part = stage.part(script, grace_s=0.1, missing=_until_exists(mark))
        stage.supervisor.start(part)
        await stage.supervisor.ready("part")
        pids.append(int(mark.read_text()))

    assert "part did not stop within 0.1 s; it is killed" in play(scene).said()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_hurry_ends_a_part_that_ignores_the_stop_signal_without_grace(
    play: Callable[[Play], Stage], tmp_path: Path
) -> None:
    heard, mark = tmp_path / "heard", tmp_path / "runs"

    async def scene(stage: Stage) -> None:
        script = f"trap 'touch {heard}' TERM; touch {mark}; while :; do sleep 0.01; done"
        stage.supervisor.start(stage.part(script, grace_s=60, missing=_until_exists(mark)))
        await stage.supervisor.ready("part")
        stopping = asyncio.create_task(stage.supervisor.stop())
        while not heard.exists():
            await asyncio.sleep(0.005)
        stage.supervisor.hurry()
        await stopping

    assert "did not stop" not in play(scene).said()


def test_a_part_that_waits_for_its_back_off_is_not_started_during_a_stop(
    play: Callable[[Play], Stage],
) -> None:
    async def scene(stage: Stage) -> None:
        stage.supervisor.start(stage.part("exec sleep 100"))
        os.kill(await stage.pids.get(), signal.SIGKILL)
        await stage.delays.get()
        await stage.supervisor.stop()
        stage.go_on.release()
        await asyncio.sleep(0.02)
        assert stage.pids.empty()

    play(scene)


def test_a_broken_keeper_is_raised_and_not_swallowed(play: Callable[[Play], Stage]) -> None:
    async def broken(_pid: int) -> str | None:
        raise ValueError("a fault of ours")

    async def scene(stage: Stage) -> None:
        stage.supervisor.start(stage.part("exec sleep 100", missing=broken))
        with pytest.raises(ValueError, match="a fault of ours"):
            await stage.supervisor.watch()

    play(scene)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit code 0"),
        (-9, "was killed by signal SIGKILL"),
        (-64, "was killed by signal SIGRTMAX"),
        (-99, "was killed by signal 99"),
    ],
)
def test_an_end_is_put_into_words(status: int, words: str) -> None:
    assert how_it_ended(status) == words


async def _never(_pid: int) -> str | None:
    return "it lacks everything"


def _until_exists(mark: Path) -> Callable[[int], Awaitable[str | None]]:
    async def missing(_pid: int) -> str | None:
        return None if mark.exists() else "its mark"

    return missing
