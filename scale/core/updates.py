"""What an update of the cluster means for an execution, decided without touching anything.

Rules: architecture, sections 4 and 5; the Mesos contract, sections 5 and 13.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from signal import Signals
from types import MappingProxyType
from typing import Final

from scale.core.cluster import ALIVE, TaskState, TaskUpdate
from scale.core.lifecycle import HAS_TASK, Event, Phase, State

#: Exit codes of the steps program in pre and post -> error; any other is `unknown`.
STEP_ERRORS: Final[Mapping[int, str]] = MappingProxyType(
    {
        10: "pull",
        11: "missing-file",
        12: "forbidden-input",
        13: "filesystem-io",
        14: "api-unreachable",
        20: "missing-required-output",
        21: "invalid-results-manifest",
        22: "unexpected-multiple-outputs",
    }
)
#: The error of a phase that ran for too long.
TIMEOUTS: Final[Mapping[Phase, str]] = MappingProxyType(
    {Phase.PRE: "pre-timeout", Phase.JOB: "timeout", Phase.POST: "post-timeout"}
)
#: The cluster has no such task any more and does not say how it ended.
LOST: Final = frozenset(
    {
        TaskState.LOST,
        TaskState.DROPPED,
        TaskState.GONE,
        TaskState.GONE_BY_OPERATOR,
        TaskState.UNKNOWN,
    }
)

# Reasons that tell more than an exit code. The last two come with TASK_KILLED that nobody here
# asked for: an operator drains the agent, or tore the framework down.
_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "REASON_CONTAINER_LIMITATION_MEMORY": "memory-limit",
        "REASON_CONTAINER_LIMITATION_DISK": "disk-limit",
        "REASON_AGENT_DRAINING": "node-lost",
        "REASON_FRAMEWORK_REMOVED": "scheduler-lost",
    }
)
# With these the master refuses a launch without having told an agent (contract, 5.5).
_NEVER_SENT: Final = frozenset({"REASON_INVALID_OFFERS", "REASON_AGENT_DISCONNECTED"})
_RECONCILIATION: Final = "REASON_RECONCILIATION"

# Anchored: a failed fetch says "… : exited with status 1" of the fetcher.
_EXITED: Final = re.compile(r"(?:Command|Container) exited with status (\d{1,3})\b")
_SIGNALED: Final = re.compile(
    r"(?:Command|Container) terminated with signal ([^(\n]+?)\s*(?:\(core dumped\))?\s*$"
)
# Mesos writes the names of glibc's strsignal.
_SIGNALS: Final[Mapping[str, Signals]] = MappingProxyType(
    {
        "Hangup": Signals.SIGHUP,
        "Interrupt": Signals.SIGINT,
        "Quit": Signals.SIGQUIT,
        "Illegal instruction": Signals.SIGILL,
        "Trace/breakpoint trap": Signals.SIGTRAP,
        "Aborted": Signals.SIGABRT,
        "Bus error": Signals.SIGBUS,
        "Floating point exception": Signals.SIGFPE,
        "Killed": Signals.SIGKILL,
        "User defined signal 1": Signals.SIGUSR1,
        "Segmentation fault": Signals.SIGSEGV,
        "User defined signal 2": Signals.SIGUSR2,
        "Broken pipe": Signals.SIGPIPE,
        "Alarm clock": Signals.SIGALRM,
        "Terminated": Signals.SIGTERM,
        "CPU time limit exceeded": Signals.SIGXCPU,
        "File size limit exceeded": Signals.SIGXFSZ,
        "Bad system call": Signals.SIGSYS,
    }
)


@dataclass(frozen=True, slots=True)
class LiveExecution:
    """What `judge` must know of the execution that an update names.

    `task_id` is the task of the current phase, the newest one. `exit_code_errors` is the error
    mapping of the job type. `stopping` means that we asked for the end of the task; without a
    `stopping_error` because the job was canceled, else to fail it with that error.
    `framework_ended` means that the cluster has ended the framework that launched the task.
    """

    state: State
    phase: Phase
    first_phase: Phase
    last_phase: Phase
    task_id: str
    exit_code_errors: Mapping[int, str] = field(default_factory=dict)
    stopping: bool = False
    stopping_error: str | None = None
    uses_docker: bool = False
    framework_ended: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about an update: always acknowledge it, then this.

    `error` is a name of the catalogue and given exactly with Event.FAIL. `kill` is about the task
    of the update, which nobody wants any more but which still lives. `unreachable` means that the
    node does not answer: wait for a grace period, the task may come back.
    """

    event: Event | None = None
    error: str | None = None
    exit_code: int | None = None
    message: str = ""
    kill: bool = False
    unreachable: bool = False


def judge(execution: LiveExecution, update: TaskUpdate) -> Verdict:
    """Decide what `update` means for `execution`. Never raises.

    Updates come twice, late, and for tasks of earlier launches; whatever is not about the task
    that we wait for changes nothing.
    """
    if execution.state not in HAS_TASK or update.task_id != execution.task_id:
        return Verdict(kill=update.state in ALIVE)
    if update.state in ALIVE:
        started = update.state is TaskState.RUNNING and execution.state is State.STARTING
        return Verdict(Event.START if started else None, message=update.message)
    if update.state is TaskState.UNREACHABLE:
        return Verdict(message=_told(update), unreachable=True)
    return _judge_end(execution, update)


def _judge_end(execution: LiveExecution, update: TaskUpdate) -> Verdict:
    code, told = _exit_code(update), _told(update)
    if execution.stopping and execution.stopping_error is None:
        return Verdict(Event.CANCEL, exit_code=code, message=told)
    if update.state is TaskState.FINISHED:
        last = execution.phase is execution.last_phase
        return Verdict(Event.FINISH if last else Event.HOLD, exit_code=code, message=update.message)
    if execution.stopping:
        return Verdict(Event.FAIL, execution.stopping_error, code, told)
    if _is_hearsay(update):
        return Verdict(message=told)
    if _never_launched(execution, update):
        first = execution.phase is execution.first_phase
        return Verdict(Event.BOUNCE if first else Event.BOUNCE_TO_HOLD, message=told)
    return Verdict(Event.FAIL, _error(execution, update), code, told)


def _is_hearsay(update: TaskUpdate) -> bool:
    """Say whether the master only repeats that a task failed, without how.

    The agent's own update tells how, and is sent until it is acknowledged (contract, 5.3, 13).
    """
    return (
        update.state in (TaskState.FAILED, TaskState.KILLED)
        and update.uuid is None
        and update.reason in (_RECONCILIATION, "REASON_AGENT_REREGISTERED")
    )


def _never_launched(execution: LiveExecution, update: TaskUpdate) -> bool:
    """Say whether the launch reached no agent, or the cluster does not know the task.

    The second is what a crash between our commit and ACCEPT leaves behind. A task that had ended
    before it was forgotten was not ours to forget: its end is acknowledged after our commit. But
    what ran for a framework that was ended is forgotten, however far it came.
    """
    if execution.state is not State.STARTING or execution.framework_ended:
        return False
    match update.state:
        case TaskState.DROPPED:
            return True
        case TaskState.LOST:
            return update.reason == _RECONCILIATION or update.reason in _NEVER_SENT
        case TaskState.GONE | TaskState.UNKNOWN:
            return update.reason == _RECONCILIATION
        case _:
            return False


def _error(execution: LiveExecution, update: TaskUpdate) -> str:
    """Name the error of a task that failed, was killed by someone else, or was lost."""
    if update.state in LOST:
        return "scheduler-lost" if execution.framework_ended else "node-lost"
    if update.state is TaskState.ERROR:
        return "task-launch"
    if update.reason is not None and update.reason in _REASONS:
        return _REASONS[update.reason]
    if update.reason == "REASON_MAX_COMPLETION_TIME_REACHED":
        return TIMEOUTS[execution.phase]
    code = _exit_code(update)
    never_ran = execution.state is State.STARTING and code is None
    if update.reason == "REASON_CONTAINER_LAUNCH_FAILED" or never_ran:
        in_docker = execution.uses_docker and execution.phase is Phase.JOB
        return "docker-task-launch" if in_docker else "task-launch"
    return _error_of_code(execution, update.state, code)


def _error_of_code(execution: LiveExecution, state: TaskState, code: int | None) -> str:
    """Name the error by how the process ended; who was killed is not to blame for its code."""
    if not code or state is TaskState.KILLED:
        return "unknown"
    if execution.phase is Phase.JOB:
        return execution.exit_code_errors.get(code, "algorithm-unknown")
    return STEP_ERRORS.get(code, "unknown")


def _exit_code(update: TaskUpdate) -> int | None:
    """Return how the process ended, as a shell says it (128 + signal); None if not told.

    Mesos tells it only in words (contract, section 13).
    """
    if update.state is TaskState.FINISHED:
        return 0
    if exited := _EXITED.match(update.message):
        return int(exited[1])
    if signaled := _SIGNALED.match(update.message):
        number = _SIGNALS.get(signaled[1])
        return None if number is None else 128 + number
    return None


def _told(update: TaskUpdate) -> str:
    return update.message or update.reason or update.state
