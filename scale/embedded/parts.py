"""The processes of an embedded installation: how each is started, asked, and stopped.

The times from stop signal to SIGKILL add up to less than the 10 s in which everything stops.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scale.embedded import postgres as pg
from scale.embedded import probes
from scale.embedded.local_mesos import LocalMesos
from scale.embedded.ready import ReadyFile
from scale.embedded.supervisor import Part
from scale.embedded.surroundings import plain
from scale.embedded.valkey import Valkey

# -P: the current folder stays off sys.path; our scale/queue would hide Python's own queue.
PYTHON = (sys.executable, "-P")
_RECOVERY_S = 600.0  # after a crash PostgreSQL may have much to repeat


def postgres(server: pg.PostgresServer, lock: int) -> Part:
    async def missing(pid: int) -> str | None:
        return server.missing(pid)

    return Part(
        name="postgres",
        launch=server.launch,
        environment=pg.environment(),
        guard=server.guard,
        missing=missing,
        stop_signal=signal.SIGINT,  # a fast shutdown; SIGTERM would wait for sessions to end
        hurry_signal=signal.SIGQUIT,  # its processes end, and recover at the next start
        ready_within_s=_RECOVERY_S,
        descriptors=(lock,),
    )


def valkey(server: Valkey, lock: int) -> Part:
    return Part(
        name="valkey",
        launch=server.launch,
        environment=plain(os.environ),
        guard=server.guard,
        missing=server.missing,
        grace_s=0.5,
        descriptors=(lock,),
    )


def setup(environment: Mapping[str, str], lock: int, report: int, *, alone: bool) -> Part:
    """`alone`: the database is ours, so that no scheduler can run yet."""
    command = [*PYTHON, "-m", "scale.embedded.first_start", str(report), *["alone"] * alone]
    return Part(
        name="setup", launch=lambda: command, environment=environment, descriptors=(lock, report)
    )


def mesos(local: LocalMesos, lock: int) -> Part:
    return Part(
        name="mesos",
        launch=local.launch,
        environment=plain(os.environ) | {"PYTHONUNBUFFERED": "1"},
        guard=local.guard,
        missing=local.missing,
        descriptors=(lock,),
    )


def scheduler(environment: Mapping[str, str], lock: int, run: Path) -> Part:
    ready = ReadyFile(run / "scheduler.ready", "it is not subscribed to Mesos")
    return _ours("scheduler", environment, lock, ready=ready, grace_s=1.0)


def worker(environment: Mapping[str, str], lock: int, run: Path, schedule: Path) -> Part:
    ready = ReadyFile(run / "worker.ready", "it is not connected to the broker")
    return _ours("worker", environment, lock, "--schedule", str(schedule), ready=ready, grace_s=2.0)


def web(environment: Mapping[str, str], lock: int, listening: int, at: tuple[str, int]) -> Part:
    """It is ready when it says that all is: database, broker and the scheduler's heartbeat."""

    async def missing(_pid: int) -> str | None:
        return probes.what_is_missing(*await probes.get(*at, "/readyz"))

    return _ours(
        "web",
        environment,
        lock,
        *("--fd", str(listening)),
        missing=missing,
        probe_every_s=0.1,
        grace_s=2.5,
        descriptors=(lock, listening),
    )


def _ours(
    name: str,
    environment: Mapping[str, str],
    lock: int,
    *arguments: str,
    ready: ReadyFile | None = None,
    **others: Any,
) -> Part:
    command = [*PYTHON, "-m", "scale.cli.main", name, *arguments]

    def launch() -> list[str]:
        if ready:
            ready.forget()
        return command

    told = {**environment, **(ready.environment() if ready else {})}
    fields = {"descriptors": (lock,), **({"missing": ready.missing} if ready else {}), **others}
    return Part(name=name, launch=launch, environment=told, **fields)
