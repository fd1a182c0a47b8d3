"""One task on an agent: what it is doing, and the words for how it ended."""

import asyncio
import enum
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scale.localmesos.status import Cause
from scale.localmesos.tasks import Launch

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_GRACE_S: Final = 3.0  # command tasks; contract 6.5
DOCKER_GRACE_S: Final = 5.0
MEM_ALLOWANCE: Final = 32 << 20  # bytes that the agent adds to a container's limit; contract 6.1


class Phase(enum.Enum):
    """Where a run is; it only moves down this list."""

    PREPARING = enum.auto()  # sandbox and URIs
    RUNNING = enum.auto()
    CLEARING = enum.auto()  # the command has ended, processes that it left are going
    ENDED = enum.auto()


@dataclass(slots=True)
class Run:
    """A task's life on this machine; the agent moves it."""

    launch: Launch
    container_id: str
    directory: str = ""
    phase: Phase = Phase.PREPARING
    pid: int | None = None
    started: float = field(default_factory=time.time)
    killed: bool = False
    kill_at: float | None = None  # loop time of the SIGKILL
    kill_timer: asyncio.TimerHandle | None = None
    lifetime_timer: asyncio.TimerHandle | None = None
    memory_timer: asyncio.TimerHandle | None = None
    disk_timer: asyncio.Handle | None = None
    cancel_fetch: threading.Event = field(default_factory=threading.Event)
    fetching: "asyncio.Future[None] | None" = None
    wait_status: int = 0
    doom: Cause | None = None  # why the agent itself ends the task
    peak_bytes: int = 0
    silent: bool = False  # nobody is told of it any more
    statuses: list[dict[str, Any]] = field(default_factory=list)  # as /state shows them
    end_state: str | None = None

    @property
    def is_docker(self) -> bool:
        return bool(self.launch.info.get("container", {}).get("type") == "DOCKER")

    @property
    def mem_asked(self) -> int:
        """Return the bytes that the task asked for, 0 if it named no memory."""
        limits = self.launch.info.get("limits", {})
        mib = limits["mem"]["value"] if "mem" in limits else self.launch.resources.value("mem")
        return int(mib * (1 << 20)) if mib < 1 << 40 else 0

    @property
    def disk_asked(self) -> int:
        """Return the bytes that its sandbox may hold, 0 if it named no disk."""
        return int(self.launch.resources.value("disk") * (1 << 20))

    def stop_watching(self) -> None:
        """Stop the timers that are about a living command."""
        for timer in (self.lifetime_timer, self.memory_timer, self.disk_timer):
            if timer is not None:
                timer.cancel()
        self.lifetime_timer = self.memory_timer = self.disk_timer = None

    def stop_timers(self) -> None:
        self.stop_watching()
        if self.kill_timer is not None:
            self.kill_timer.cancel()
            self.kill_timer = None


def grace_s(run: Run, policy: Mapping[str, Any] | None) -> float:
    """Return seconds between SIGTERM and SIGKILL: KILL's policy, the task's, or the default."""
    for each in (policy, run.launch.info.get("kill_policy")):
        if each and "grace_period" in each:
            return max(0.0, float(each["grace_period"]["nanoseconds"]) / 1e9)
    return DOCKER_GRACE_S if run.is_docker else DEFAULT_GRACE_S


def environment(run: Run, address: str) -> dict[str, str]:
    """Return the task's whole environment; nothing of ours leaks into it.

    Names that the agent sets win: our processes are known by MESOS_DIRECTORY.
    """
    launch = run.launch
    env = {"PATH": DEFAULT_PATH}
    for variable in launch.info.get("command", {}).get("environment", {}).get("variables", ()):
        env[variable["name"]] = variable.get("value", "")
    env.update(
        MESOS_FRAMEWORK_ID=launch.framework_id,
        MESOS_EXECUTOR_ID=launch.task_id,
        MESOS_DIRECTORY=run.directory,
        MESOS_SANDBOX=run.directory,
        MESOS_SLAVE_ID=launch.agent_id,
        MESOS_SLAVE_PID=f"slave(1)@{address}",
        MESOS_AGENT_ENDPOINT=address,
        MESOS_CHECKPOINT="1" if launch.checkpoint else "0",
        MESOS_HTTP_COMMAND_EXECUTOR="0",
        MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD="5secs",
        MESOS_ALLOCATION_ROLE=launch.role,
        LIBPROCESS_IP=address.rpartition(":")[0],
        LIBPROCESS_PORT="0",
        PWD=run.directory,
    )
    if launch.checkpoint:
        env.update(MESOS_RECOVERY_TIMEOUT="15mins", MESOS_SUBSCRIPTION_BACKOFF_MAX="2secs")
    return env


def argv(command: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """Return the arguments and the file to execute of a command outside Docker (contract 6.1).

    With `shell: false` the first argument is argv[0] and not a parameter.
    """
    value = str(command.get("value", ""))
    if command.get("shell", True):
        return ["/bin/sh", "-c", value], None
    return list(command.get("arguments", ())) or [value], value


def ending(run: Run) -> tuple[str, Cause]:
    """Return the terminal state and the reason of a run whose processes have ended."""
    message = _how(run.wait_status, "Container" if run.is_docker else "Command")
    if run.doom is not None:
        return "TASK_FAILED", Cause(
            run.doom.message or message, run.doom.reason, run.doom.limitation
        )
    if run.killed:
        return "TASK_KILLED", Cause(message)
    return "TASK_FINISHED" if run.wait_status == 0 else "TASK_FAILED", Cause(message)


def _how(wait_status: int, what: str) -> str:
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        name = signal.strsignal(number) or f"signal {number}"
        return f"{what} terminated with signal {name}"
    return f"{what} exited with status {os.WEXITSTATUS(wait_status)}"


def over_memory(run: Run, used: int) -> Cause:
    """Return the words of Mesos' memory limitation, with what was asked and what was used."""
    asked = run.mem_asked
    return Cause(
        f"Memory limit exceeded: Requested: {asked >> 20}MB Maximum Used: {used >> 20}MB\n\n"
        f"MEMORY STATISTICS:\nrss {used}\nlimit {asked + MEM_ALLOWANCE}\n",
        "REASON_CONTAINER_LIMITATION_MEMORY",
        ({"name": "mem", "type": "SCALAR", "scalar": {"value": asked / (1 << 20)}},),
    )


def over_disk(run: Run, used: int) -> Cause:
    """Return the words of Mesos' disk limitation (mesos-samples, stream-limits)."""
    asked = run.disk_asked
    return Cause(
        f"Disk usage ({_size(used)}) exceeds quota ({_size(asked)})",
        "REASON_CONTAINER_LIMITATION_DISK",
        (
            {
                "name": "disk",
                "type": "SCALAR",
                "scalar": {"value": asked / (1 << 20)},
                "allocation_info": {"role": run.launch.role},
            },
        ),
    )


def _size(count: int) -> str:
    """Return bytes in the largest unit of which they are a whole number (stout, Bytes)."""
    for shift, unit in ((40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")):
        if count and count % (1 << shift) == 0:
            return f"{count >> shift}{unit}"
    return f"{count}B"


def executor_name(run: Run) -> str:
    """Return the name that Mesos gives to a command task's executor."""
    command = str(run.launch.info.get("command", {}).get("value", ""))
    shown = command if len(command) <= 15 else command[:12] + "..."
    return f"Command Executor (Task: {run.launch.task_id}) (Command: sh -c '{shown}')"
