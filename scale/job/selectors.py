"""What people ask about job types, jobs, executions and files; reads only."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from django.db.models import Model, Q, QuerySet, Sum

from scale.core.lifecycle import HAS_TASK
from scale.core.resources import Resources
from scale.error.models import Error
from scale.job.documents import stored_error_mapping, stored_interface
from scale.job.models import (
    ExecutionEvent,
    File,
    Job,
    JobExecution,
    JobType,
    JobTypeRevision,
)
from scale.job.submission import file_ids_of

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which executions or jobs to list; an empty collection or None does not restrict.

    `started` and `ended` bound the time `when`, both included. `also` is a condition of a layer
    above on the rows themselves; if it only restricts the job types, `also_means` has their ids.
    """

    started: datetime | None = None
    ended: datetime | None = None
    when: str = "last_modified"
    statuses: Collection[str] = ()
    ids: Collection[int] = ()
    job_ids: Collection[int] = ()
    job_type_ids: Collection[int] = ()
    job_type_names: Collection[str] = ()
    job_type_categories: Collection[str] = ()
    node_ids: Collection[int] = ()
    error_categories: Collection[str] = ()
    error_ids: Collection[int] = ()
    also: Q = field(default_factory=Q)
    also_means: Collection[int] = ()


def jobs(wanted: Wanted) -> QuerySet[Job]:
    """Return the jobs that are wanted, in no order; `lists.py` has them in pages."""
    return Job.objects.filter(
        within(wanted.started, wanted.ended, wanted.when),
        _among(
            status=wanted.statuses,
            id=wanted.ids,
            job_type_id=wanted.job_type_ids,
            job_type__name=wanted.job_type_names,
            job_type__category=wanted.job_type_categories,
            error_id=wanted.error_ids,
            error__category=wanted.error_categories,
        ),
    )


def job_types(
    *,
    started: datetime | None = None,
    ended: datetime | None = None,
    names: Collection[str] = (),
    categories: Collection[str] = (),
) -> QuerySet[JobType]:
    """Return job types, in no order."""
    return JobType.objects.filter(within(started, ended), _among(name=names, category=categories))


def files(*, started: datetime | None = None, ended: datetime | None = None) -> QuerySet[File]:
    """Return files that were stored in a period, in no order."""
    return File.objects.filter(within(started, ended, "created"))


def within(started: datetime | None, ended: datetime | None, column: str = "last_modified") -> Q:
    bounds = Q()
    if started is not None:
        bounds &= Q((f"{column}__gte", started))
    if ended is not None:
        bounds &= Q((f"{column}__lte", ended))
    return bounds


def _among(**wanted: Collection[Any]) -> Q:
    chosen = Q()
    for column, values in wanted.items():
        if values:
            chosen &= Q((f"{column}__in", values))
    return chosen


_OF_A_JOB: Final = ("job_type", "job_type_rev", "event", "error")


def execution_details(pk: int) -> JobExecution | None:
    """Return an execution with its job and all that belongs to both; two queries.

    One would join eight tables, in an order for which PostgreSQL looks longer than both take.
    """
    found = _first(JobExecution.objects.select_related("node", "error"), pk)
    if found is not None:
        found.job = Job.objects.select_related(*_OF_A_JOB).get(pk=found.job_id)
    return found


def job_details(pk: int) -> Job | None:
    """Return a job with all that belongs to it, but not its executions; one query."""
    return _first(Job.objects.select_related(*_OF_A_JOB), pk)


def _first(rows: QuerySet[M], pk: int) -> M | None:
    return rows.filter(pk=pk).first()


@dataclass(frozen=True, slots=True)
class Given:
    """One input or output of a job: `value` is a property's value, a file or URI, or several."""

    name: str
    type: str
    value: Any


def inputs_and_outputs(job: Job) -> tuple[list[Given], list[Given]]:
    """Return every declared input and output of a job; None is the value of what is missing.

    Files are File rows, and {"uri": ...} for what was given by its address. One query, none
    without files.
    """
    interface = stored_interface(job.job_type_rev.interface)
    taken = {item["name"]: item for item in job.data.get("input_data", [])}
    made = {item["name"]: item for item in job.results.get("output_data", [])}
    ids = {key for item in taken.values() for key in file_ids_of(item)}
    ids |= {key for item in made.values() for key in _output_ids(item)}
    stored = File.objects.in_bulk(ids) if ids else {}
    inputs = [
        Given(each.name, each.type, _input_value(taken.get(each.name), stored))
        for each in interface.inputs
    ]
    outputs = [
        Given(each.name, each.type, _output_value(made.get(each.name), each.type, stored))
        for each in interface.outputs
    ]
    return inputs, outputs


def _input_value(item: Mapping[str, Any] | None, stored: Mapping[int, File]) -> Any:
    if item is None:
        return None
    if "value" in item:
        return item["value"]
    if "files" in item:
        return [_file_or_uri(entry, stored) for entry in item["files"]]
    return _file_or_uri(item, stored)


def _file_or_uri(entry: Mapping[str, Any], stored: Mapping[int, File]) -> Any:
    return stored.get(entry["file_id"]) if "file_id" in entry else {"uri": entry["uri"]}


def _output_ids(item: Mapping[str, Any]) -> list[int]:
    return item["file_ids"] if "file_ids" in item else [item["file_id"]]


def _output_value(item: Mapping[str, Any] | None, kind: str, stored: Mapping[int, File]) -> Any:
    if item is None:
        return None
    found = [stored[key] for key in _output_ids(item) if key in stored]
    if kind == "files":
        return found
    return found[0] if found else None


def errors_of(job_type: JobType) -> list[Error]:
    """Return the errors that the mapping of a job type names; one query."""
    names = set(stored_error_mapping(job_type.error_mapping).values())
    return list(Error.objects.filter(name__in=names).order_by("name")) if names else []


def executions_of(job_id: int) -> QuerySet[JobExecution]:
    """Return the attempts of a job, newest first."""
    return JobExecution.objects.filter(job_id=job_id).order_by("-exe_num")


def history_of_execution(execution_id: int) -> QuerySet[ExecutionEvent]:
    """Return what happened to an execution, oldest first."""
    return ExecutionEvent.objects.filter(execution_id=execution_id).order_by("id")


def history_of_job(job_id: int) -> QuerySet[ExecutionEvent]:
    """Return what happened to all attempts of a job, oldest first."""
    return ExecutionEvent.objects.filter(execution__job_id=job_id).order_by("id")


def revisions_of(job_type_id: int) -> QuerySet[JobTypeRevision]:
    """Return the revisions of a job type, newest first."""
    return JobTypeRevision.objects.filter(job_type_id=job_type_id).order_by("-revision_num")


def input_files(documents: Mapping[int, Mapping[str, Any]]) -> dict[int, list[File]]:
    """Return the stored files that jobs read; `documents` maps their ids to their data.

    One query, none without files.
    """
    wanted = {
        key: [each for item in data.get("input_data", []) for each in file_ids_of(item)]
        for key, data in documents.items()
    }
    ids = {each for keys in wanted.values() for each in keys}
    stored = File.objects.in_bulk(ids) if ids else {}
    return {key: [stored[each] for each in keys if each in stored] for key, keys in wanted.items()}


def running_on(node_id: int) -> QuerySet[JobExecution]:
    """Return the executions that have their task on a node, oldest first."""
    return JobExecution.objects.filter(
        node_id=node_id, state__in=sorted(state.value for state in HAS_TASK)
    ).order_by("started", "id")


def scheduled_on(node_id: int) -> Resources:
    """Return what the tasks on a node were placed by; one query."""
    sums = running_on(node_id).aggregate(
        cpus=Sum("needs_millicpus"), mem=Sum("needs_mem_mib"), disk=Sum("needs_disk_mib")
    )
    return Resources(sums["cpus"] or 0, sums["mem"] or 0, sums["disk"] or 0)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


#: The fields of a job type, and of an error, that show wherever one is mentioned.
JOB_TYPE_BASE: Final = (
    "id",
    "name",
    "version",
    "title",
    "description",
    "category",
    "author_name",
    "author_url",
    "is_system",
    "is_long_running",
    "is_active",
    "is_operational",
    "is_paused",
    "icon_code",
)
ERROR_BASE: Final = ("id", "name", "title", "description", "category", "is_builtin")


def _under(prefix: str, names: Iterable[str], column: str) -> dict[str, str]:
    return {f"{prefix}__{name}": f"{column}__{name}" for name in names}


#: What lists can be ordered by: the name in the interface -> the name in the model.
EXECUTION_ORDER: Final[Mapping[str, str]] = {
    **_same("id", "status", "command_arguments", "timeout", "exe_num"),
    **_same(*(f"{p}_{w}" for p in ("pre", "job", "post") for w in ("started", "completed"))),
    **_same(*(f"{p}_exit_code" for p in ("pre", "job", "post"))),
    **_same("created", "queued", "started", "ended", "last_modified"),
    **_under("job_type", JOB_TYPE_BASE, "job_type"),
    **_under("job__job_type", JOB_TYPE_BASE, "job_type"),
    **_under("job", ("id", "name", "status", "priority", "num_exes"), "job"),
    **_under("node", ("id", "hostname", "port", "slave_id"), "node"),
    **_under("error", ERROR_BASE, "error"),
}
JOB_ORDER: Final[Mapping[str, str]] = {
    **_same("id", "name", "status", "priority", "num_exes", "timeout", "max_tries"),
    **_same("cpus_required", "mem_required", "disk_in_required", "disk_out_required"),
    **_same("created", "queued", "started", "ended", "last_status_change", "last_modified"),
    **_under("job_type", JOB_TYPE_BASE, "job_type"),
    **_under("job_type_rev", ("id", "revision_num"), "job_type_rev"),
    **_under("event", ("id", "type", "occurred"), "event"),
    **_under("error", ERROR_BASE, "error"),
}
JOB_TYPE_ORDER: Final[Mapping[str, str]] = {
    **_same(*JOB_TYPE_BASE),
    **_same("uses_docker", "docker_privileged", "docker_image", "revision_num", "priority"),
    **_same("max_scheduled", "timeout", "max_tries", "cpus_required", "mem_required"),
    **_same("disk_out_const_required", "disk_out_mult_required"),
    **_same("created", "archived", "paused", "last_modified"),
}
FILE_ORDER: Final[Mapping[str, str]] = _same("id", "name", "size", "media_type", "created")
