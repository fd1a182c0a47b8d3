"""Docker tasks, through the `docker` command (src/docker/docker.cpp, Docker::run)."""

import asyncio
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from scale.localmesos.run import Run, grace_s

logger = logging.getLogger(__name__)

SANDBOX: Final = "/mnt/mesos/sandbox"
MIN_MEMORY: Final = 32 << 20
PROBE_S: Final = 10.0
KNOWN_FOR_S: Final = 30.0  # how long an answer about the engine is believed
INSPECT_S: Final = 0.1


class Unavailable(Exception):
    """No docker engine answers; the text says why."""


def container_name(run: Run) -> str:
    return f"mesos-{run.container_id}"


def run_arguments(run: Run, env: Mapping[str, str], label: str) -> list[str]:
    """Return the arguments of `docker run` for a task (contract 6.3).

    Raises:
        ValueError: a volume whose two paths are relative, or that names no host path.
    """
    info = run.launch.info
    container, command = info["container"], info.get("command", {})
    spec = container.get("docker", {})
    if "image" not in spec:
        raise ValueError("a DOCKER container needs docker.image")
    cpus, mem = run.launch.resources.value("cpus"), run.mem_asked
    arguments = ["run", "--label", label]
    if spec.get("force_pull_image"):
        arguments += ["--pull", "always"]
    if spec.get("privileged"):
        arguments.append("--privileged")
    arguments += ["--cpu-shares", str(max(int(1024 * cpus), 2))]
    if mem:
        arguments += ["--memory", str(max(mem, MIN_MEMORY))]
    env = {
        **env,
        "MESOS_SANDBOX": SANDBOX,
        "MESOS_CONTAINER_NAME": container_name(run),
    }
    env.pop("PATH", None)  # the image has its own
    env.pop("PWD", None)
    for name, value in env.items():
        arguments += ["-e", f"{name}={value}"]
    arguments += _volumes(container.get("volumes", ()), run.directory)
    arguments += _network(container, spec)
    entrypoint, rest = _command(command)
    arguments += entrypoint
    arguments += ["--name", container_name(run)]
    arguments += [f"--{each['key']}={each['value']}" for each in spec.get("parameters", ())]
    return [*arguments, spec["image"], *rest]


def _command(command: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the entry point option and what follows the image; no argv[0] convention here."""
    if command.get("shell", True) and "value" in command:
        return ["--entrypoint", "/bin/sh"], ["-c", command["value"]]
    value = [command["value"]] if command.get("value") else []
    return [], value + list(command.get("arguments", ()))


def _volumes(volumes: Iterable[Mapping[str, Any]], directory: str) -> list[str]:
    arguments = ["-v", f"{directory}:{SANDBOX}"]
    for volume in volumes:
        inside, outside = volume["container_path"], volume.get("host_path")
        if outside is None:
            raise ValueError(f"volume '{inside}' has no host_path")
        if not inside.startswith("/"):
            if not outside.startswith("/"):
                raise ValueError(f"volume '{inside}': both paths are relative")
            inside = f"{SANDBOX}/{inside}"
        if not outside.startswith("/"):
            if ".." in outside.split("/"):
                raise ValueError(f"volume '{inside}': host_path leaves the sandbox")
            outside = f"{directory}/{outside}"
        arguments += ["-v", f"{outside}:{inside}:{volume['mode'].lower()}"]
    return arguments


def _network(container: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    network = spec.get("network", "HOST")
    named = [each["name"] for each in container.get("network_infos", ()) if each.get("name")]
    chosen = any(each["key"] in ("net", "network") for each in spec.get("parameters", ()))
    arguments: list[str] = []
    if not chosen:
        arguments += ["--net", named[0] if network == "USER" and named else network.lower()]
    if network in ("BRIDGE", "USER"):
        for mapping in spec.get("port_mappings", ()):
            protocol = f"/{mapping['protocol'].lower()}" if mapping.get("protocol") else ""
            arguments += ["-p", f"{mapping['host_port']}:{mapping['container_port']}{protocol}"]
    if container.get("hostname") and network != "HOST":
        arguments += ["--hostname", container["hostname"]]
    return arguments


class Engine:
    """The docker engine of this machine, if one answers."""

    def __init__(self, threads: Executor, label: str) -> None:
        self.program = shutil.which("docker")
        self._threads = threads
        self._label = label
        self._answered = float("-inf")

    async def require(self) -> None:
        """Return if the engine answers.

        Raises:
            Unavailable: there is no docker command, or no engine behind it.
        """
        if self.program is None:
            raise Unavailable("there is no docker command on this machine")
        if time.monotonic() - self._answered < KNOWN_FOR_S:
            return
        code, _, errors = await self._call("version", "--format", "{{.Server.Version}}")
        if code != 0:
            raise Unavailable(f"no docker engine answers: {errors.strip()[:300]}")
        self._answered = time.monotonic()

    def argv(self, run: Run, env: Mapping[str, str]) -> list[str]:
        """Return the command line that runs the task; see `run_arguments`."""
        return [self.program or "docker", *run_arguments(run, env, self._label)]

    async def wait_until_running(self, run: Run) -> bool:
        """Return True once the container runs, False if its client ended first."""
        while run.pid is not None and _is_alive(run.pid):
            code, output, _ = await self._call("inspect", container_name(run))
            if code == 0 and json.loads(output)[0]["State"]["Running"]:
                return True
            await asyncio.sleep(INSPECT_S)
        return False

    def stop(self, run: Run) -> None:
        """Ask the container to end within the task's grace; SIGKILL follows by the engine."""
        if run.is_docker:
            self._later("stop", "-t", str(max(1, round(grace_s(run, None)))), container_name(run))

    def kill(self, run: Run) -> None:
        if run.is_docker:
            self._later("kill", container_name(run))

    async def take_away(self, run: Run) -> bool:
        """Remove the ended container; return True if the kernel killed it for its memory."""
        code, output, _ = await self._call("inspect", container_name(run))
        self._later("rm", "-f", container_name(run))
        return code == 0 and bool(json.loads(output)[0]["State"].get("OOMKilled"))

    def _later(self, *arguments: str) -> None:
        self._threads.submit(_docker, self.program or "docker", arguments)

    async def _call(self, *arguments: str) -> tuple[int, str, str]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, _docker, self.program or "docker", arguments
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _docker(program: str, arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run a short docker command in a thread.

    Its status may be reaped by the SIGCHLD handler of children.py first, hence the marker.
    """
    script = '"$@"; echo "status=$?"'
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", script, "-", program, *arguments],
            capture_output=True, text=True, timeout=PROBE_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    output, _, code = done.stdout.rpartition("status=")
    return int(code or 1), output, done.stderr
