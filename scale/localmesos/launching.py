"""What is decided before a task's process starts: as whom, where, and with which command line."""

import os
import pwd

from scale.localmesos import docker, sandbox
from scale.localmesos import run as runs
from scale.localmesos.children import Owner, Program
from scale.localmesos.place import Home
from scale.localmesos.run import Run


def make_sandbox(place: Home, run: Run) -> None:
    """Make the folder of a run; the task's user owns it.

    Raises:
        OSError: it could not be made.
        LookupError: there is no such user.
    """
    owner, launch = owner_of(run), run.launch
    run.directory = sandbox.create(
        place.root, launch.framework_id, launch.task_id, run.container_id
    )
    if owner is not None:
        os.chown(run.directory, owner.uid, owner.gid)


def program(place: Home, engine: docker.Engine, run: Run, output: sandbox.Sandbox) -> Program:
    """Return what to start for a run.

    Raises:
        ValueError: a container that cannot be.
    """
    env, owner, executable = runs.environment(run, place.address), owner_of(run), None
    if run.is_docker:
        # The client runs as we do; it carries the mark by which it is found.
        command = engine.argv(run, env)
        env, owner = {**os.environ, "MESOS_DIRECTORY": run.directory}, None
    else:
        command, executable = runs.argv(run.launch.info.get("command", {}))
    return Program(command, executable, run.directory, env, output.stdout, output.stderr, owner)


def owner_of(run: Run) -> Owner | None:
    """Return whom the task runs as, None for ourselves (--switch_user of the Mesos agent).

    Raises:
        LookupError: there is no such user on this machine.
    """
    name = run.launch.info.get("command", {}).get("user") or run.launch.user
    if os.geteuid() != 0 or name in ("", "root"):
        return None
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise LookupError(f"Failed to get user information for '{name}'") from None
    return Owner(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(name, entry.pw_gid)))
