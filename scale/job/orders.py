"""What an execution's tasks are to do: their command lines, environments and needs."""

import math
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from django.conf import settings

from scale.core.cluster import Container, TaskSpec, Volume
from scale.core.command import Template
from scale.core.lifecycle import Phase
from scale.core.resources import Resources
from scale.job import tokens
from scale.job.documents import Interface, stored_interface
from scale.job.models import File, JobExecution, JobTypeRevision
from scale.job.services import needs_of
from scale.job.submission import STEPS_MEM_MIB, file_ids_of

STEPS_PROGRAM: Final = "steps.pyz"
CLEANUP_NEEDS: Final = Resources(millicpus=100, mem_mib=STEPS_MEM_MIB)
#: Removing this many work folders is one task.
CLEANUP_BATCH: Final = 25
# The first thing a command line does; 125 is what `docker run` says of itself, too.
_ENTER: Final = "cd {folder} || exit 125; "
# Brings the steps program and becomes it. Mesos' fetcher would ask only once, and fail while web
# is being restarted. As patient as the program itself (steps/limits.py); exits with its
# api-unreachable.
_BRING: Final = """\
import os, sys, time, urllib.request
pause, tries = 0.5, int(os.environ.get("SCALE_STEPS_API_TRIES", "7"))
while True:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=60) as answer:
            program = answer.read()
        break
    except Exception as error:
        print("cannot bring", sys.argv[1], "-", error, file=sys.stderr, flush=True)
    tries -= 1
    if tries < 1:
        sys.exit(14)
    time.sleep(pause)
    pause = min(2 * pause, 15)
with open("steps.pyz", "wb") as file:
    file.write(program)
os.execv(sys.executable, [sys.executable, "steps.pyz", *sys.argv[2:]])
"""
# The command has ended well when post runs, and would run again if post gave up: it asks for Scale
# until its time-out.
_POST_TRIES: Final = "999999"
_MIB: Final = 1024 * 1024
_NAME_BYTES: Final = 255  # what file systems take (NAME_MAX)


@dataclass(frozen=True, slots=True)
class StagedInput:
    """A file that the pre phase puts at `path`, relative to the work folder.

    It has a `uri`, or else is stored as `file_id`; `file` is None if that was deleted meanwhile,
    which the pre phase will find.
    """

    name: str
    path: str
    file: File | None
    file_id: int | None
    uri: str | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A revision's interface with its command arguments parsed; made once for many executions."""

    interface: Interface
    template: Template


@dataclass(frozen=True, slots=True)
class Assignment:
    """A task to launch, with what the execution's row shows of it."""

    task: TaskSpec
    command_arguments: str
    environment: Mapping[str, str]


def work_dir(execution: JobExecution) -> PurePosixPath:
    """Return the folder on the agent that all phases of the execution share."""
    return PurePosixPath(settings.SCALE_AGENT_WORK_DIR) / str(execution.uuid)


def phase_needs(execution: JobExecution) -> Resources:
    """Return what the current phase needs; never more than `needs_of`, which it was placed by."""
    needs = needs_of(execution)
    if execution.phase != Phase.JOB:
        return Resources(needs.millicpus, STEPS_MEM_MIB, needs.disk_mib)
    return Resources(needs.millicpus, math.ceil(execution.job.mem_required), needs.disk_mib)


def phase_limit(execution: JobExecution) -> timedelta | None:
    """Return how long the current phase may run; None is for ever."""
    if execution.phase != Phase.JOB:
        return timedelta(seconds=settings.SCALE_STEPS_TIMEOUT_S)
    return timedelta(seconds=execution.timeout) if execution.timeout else None


def files_of(executions: Iterable[JobExecution]) -> dict[int, File]:
    """Return the stored input files of executions by id; one query, none without files."""
    ids = {
        file_id
        for execution in executions
        if execution.has_steps
        for item in execution.job.data.get("input_data", [])
        for file_id in file_ids_of(item)
    }
    return File.objects.in_bulk(ids) if ids else {}


def staged_inputs(execution: JobExecution, files: Mapping[int, File]) -> list[StagedInput]:
    """Return where each input file of an execution goes."""
    staged = []
    for item in execution.job.data.get("input_data", []):
        taken: set[str] = set()
        for entry in item.get("files", [item]):
            file_id, uri = entry.get("file_id"), entry.get("uri")
            if file_id is None and uri is None:
                continue
            file = files.get(file_id)
            name = _unused(file.name if file else _name_in(uri or ""), taken)
            taken.add(name)
            path = f"inputs/{item['name']}/{name}"
            staged.append(StagedInput(item["name"], path, file, file_id, uri))
    return staged


def _unused(wanted: str, taken: Collection[str]) -> str:
    """Return the name, numbered if it is taken; no longer in bytes than a folder has it."""
    if wanted not in taken:
        return wanted
    numbered = (f"{number}-{wanted}" for number in count(len(taken)))
    names = (name.encode()[:_NAME_BYTES].decode(errors="ignore") for name in numbered)
    return next(name for name in names if name not in taken)


def _name_in(uri: str) -> str:
    name = unquote(urlsplit(uri).path).rpartition("/")[2]
    usable = name.isprintable() and "/" not in name and len(name.encode()) <= _NAME_BYTES
    return name if name not in {"", ".", ".."} and usable else "input"


def recipe_of(revision: JobTypeRevision) -> Recipe:
    interface = stored_interface(revision.interface)
    return Recipe(interface, interface.template())


def assign(
    execution: JobExecution, recipe: Recipe, *, agent_id: str, files: Mapping[int, File]
) -> Assignment:
    """Return the task of the current phase.

    The execution comes with its job and job type; `recipe` is that of the job's revision, `files`
    as `files_of` gives them. No query.
    """
    interface = recipe.interface
    values = _input_values(execution, interface, files)
    arguments = recipe.template.fill(values)
    environment = _job_environment(execution, interface, values)
    task_id = f"{execution.uuid}.{execution.phase}.{execution.launches + 1}"
    needs = phase_needs(execution)
    name = f"{execution.job.job_type.name} {execution.job_id} {execution.phase}"[:200]
    if execution.phase == Phase.JOB:
        task = TaskSpec(
            task_id=task_id,
            agent_id=agent_id,
            name=name,
            command=_job_command(execution, interface, arguments),
            needs=needs,
            environment=environment,
            container=_container(execution),
        )
    else:
        task = TaskSpec(
            task_id=task_id,
            agent_id=agent_id,
            name=name,
            command=_steps_command(execution.phase),
            needs=needs,
            environment=_steps_environment(execution, task_id),
        )
    return Assignment(task, arguments, environment)


def cleanup_task(task_id: str, agent_id: str, executions: Iterable[JobExecution]) -> TaskSpec:
    """Return a task that removes the work folders of executions that ended badly."""
    folders = shlex.join(str(work_dir(execution)) for execution in executions)
    return TaskSpec(
        task_id=task_id,
        agent_id=agent_id,
        name="clean up",
        command=_steps_command(f"cleanup {folders}"),
        needs=CLEANUP_NEEDS,
        environment={"SCALE_AGENT_WORK_DIR": str(settings.SCALE_AGENT_WORK_DIR)},
    )


def _steps_environment(execution: JobExecution, task_id: str) -> dict[str, str]:
    patience = {"SCALE_STEPS_API_TRIES": _POST_TRIES} if execution.phase == Phase.POST else {}
    return {
        "SCALE_API_URL": settings.SCALE_API_URL,
        "SCALE_EXECUTION_UUID": str(execution.uuid),
        "SCALE_EXECUTION_TOKEN": tokens.issue(execution.uuid, task_id),
        "PYTHONUTF8": "1",
        **patience,
    }


def _steps_command(order: str) -> str:
    address = f"{settings.SCALE_API_URL}/agent/{STEPS_PROGRAM}"
    return f"exec {shlex.join([settings.SCALE_AGENT_PYTHON, '-c', _BRING, address])} {order}"


def _input_values(
    execution: JobExecution, interface: Interface, files: Mapping[int, File]
) -> dict[str, str | None]:
    """Return the text of each input in the command line; None for one that is absent."""
    folder = work_dir(execution)
    paths = {staged.name: staged.path for staged in staged_inputs(execution, files)}
    given = {item["name"]: item for item in execution.job.data.get("input_data", [])}
    values: dict[str, str | None] = {}
    for declared in interface.inputs:
        item = given.get(declared.name)
        if item is None:
            values[declared.name] = None
        elif declared.type == "property":
            values[declared.name] = _text(item["value"])
        elif declared.type == "file":
            values[declared.name] = str(folder / paths[declared.name])
        else:
            values[declared.name] = str(folder / "inputs" / declared.name)
    values["job_output_dir"] = str(folder / "outputs")
    return values


def _text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _job_environment(
    execution: JobExecution, interface: Interface, values: Mapping[str, str | None]
) -> dict[str, str]:
    environment = {
        **execution.job.job_type.environment,
        "SCALE_JOB_ID": str(execution.job_id),
        "SCALE_EXECUTION_ID": str(execution.pk),
    }
    for declared in interface.inputs:
        value = values[declared.name]
        if value is not None:
            environment[declared.variable] = value
    if execution.has_steps:
        environment["SCALE_INPUT_DIR"] = str(work_dir(execution) / "inputs")
        environment["SCALE_OUTPUT_DIR"] = str(work_dir(execution) / "outputs")
    return environment


def _job_command(execution: JobExecution, interface: Interface, arguments: str) -> str:
    line = f"{interface.command} {arguments}".rstrip()
    if execution.has_steps:
        return _ENTER.format(folder=shlex.quote(str(work_dir(execution)))) + line
    # Without files the sandbox is the work folder; its path is known only there.
    return (
        _ENTER.format(folder='"$MESOS_SANDBOX"')
        + 'export SCALE_INPUT_DIR="$PWD" SCALE_OUTPUT_DIR="$PWD"; '
        + line
    )


def _container(execution: JobExecution) -> Container | None:
    job_type = execution.job.job_type
    if not job_type.uses_docker:
        return None
    volumes = [
        Volume(volume["container_path"], volume["host_path"], volume.get("mode", "RO") == "RO")
        for volume in job_type.volumes
    ]
    if execution.has_steps:
        folder = work_dir(execution)
        inputs, outputs = str(folder / "inputs"), str(folder / "outputs")
        volumes += [Volume(inputs, inputs, read_only=True), Volume(outputs, outputs)]
    assert job_type.docker_image is not None
    return Container(job_type.docker_image, tuple(volumes), job_type.docker_privileged)


def steps_orders(execution: JobExecution) -> dict[str, Any]:
    """Return what the steps program is to bring and to take, as `docs/agents.md` describes it.

    The execution comes with its job and revision; one query for the files.
    """
    interface = stored_interface(execution.job.job_type_rev.interface)
    inputs = staged_inputs(execution, files_of([execution]))
    base = f"{settings.SCALE_API_URL}/agent/executions/{execution.uuid}/inputs"
    return {
        "execution": str(execution.uuid),
        "work_dir": str(work_dir(execution)),
        "job_task_id": execution.job_task_id or None,
        "max_output_bytes": settings.SCALE_MAX_OUTPUT_MIB * _MIB,
        "file_roots": settings.SCALE_AGENT_FILE_ROOTS,
        "forbidden_networks": settings.SCALE_AGENT_FORBIDDEN_NETWORKS,
        "inputs": [
            {
                "name": staged.name,
                "path": staged.path,
                "uri": staged.uri or f"{base}/{staged.file_id}/",
                "stored": staged.uri is None,
                "size": staged.file.size if staged.file else None,
                "sha256": staged.file.sha256 if staged.file else None,
            }
            for staged in inputs
        ],
        "outputs": [
            {
                "name": made.name,
                "type": made.type,
                "required": made.required,
                "pattern": made.pattern,
                "media_type": made.media_type,
            }
            for made in interface.outputs
        ],
    }
