"""What must hold after a run, from the database, the history, the witness and the machine."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from fault_work import BY_NAME
from fault_world import World

from scale.core.lifecycle import MOVES, TERMINAL, Event, State

#: The error of an attempt that died with its agent: its command may run once more.
NODE_LOST: Final = "node-lost"
#: What a scheduler may end with when its database is taken away; a supervisor starts it again.
_ALLOWED: Final = ("OperationalError", "InterfaceError", "AdminShutdown")
_RAISED: Final = re.compile(
    r"^([A-Za-z_][\w.]*(?:Error|Exception|Shutdown|Lost|Transition|DoesNotExist)): ", re.MULTILINE
)


@dataclass
class Findings:
    """What is wrong; empty lists are what we want."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    executions: int = 0
    jobs: int = 0
    lost_attempts: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def all(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.stuck, *self.wrong]


@dataclass(frozen=True)
class Attempt:
    """What matters of an execution's row."""

    pk: int
    state: str
    error: str | None


def check(world: World) -> Findings:
    """Look at everything; the work must have settled, or have had its time."""
    found = Findings()
    _check_executions(world, found)
    _check_jobs(world, found)
    _check_witness(world, found)
    _check_machine(world, found)
    _check_logs(world, found)
    _check_complaints(world, found)
    return found


def _check_executions(world: World, found: Findings) -> None:
    history: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for pk, event, state in world.database.rows(
        "SELECT execution_id, event, state FROM execution_event ORDER BY id"
    ):
        history[pk].append((event, state))
    rows = world.database.rows(
        "SELECT x.id, x.state, e.name, x.phase, x.cleanup_owed, x.logs_owed, x.error_message,"
        " extract(epoch FROM x.started), extract(epoch FROM x.ended)"
        " FROM job_execution x LEFT JOIN error e ON e.id = x.error_id"
    )
    found.executions = len(rows)
    for pk, state, error, phase, cleanup, logs, message, started, ended in rows:
        if state not in TERMINAL:
            entries = " ".join(event for event, _ in history[pk])
            found.stuck.append(f"execution {pk} is {state} in {phase}: {entries}")
        elif cleanup or logs:
            found.wrong.append(f"execution {pk} owes {'its clean-up' if cleanup else 'its logs'}")
        found.wrong += [f"execution {pk}: {text}" for text in disagreements(state, history[pk])]
        if error:
            found.errors[f"{error} in {phase}"] += 1
            found.lost_attempts += error == NODE_LOST
            explained = error == "bad-data" or (
                error == NODE_LOST
                and any(started <= until and ended >= since for since, until in world.mesos_killed)
            )
            if not explained:
                found.wrong.append(f"execution {pk} failed with {error} in {phase}: {message}")


def disagreements(state: str, entries: list[tuple[str, str]]) -> Iterator[str]:
    """Replay a history through the table of moves."""
    if not entries or entries[0] != ("create", State.QUEUED.value):
        yield "has no beginning"
        return
    reached = State.QUEUED
    for event, noted in entries[1:]:
        following = MOVES.get((reached, Event(event)))
        if following != noted:
            yield f"{event} from {reached} cannot lead to {noted}"
        reached = State(noted)
    if reached != state:
        yield f"is {state}, its history says {reached}"


def _check_jobs(world: World, found: Findings) -> None:
    rows = world.database.rows(
        "SELECT j.id, t.name, j.status, e.name, j.results FROM job j"
        " JOIN job_type t ON t.id = j.job_type_id LEFT JOIN error e ON e.id = j.error_id"
    )
    found.jobs = len(rows)
    for pk, name, status, error, results in rows:
        kind = BY_NAME[name]
        if (status, error) != (kind.ends, kind.error):
            found.lost.append(f"job {pk} ({name}) is {status}, {error}")
        elif kind.with_file and status == "COMPLETED" and not results.get("output_data"):
            found.lost.append(f"job {pk} ({name}) has no output")
    for pk, size in world.database.rows(
        "SELECT x.id, (SELECT min(f.size) FROM file f WHERE f.execution_id = x.id)"
        " FROM job_execution x JOIN job_type t ON t.id = x.job_type_id"
        " WHERE t.name = 'files' AND x.state = 'completed'"
    ):
        if size != len("some words\n"):
            found.lost.append(f"execution {pk} has an output of {size} bytes")


def _check_witness(world: World, found: Findings) -> None:
    """Compare what commands say that they did with what the rows say of them."""
    said: dict[int, Counter[int]] = defaultdict(Counter)
    for line in world.witness.read_text().splitlines():
        job, execution, _ = line.split(" ")
        said[int(job)][int(execution)] += 1
    rows: dict[int, list[Attempt]] = defaultdict(list)
    for job, *attempt in world.database.rows(
        "SELECT x.job_id, x.id, x.state, e.name FROM job_execution x"
        " LEFT JOIN error e ON e.id = x.error_id"
    ):
        rows[job].append(Attempt(*attempt))
    for job in said.keys() - rows.keys():
        found.wrong.append(f"job {job} ran and has no row")
    for job, attempts in rows.items():
        found.doubled += _doubled(job, attempts, said[job])
        for attempt in attempts:
            if attempt.state == "completed" and not said[job][attempt.pk]:
                found.lost.append(f"execution {attempt.pk} completed, and never ran to its end")


def _doubled(job: int, attempts: list[Attempt], said: Counter[int]) -> Iterator[str]:
    for pk, times in said.items():
        if times > 1:
            yield f"execution {pk} of job {job} ran to its end {times} times"
    ended_well = sorted((one for one in attempts if said[one.pk]), key=lambda one: one.pk)
    for one in ended_well[:-1]:
        if one.error != NODE_LOST:
            yield f"job {job} ran again after the command of {one} had ended well"


def _check_machine(world: World, found: Findings) -> None:
    found.wrong += [f"a process in {task['MESOS_SANDBOX']} lives" for task in world.tasks()]
    for agent in world.agents():
        used = {name: agent["used_resources"][name] for name in ("cpus", "mem", "disk")}
        if any(used.values()):
            found.wrong.append(f"agent {agent['id']} still uses {used}")
    found.wrong += [f"work folder {folder.name} is left" for folder in world.work.iterdir()]


def _check_logs(world: World, found: Findings) -> None:
    """Read the log of every command that ended by itself; each says begin and end."""
    for pk, phase in world.database.rows(
        "SELECT execution_id, phase FROM archived_log WHERE lost AND stream = 'stdout'"
    ):
        found.wrong.append(f"the log of execution {pk}, {phase}, is lost")
    for (pk,) in world.database.rows(
        "SELECT id FROM job_execution WHERE job_exit_code IS NOT NULL AND state <> 'canceled'"
    ):
        text = world.text(f"/job-executions/{pk}/logs/stdout/")
        if "begin" not in text or "end" not in text:
            found.wrong.append(f"the log of execution {pk} is {text[:60]!r}")


def _check_complaints(world: World, found: Findings) -> None:
    for what, times in complaints(world, "scheduler").items():
        if not what.endswith(_ALLOWED):
            found.wrong.append(f"a scheduler raised {what}, {times} times")


def complaints(world: World, name: str) -> Counter[str]:
    """Return what a process of ours raised, by its log."""
    text = (world.home / "log" / name).read_text(errors="replace")
    return Counter(_RAISED.findall(text))
