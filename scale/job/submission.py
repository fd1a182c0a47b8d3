"""How job types and jobs come to be: checked whole, then stored in one transaction."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from django.db import IntegrityError, transaction

from scale.core.errors import InvalidInput, NotAllowedNow
from scale.core.lifecycle import JobStatus
from scale.core.resources import Resources
from scale.error.models import Error
from scale.job.documents import (
    Input,
    Interface,
    check_value,
    fits,
    read_error_mapping,
    read_interface,
    stored_interface,
)
from scale.job.models import File, Job, JobType, JobTypeRevision, TriggerEvent
from scale.job.services import new_execution, queue_executions

_MIB: Final = 1024 * 1024
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OURS: Final = ("SCALE_", "MESOS_", "LIBPROCESS_")
#: The steps program needs this much memory, whatever the job asks for.
STEPS_MEM_MIB: Final = 64
MAX_INPUT_FILES: Final = 1000
#: The command line is one argument of `sh -c`, and Linux takes 128 KiB for one (execve(2)).
MAX_QUOTED_BYTES: Final = 100_000


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job that somebody wants; `inputs` maps names to values or files as POST /jobs/ takes it."""

    job_type: JobType
    inputs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    priority: int | None = None


@transaction.atomic
def create_job_type(fields: Mapping[str, Any]) -> JobType:
    """Store a job type and its first revision.

    `fields` are those of the model, of the right types. Raises InvalidInput for documents that do
    not hold, errors that do not exist, or bad variables and volumes; NotAllowedNow if the name and
    version are taken. Nothing is written then.
    """
    read_interface(fields["interface"])
    mapping = read_error_mapping(fields.get("error_mapping") or {})
    known = set(Error.objects.filter(name__in=mapping.values()).values_list("name", flat=True))
    for code, name in mapping.items():
        if name not in known:
            raise InvalidInput(f"error_mapping.exit_codes.{code}", f"there is no error {name!r}")
    check_environment(fields.get("environment", {}))
    check_volumes(fields.get("volumes", []))
    try:
        with transaction.atomic():
            job_type = JobType.objects.create(
                **{**fields, "uses_docker": bool(fields.get("docker_image"))}
            )
    except IntegrityError as error:
        if "job_type_name_version" not in str(error):
            raise
        raise NotAllowedNow(
            f"job type {fields['name']} {fields['version']} exists already"
        ) from None
    JobTypeRevision.objects.create(job_type=job_type, revision_num=1, interface=job_type.interface)
    return job_type


def check_environment(variables: Any) -> None:
    """Raise InvalidInput unless it maps names of variables, other than ours, to texts."""
    if not isinstance(variables, dict):
        raise InvalidInput("environment", "must map names of variables to texts")
    for name, value in variables.items():
        if not _VARIABLE.match(name) or name.startswith(_OURS):
            raise InvalidInput(
                "environment", f"{name[:80]!r} is not a name for a variable of a job"
            )
        if not isinstance(value, str):
            raise InvalidInput(f"environment.{name}", "must be a text")
        check_value(f"environment.{name}", value)


def check_volumes(volumes: Any) -> None:
    """Raise InvalidInput unless it is a list of {container_path, host_path, mode}."""
    if not isinstance(volumes, list):
        raise InvalidInput("volumes", "must be a list")
    for index, volume in enumerate(volumes):
        where = f"volumes[{index}]"
        if not isinstance(volume, dict) or set(volume) - {"container_path", "host_path", "mode"}:
            raise InvalidInput(where, "must have container_path, host_path and mode")
        for key in ("container_path", "host_path"):
            path = volume.get(key)
            absolute = isinstance(path, str) and path.startswith("/") and path.isprintable()
            if not absolute or ".." in str(path).split("/") or ":" in str(path):
                raise InvalidInput(f"{where}.{key}", "must be an absolute path")
        if volume.get("mode", "RO") not in {"RO", "RW"}:
            raise InvalidInput(f"{where}.mode", "must be RO or RW")


def submit_jobs(requests: Sequence[JobRequest], *, user: str, at: datetime) -> list[Job]:
    """Store jobs and queue them, all or none.

    A fixed number of statements. Raises InvalidInput whose field starts with `inputs`, or with
    `[n].inputs` if there are several requests; NotAllowedNow for a job type that is not active.
    """
    files = _files_of(requests)
    drafts = []
    for index, request in enumerate(requests):
        try:
            drafts.append(_draft(request, files, at))
        except InvalidInput as error:
            if len(requests) == 1:
                raise
            raise InvalidInput(f"[{index}].{error.field}", error.reason) from None
    with transaction.atomic():
        event = TriggerEvent.objects.create(type="USER", description={"user": user}, occurred=at)
        revisions = _revisions({request.job_type for request in requests})
        for job, _interface in drafts:
            job.event = event
            job.job_type_rev = revisions[job.job_type_id, job.job_type.revision_num]
        Job.objects.bulk_create([job for job, _interface in drafts])
        queue_executions(
            [
                new_execution(
                    job,
                    needs=_needs(job, has_steps=interface.has_steps),
                    has_steps=interface.has_steps,
                )
                for job, interface in drafts
            ],
            at=at,
        )
    return [job for job, _interface in drafts]


def _draft(request: JobRequest, files: Mapping[int, File], at: datetime) -> tuple[Job, Interface]:
    job_type = request.job_type
    if not job_type.is_active:
        raise NotAllowedNow(f"job type {job_type} is not active")
    interface = stored_interface(job_type.interface)
    data = read_inputs(interface, request.inputs, files)
    bytes_in = sum(
        files[file_id].size for item in data["input_data"] for file_id in file_ids_of(item)
    )
    disk_in_mib = math.ceil(bytes_in / _MIB)
    job = Job(
        job_type=job_type,
        name=request.name,
        status=JobStatus.PENDING.value,
        priority=job_type.priority if request.priority is None else request.priority,
        timeout=job_type.timeout,
        max_tries=job_type.max_tries,
        cpus_required=job_type.cpus_required,
        mem_required=job_type.mem_required,
        disk_in_required=float(disk_in_mib),
        disk_out_required=float(
            math.ceil(
                job_type.disk_out_mult_required * disk_in_mib + job_type.disk_out_const_required
            )
        ),
        created=at,
        last_status_change=at,
        last_modified=at,
        data=data,
    )
    return job, interface


def _needs(job: Job, *, has_steps: bool) -> Resources:
    """Return what any phase of the job needs, in whole units."""
    mem_mib = math.ceil(job.mem_required)
    return Resources(
        millicpus=math.ceil(job.cpus_required * 1000 - 1e-6),
        mem_mib=max(mem_mib, STEPS_MEM_MIB) if has_steps else mem_mib,
        disk_mib=math.ceil(job.disk_in_required + job.disk_out_required),
    )


def _revisions(job_types: set[JobType]) -> dict[tuple[int, int], JobTypeRevision]:
    rows = JobTypeRevision.objects.filter(job_type__in=job_types)
    return {(row.job_type_id, row.revision_num): row for row in rows}


def _files_of(requests: Sequence[JobRequest]) -> dict[int, File]:
    wanted = {
        given["file_id"]
        for request in requests
        for value in request.inputs.values()
        for given in (value if isinstance(value, list) else [value])
        if isinstance(given, dict) and isinstance(given.get("file_id"), int)
    }
    return File.objects.in_bulk([file_id for file_id in wanted if 0 < file_id < 2**63])


def file_ids_of(item: Mapping[str, Any]) -> list[int]:
    """Return the ids of the stored files of one entry of a job data document."""
    given = [item, *item.get("files", [])]
    return [entry["file_id"] for entry in given if "file_id" in entry]


def read_inputs(
    interface: Interface, inputs: Mapping[str, Any], files: Mapping[int, File]
) -> dict[str, Any]:
    """Check inputs against an interface; return the job data document.

    Its `input_data` has one entry for each input that has a value: {name, value}, {name, file_id},
    {name, uri} or {name, files: [{file_id} | {uri}]}; defaults are filled in.

    Raises:
        InvalidInput: names the input and the reason.
    """
    known = {given.name for given in interface.inputs}
    for name in inputs:
        if name not in known:
            raise InvalidInput(f"inputs.{name[:80]}", "the job type has no such input")
    entries = []
    for given in interface.inputs:
        value = inputs.get(given.name)
        if value is None:
            value = given.default
        if value is not None:
            entries.append({"name": given.name, **_entry(given, value, files)})
        elif given.required:
            raise InvalidInput(f"inputs.{given.name}", "is required")
    quoted = (shlex.quote(str(entry["value"])) for entry in entries if "value" in entry)
    if sum(len(word.encode(errors="replace")) for word in quoted) > MAX_QUOTED_BYTES:
        raise InvalidInput("inputs", f"the values together exceed {MAX_QUOTED_BYTES} bytes")
    return {"version": "1.0", "input_data": entries, "output_data": []}


def _entry(given: Input, value: Any, files: Mapping[int, File]) -> dict[str, Any]:
    where = f"inputs.{given.name}"
    if given.type == "property":
        if not fits(value, given.value_type):
            raise InvalidInput(where, f"must be a {given.value_type}")
        check_value(where, value)
        return {"value": value}
    if given.type == "file":
        return _file(where, value, files)
    listed = value if isinstance(value, list) else [value]
    if not listed or len(listed) > MAX_INPUT_FILES:
        raise InvalidInput(where, f"must be a list of 1 to {MAX_INPUT_FILES} files")
    return {"files": [_file(f"{where}[{n}]", entry, files) for n, entry in enumerate(listed)]}


def _file(where: str, value: Any, files: Mapping[int, File]) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) != 1:
        raise InvalidInput(where, 'must be {"file_id": number} or {"uri": "https://..."}')
    file_id, uri = value.get("file_id"), value.get("uri")
    if isinstance(file_id, int) and not isinstance(file_id, bool):
        if file_id not in files:
            raise InvalidInput(where, f"there is no file {file_id}")
        return {"file_id": file_id}
    if isinstance(uri, str):
        _check_uri(where, uri)
        return {"uri": uri}
    raise InvalidInput(where, 'must be {"file_id": number} or {"uri": "https://..."}')


def _check_uri(where: str, uri: str) -> None:
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 - raises for a bad port
    except ValueError:
        raise InvalidInput(where, "is not a URI") from None
    printable = uri.isprintable() and " " not in uri and len(uri) <= 4000
    remote = parts.scheme in {"http", "https"} and bool(parts.hostname)
    local = parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc
    if not printable or not (remote or local):
        raise InvalidInput(where, "must be an http, https or file URI")
    if parts.username or parts.password:
        raise InvalidInput(where, "must not hold a user name or password")
    if unquote(parts.path).rpartition("/")[2] in {"..", "."}:
        raise InvalidInput(where, "must name a file")
