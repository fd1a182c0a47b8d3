"""What things look like in JSON: the field tables of seed 002, and those that it refers to.

Lists read tuples of the columns named here, never rows with their heavy documents.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from django.db.models import Model

from scale.api.base import Link
from scale.core.lifecycle import State, events_from
from scale.error.models import Error
from scale.job.models import File, Job, JobExecution, JobType
from scale.job.selectors import ERROR_BASE, JOB_TYPE_BASE, Given
from scale.node.models import Node

Shape = dict[str, Any]

JOB_TYPE: Final = (
    *JOB_TYPE_BASE,
    "uses_docker",
    "docker_privileged",
    "docker_image",
    "revision_num",
    "priority",
    "max_scheduled",
    "timeout",
    "max_tries",
    "cpus_required",
    "mem_required",
    "disk_out_const_required",
    "disk_out_mult_required",
    "created",
    "archived",
    "paused",
    "last_modified",
)
_JOB_TYPE_DOCUMENTS: Final = ("interface", "error_mapping", "environment", "volumes")
NODE_BASE: Final = ("id", "hostname", "port", "slave_id")
NODE: Final = (
    *NODE_BASE,
    "pause_reason",
    "is_paused",
    "is_paused_errors",
    "is_active",
    "is_online",
    "archived",
    "created",
    "last_offer",
    "last_modified",
)
ERROR: Final = (*ERROR_BASE, "should_be_retried", "created", "last_modified")
EXECUTION: Final = (
    "id",
    "status",
    "command_arguments",
    "timeout",
    "pre_started",
    "pre_completed",
    "pre_exit_code",
    "job_started",
    "job_completed",
    "job_exit_code",
    "post_started",
    "post_completed",
    "post_exit_code",
    "created",
    "queued",
    "started",
    "ended",
    "last_modified",
)
_JOB_IN_EXECUTION: Final = (
    "id",
    "job_type_rev_id",
    "event_id",
    "error_id",
    "status",
    "priority",
    "num_exes",
)
_SCHEDULED: Final = (
    "cpus_scheduled",
    "mem_scheduled",
    "disk_in_scheduled",
    "disk_out_scheduled",
    "disk_total_scheduled",
)
JOB: Final = (
    "id",
    "name",
    "status",
    "priority",
    "num_exes",
    "timeout",
    "max_tries",
    "cpus_required",
    "mem_required",
    "disk_in_required",
    "disk_out_required",
    "created",
    "queued",
    "started",
    "ended",
    "last_status_change",
    "last_modified",
)
EVENT: Final = ("id", "type", "occurred")
_FILE: Final = ("id", "name", "size", "media_type", "sha256", "created")


def _under(relation: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{relation}__{name}" for name in names)


class _Reader:
    """Takes the columns of a row in turn."""

    def __init__(self, row: Sequence[Any]) -> None:
        self._row = row
        self._at = 0

    def take(self, names: Sequence[str]) -> Shape:
        first, self._at = self._at, self._at + len(names)
        return dict(zip(names, self._row[first : self._at], strict=True))


def _or_none(shape: Shape) -> Shape | None:
    """Return what an outer join found."""
    return shape if shape["id"] is not None else None


def _reference(key: int | None) -> Shape | None:
    return None if key is None else {"id": key}


def _picked(thing: Model, names: Iterable[str]) -> Shape:
    return {name: getattr(thing, name) for name in names}


EXECUTION_COLUMNS: Final = (
    *EXECUTION,
    *_under("job", _JOB_IN_EXECUTION),
    *_under("job_type", JOB_TYPE_BASE),
    *_under("node", NODE_BASE),
    *_under("error", ERROR_BASE),
)


def execution(row: tuple[Any, ...]) -> Shape:
    """Shape one row of EXECUTION_COLUMNS as the seed's list has it."""
    read = _Reader(row)
    shape = read.take(EXECUTION)
    job = read.take(_JOB_IN_EXECUTION)
    shape["job"] = {
        "id": job["id"],
        "job_type": read.take(JOB_TYPE_BASE),
        "job_type_rev": {"id": job["job_type_rev_id"]},
        "event": {"id": job["event_id"]},
        "error": _reference(job["error_id"]),
        "status": job["status"],
        "priority": job["priority"],
        "num_exes": job["num_exes"],
    }
    shape["node"] = _or_none(read.take(NODE_BASE))
    shape["error"] = _or_none(read.take(ERROR_BASE))
    return shape


def execution_details(found: JobExecution, link: Link) -> Shape:
    """Shape an execution that came with all its relations (`selectors.execution_details`)."""
    logs = f"/job-executions/{found.pk}/logs"
    launched = found.started is not None
    return {
        **_picked(found, EXECUTION),
        "uuid": str(found.uuid),
        "exe_num": found.exe_num,
        "state": found.state,
        "phase": found.phase,
        "allowed_events": sorted(event.value for event in events_from(State(found.state))),
        "job": job_full(found.job),
        "node": _picked(found.node, NODE) if found.node else None,
        "error": _picked(found.error, ERROR) if found.error else None,
        "error_message": found.error_message,
        "environment": found.environment,
        **_picked(found, _SCHEDULED),
        "results": found.results,
        "current_stdout_url": link(f"{logs}/stdout/") if launched else None,
        "current_stderr_url": link(f"{logs}/stderr/") if launched else None,
        "results_manifest": found.results_manifest,
    }


#: An execution inside its job or its node.
EXECUTION_IN_JOB_COLUMNS: Final = (
    *EXECUTION,
    "exe_num",
    "error_message",
    "job_id",
    "node_id",
    "error_id",
)
EXECUTION_IN_NODE_COLUMNS: Final = (*EXECUTION_COLUMNS, *_SCHEDULED)


def execution_in_job(row: tuple[Any, ...]) -> Shape:
    shape = dict(zip(EXECUTION_IN_JOB_COLUMNS, row, strict=True))
    for relation in ("job", "node", "error"):
        shape[relation] = _reference(shape.pop(f"{relation}_id"))
    return shape


def execution_in_node(row: tuple[Any, ...]) -> Shape:
    shape = execution(row[: len(EXECUTION_COLUMNS)])
    shape["node"] = _reference(shape["node"]["id"])
    return shape | dict(zip(_SCHEDULED, row[len(EXECUTION_COLUMNS) :], strict=True))


def job_full(found: Job) -> Shape:
    """Shape a job that came with its relations, without its executions and files."""
    revision = found.job_type_rev
    return {
        **_picked(found, JOB),
        "job_type": _picked(found.job_type, JOB_TYPE),
        "job_type_rev": {
            "id": revision.pk,
            "job_type": {"id": found.job_type_id},
            "revision_num": revision.revision_num,
            "interface": revision.interface,
            "created": revision.created,
        },
        "event": {
            **_picked(found.event, EVENT),
            "rule": None,
            "description": found.event.description,
        },
        "error": _picked(found.error, ERROR) if found.error else None,
        "data": found.data,
        "results": found.results,
    }


def job_details(
    found: Job,
    executions: list[Shape],
    inputs: Iterable[Given],
    outputs: Iterable[Given],
    link: Link,
) -> Shape:
    """Shape a job with its executions, newest first, and its files."""
    inputs, outputs = tuple(inputs), tuple(outputs)
    return {
        **job_full(found),
        "error_message": executions[0]["error_message"] if executions else "",
        "recipes": [],
        "job_exes": executions,
        "inputs": [_given(each, link) for each in inputs],
        "outputs": [_given(each, link) for each in outputs],
        "input_files": _files(inputs, link),
        "products": _files(outputs, link),
    }


def _given(given: Given, link: Link) -> Shape:
    value = given.value
    if isinstance(value, list):
        value = [file(each, link) if isinstance(each, File) else each for each in value]
    elif isinstance(value, File):
        value = file(value, link)
    return {"name": given.name, "type": given.type, "value": value}


def _files(given: Iterable[Given], link: Link) -> list[Shape]:
    """Shape the stored files of inputs or outputs, each once, in their order."""
    values = [value for each in given for value in _listed(each.value)]
    stored = {value.pk: value for value in values if isinstance(value, File)}
    return [file(each, link) for each in stored.values()]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def job_type_details(found: JobType, errors: Iterable[Error]) -> Shape:
    return {
        **_picked(found, JOB_TYPE),
        **_picked(found, _JOB_TYPE_DOCUMENTS),
        "errors": [error(each) for each in errors],
        "trigger_rule": None,
    }


def error(found: Error) -> Shape:
    return _picked(found, ERROR)


def node(found: Node) -> Shape:
    return _picked(found, NODE)


FILE_COLUMNS: Final = (*_FILE, "execution_id", "output_name")


def file_row(link: Link) -> Callable[[tuple[Any, ...]], Shape]:
    def shape(row: tuple[Any, ...]) -> Shape:
        found = dict(zip(FILE_COLUMNS, row, strict=True))
        found["job_exe"] = _reference(found.pop("execution_id"))
        return found | {"url": link(f"/files/{found['id']}/content/")}

    return shape


def file(found: File, link: Link) -> Shape:
    return file_row(link)(tuple(getattr(found, name) for name in FILE_COLUMNS))


BULK_ACTION: Final = (
    "id",
    "kind",
    "filters",
    "priority",
    "created",
    "finished",
    "done",
    "failed",
    "failure",
)
BULK_ACTION_COLUMNS: Final = (*BULK_ACTION, "requested_by__username")


def bulk_action(row: tuple[Any, ...]) -> Shape:
    """Shape one row of BULK_ACTION_COLUMNS."""
    *facts, user = row
    return dict(zip(BULK_ACTION, facts, strict=True)) | {"requested_by": user}


def resources(millicpus: int | None, mem_mib: int | None, disk_mib: int | None) -> Shape | None:
    """Shape resources in cores and MiB; None if the cluster has not told them."""
    if millicpus is None or mem_mib is None or disk_mib is None:
        return None
    return {"cpus": millicpus / 1000, "mem": float(mem_mib), "disk": float(disk_mib)}
