"""What must hold after a run, from the database, the history, the witness and the machine."""

import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fault_program import AGENTS
from fault_work import BY_NAME, INPUT
from fault_world import World

from scale.core.lifecycle import MOVES, TERMINAL, Event, State

#: The errors of an attempt of which nobody knows how it ended: its command may run once more.
LOST: Final = ("node-lost", "scheduler-lost")
#: What a command of one phase prints, whole.
PRINTED: Final = "begin\nend\n"
_DATABASE_ERRORS: Final = ("OperationalError", "InterfaceError", "AdminShutdown", "DiskFull")
#: What each may raise when its database is taken away, or its broker.
_ALLOWED: Final = {
    "scheduler": _DATABASE_ERRORS,
    "web": _DATABASE_ERRORS,
    "worker": (*_DATABASE_ERRORS, "ConnectionError"),
}
_RAISED: Final = re.compile(r"^(?:[ \t].*\n|\n)*([\w.]+)")
#: The words between an exception and the one that was raised while it was handled.
_LEADS_ON: Final = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
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
        " extract(epoch FROM x.started), extract(epoch FROM x.ended), x.agent_id"
        " FROM job_execution x LEFT JOIN error e ON e.id = x.error_id"
    )
    found.executions = len(rows)
    for pk, state, error, phase, cleanup, logs, message, started, ended, agent_id in rows:
        if state not in TERMINAL:
            entries = " ".join(event for event, _ in history[pk])
            found.stuck.append(f"execution {pk} is {state} in {phase}: {entries}")
        elif cleanup or logs:
            found.wrong.append(f"execution {pk} owes {'its clean-up' if cleanup else 'its logs'}")
        found.wrong += [f"execution {pk}: {text}" for text in disagreements(state, history[pk])]
        if error:
            found.errors[f"{error} in {phase}"] += 1
            found.lost_attempts += error in LOST
            causes = {
                **dict.fromkeys(LOST, world.mesos.losses),
                "api-unreachable": world.web_away if phase == "pre" else [],
            }.get(error, [])
            explained = any(each.explains(started, ended, agent_id) for each in causes)
            if not explained and error != "bad-data":
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
    for pk, name in world.database.rows(
        "SELECT x.id, f.storage_name FROM job_execution x"
        " JOIN job_type t ON t.id = x.job_type_id LEFT JOIN file f ON f.execution_id = x.id"
        " WHERE t.name = 'files' AND x.state = 'completed'"
    ):
        stored = world.files / (name or "nothing")
        if not stored.exists() or stored.read_text() != INPUT:
            found.lost.append(f"execution {pk} has an output that is not its input: {name}")


def _check_witness(world: World, found: Findings) -> None:
    """Compare what commands say that they did with what the rows say of them."""
    said: dict[int, Counter[int]] = defaultdict(Counter)
    for line in world.witness.read_text().splitlines():
        words = line.split(" ")
        said[int(words[0])][int(words[1])] += 1
    rows: dict[int, list[Attempt]] = defaultdict(list)
    for job, *columns in world.database.rows(
        "SELECT x.job_id, x.id, x.state, e.name FROM job_execution x"
        " LEFT JOIN error e ON e.id = x.error_id"
    ):
        rows[job].append(Attempt(*columns))
    for job in said.keys() - rows.keys():
        found.wrong.append(f"job {job} ran and has no row")
    for job, attempts in rows.items():
        found.doubled += doubled(job, attempts, said[job])
        for pk in said[job].keys() - {attempt.pk for attempt in attempts}:
            found.wrong.append(f"execution {pk} of job {job} ran and has no row")
        for attempt in attempts:
            if attempt.state == "completed" and not said[job][attempt.pk]:
                found.lost.append(f"execution {attempt.pk} completed, and never ran to its end")


def doubled(job: int, attempts: list[Attempt], said: Counter[int]) -> Iterator[str]:
    """Compare how often the attempts of a job ran to their end with how often they may."""
    for pk, times in said.items():
        if times > 1:
            yield f"execution {pk} of job {job} ran to its end {times} times"
    ended_well = sorted((one for one in attempts if said[one.pk]), key=lambda one: one.pk)
    for one in ended_well[:-1]:
        if one.error not in LOST:
            yield f"job {job} ran again after the command of {one} had ended well"


def _check_machine(world: World, found: Findings) -> None:
    found.wrong += [f"a process in {task['MESOS_SANDBOX']} lives" for task in world.tasks()]
    for who, tasks in world.mesos.live_tasks().items():
        found.wrong += [f"{who} believes that {task} lives" for task in tasks]
    slaves = world.mesos.slaves()
    if len(slaves) != AGENTS:
        found.wrong.append(f"{len(slaves)} agents are there, not {AGENTS}")
    for slave in slaves:
        used = {name: slave["used_resources"][name] for name in ("cpus", "mem", "disk")}
        if any(used.values()):
            found.wrong.append(f"agent {slave['id']} still uses {used}")
    found.wrong += [f"work folder {folder.name} is left" for folder in world.work.iterdir()]


def _check_logs(world: World, found: Findings) -> None:
    """Look for the log of every task that ran; read those of commands that ended by themselves."""
    for pk, phase, stream in world.database.rows(
        "SELECT execution_id, phase, stream FROM archived_log WHERE lost"
    ):
        found.wrong.append(f"the log of execution {pk}, {phase} {stream}, is lost")
    sandboxes = world.mesos.sandboxes()
    for phase in ("pre", "job", "post"):
        found.wrong += _unlike_sandboxes(world, phase, sandboxes)
        for pk, streams in world.database.rows(
            "SELECT x.id, (SELECT count(*) FROM archived_log l"
            "              WHERE l.execution_id = x.id AND l.phase = %s)"
            f" FROM job_execution x WHERE x.ended IS NOT NULL AND x.{phase}_started IS NOT NULL",
            phase,
        ):
            if streams != 2:
                found.wrong.append(f"execution {pk} has {streams} logs of {phase}, not 2")
    for pk, name in world.database.rows(
        "SELECT x.id, t.name FROM job_execution x JOIN job_type t ON t.id = x.job_type_id"
        " WHERE x.job_exit_code IS NOT NULL AND x.state <> 'canceled'"
    ):
        text = world.text(f"/job-executions/{pk}/logs/stdout/")
        whole = PRINTED in text if BY_NAME[name].with_file else text == PRINTED
        if not whole:
            found.wrong.append(f"the log of execution {pk} is {text[:60]!r}")


def _unlike_sandboxes(world: World, phase: str, sandboxes: Mapping[str, Path]) -> Iterator[str]:
    """Compare each archived log with what its task has written on its agent.

    What an agent that was given up went on to write is not in the archive.
    """
    for pk, stream, name, size, task_id, ended in world.database.rows(
        f"SELECT x.id, l.stream, l.storage_name, l.size, x.{phase}_task_id,"
        f" x.{phase}_exit_code IS NOT NULL"
        " FROM archived_log l JOIN job_execution x ON x.id = l.execution_id WHERE l.phase = %s",
        phase,
    ):
        kept = gzip.decompress((world.files / name).read_bytes()) if name else b""
        written = sandboxes[task_id] / stream if task_id in sandboxes else Path("/dev/null")
        told = written.read_bytes()
        if len(kept) != size or not (kept == told if ended else told.startswith(kept)):
            yield f"{phase} {stream} of execution {pk} is {kept[:60]!r}, its task wrote {told!r}"


def _check_complaints(world: World, found: Findings) -> None:
    for name, allowed in _ALLOWED.items():
        for what, times in raised(world.log(name)).items():
            if not what.endswith(allowed):
                found.wrong.append(f"{name} raised {what}, {times} times")


def raised(log: str) -> Counter[str]:
    """Return the exceptions whose tracebacks are in a log; of a chain, the last."""
    _, *blocks = log.split("Traceback (most recent call last):\n")
    last = (block for block in blocks if not block.rstrip().endswith(_LEADS_ON))
    return Counter(found[1] for found in map(_RAISED.match, last) if found)
