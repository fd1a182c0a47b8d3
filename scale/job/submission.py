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

from scale.core.command import Placeholder
from scale.core.errors import InvalidInput, NotAllowedNow
from scale.core.lifecycle import Phase
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
from scale.job.models import File, Job, JobExecution, JobType, JobTypeRevision
from scale.job.new_jobs import Draft, store_and_read_job, store_jobs

_MIB: Final = 1024 * 1024
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OURS: Final = ("SCALE_", "MESOS_", "LIBPROCESS_")
#: The steps program needs this much memory, whatever the job asks for.
STEPS_MEM_MIB: Final = 64
MAX_INPUT_FILES: Final = 1000
#: The command line is one argument of `sh -c`, and Linux takes 128 KiB for one (execve(2)).
MAX_QUOTED_BYTES: Final = 100_000
#: Every task of a job type carries its environment and volumes, and a round launches hundreds.
MAX_ENVIRONMENT_BYTES: Final = 100_000
MAX_VOLUMES: Final = 100
_MAX_NAME: Final = 255
_MAX_PATH: Final = 4000


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
    check_documents(fields)
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


def check_documents(fields: Mapping[str, Any]) -> None:
    """Raise InvalidInput unless the documents of a job type that are among `fields` hold.

    One query if an error mapping is among them.
    """
    if "interface" in fields:
        read_interface(fields["interface"])
    given = fields.get("error_mapping")
    mapping = read_error_mapping({} if given is None else given)
    known = set(Error.objects.filter(name__in=mapping.values()).values_list("name", flat=True))
    for code, name in mapping.items():
        if name not in known:
            raise InvalidInput(f"error_mapping.exit_codes.{code}", f"there is no error {name!r}")
    check_environment(fields.get("environment", {}))
    check_volumes(fields.get("volumes", []))


def check_environment(variables: Any) -> None:
    """Raise InvalidInput unless it maps names of variables, other than ours, to texts."""
    if not isinstance(variables, dict):
        raise InvalidInput("environment", "must map names of variables to texts")
    for name, value in variables.items():
        if not _VARIABLE.match(name) or name.startswith(_OURS) or len(name) > _MAX_NAME:
            raise InvalidInput(
                "environment", f"{name[:80]!r} is not a name for a variable of a job"
            )
        if not isinstance(value, str):
            raise InvalidInput(f"environment.{name}", "must be a text")
        check_value(f"environment.{name}", value)
    if sum(len(f"{each}={variables[each]}".encode()) for each in variables) > MAX_ENVIRONMENT_BYTES:
        raise InvalidInput("environment", f"must have at most {MAX_ENVIRONMENT_BYTES} bytes")


def check_volumes(volumes: Any) -> None:
    """Raise InvalidInput unless it is a list of {container_path, host_path, mode}."""
    if not isinstance(volumes, list) or len(volumes) > MAX_VOLUMES:
        raise InvalidInput("volumes", f"must be a list of at most {MAX_VOLUMES}")
    for index, volume in enumerate(volumes):
        where = f"volumes[{index}]"
        if not isinstance(volume, dict) or set(volume) - {"container_path", "host_path", "mode"}:
            raise InvalidInput(where, "must have container_path, host_path and mode")
        for key in ("container_path", "host_path"):
            path = volume.get(key)
            absolute = isinstance(path, str) and path.startswith("/") and path.isprintable()
            if not absolute or ".." in str(path).split("/") or ":" in str(path):
                raise InvalidInput(f"{where}.{key}", "must be an absolute path")
            if len(str(path)) > _MAX_PATH:
                raise InvalidInput(f"{where}.{key}", f"must have at most {_MAX_PATH} characters")
        if volume.get("mode", "RO") not in ("RO", "RW"):
            raise InvalidInput(f"{where}.mode", "must be RO or RW")


def submit_jobs(requests: Sequence[JobRequest], *, user: str, at: datetime) -> list[int]:
    """Store jobs and queue them, all or none; return their ids in this order.

    One statement, and one more if there are stored files. Raises InvalidInput whose field starts
    with `inputs`, or with `[n].inputs` if there are several requests; NotAllowedNow for a job type
    that is not active.
    """
    return store_jobs(_drafts(requests), user=user, at=at)


def submit_job(request: JobRequest, *, user: str, at: datetime) -> tuple[Job, JobExecution]:
    """Store a job as `submit_jobs`; return it and its attempt, as they are stored.

    The job comes with its type, revision and event, without another statement.
    """
    [draft] = _drafts([request])
    return store_and_read_job(draft, request.job_type, user=user, at=at)


def _drafts(requests: Sequence[JobRequest]) -> list[Draft]:
    files = _files_of(requests)
    types = {request.job_type.pk: request.job_type for request in requests}
    terms = {key: _Terms(job_type) for key, job_type in types.items()}
    drafts = []
    for index, request in enumerate(requests):
        try:
            drafts.append(_draft(request, terms[request.job_type.pk], files))
        except InvalidInput as error:
            if len(requests) == 1:
                raise
            raise InvalidInput(f"[{index}].{error.field}", error.reason) from None
    return drafts


class _Terms:
    """What jobs of a type have in common, worked out once for all of them."""

    def __init__(self, job_type: JobType) -> None:
        if not job_type.is_active:
            raise NotAllowedNow(f"job type {job_type} is not active")
        self.interface = stored_interface(job_type.interface)
        self.has_steps = self.interface.has_steps
        mem_mib = math.ceil(job_type.mem_required)
        self.needs_mem_mib = max(mem_mib, STEPS_MEM_MIB) if self.has_steps else mem_mib
        self.needs_millicpus = math.ceil(job_type.cpus_required * 1000 - 1e-6)


def _draft(request: JobRequest, terms: _Terms, files: Mapping[int, File]) -> Draft:
    job_type = request.job_type
    data = read_inputs(terms.interface, request.inputs, files)
    disk_in_mib = math.ceil(_bytes_in(data, files) / _MIB) if files else 0
    disk_out_mib = math.ceil(
        job_type.disk_out_mult_required * disk_in_mib + job_type.disk_out_const_required
    )
    return Draft(
        job_type_id=job_type.pk,
        revision_num=job_type.revision_num,
        name=request.name,
        priority=job_type.priority if request.priority is None else request.priority,
        timeout=job_type.timeout,
        max_tries=job_type.max_tries,
        cpus_required=job_type.cpus_required,
        mem_required=job_type.mem_required,
        disk_in_required=disk_in_mib,
        disk_out_required=disk_out_mib,
        data=data,
        phase=(Phase.PRE if terms.has_steps else Phase.JOB).value,
        has_steps=terms.has_steps,
        needs_millicpus=terms.needs_millicpus,
        needs_mem_mib=terms.needs_mem_mib,
        needs_disk_mib=disk_in_mib + disk_out_mib,
    )


def _bytes_in(data: Mapping[str, Any], files: Mapping[int, File]) -> int:
    return sum(files[each].size for item in data["input_data"] for each in file_ids_of(item))


def _files_of(requests: Sequence[JobRequest]) -> dict[int, File]:
    wanted = {
        given["file_id"]
        for request in requests
        for value in request.inputs.values()
        for given in (value if isinstance(value, list) else [value])
        if isinstance(given, dict) and isinstance(given.get("file_id"), int)
    }
    ids = [file_id for file_id in wanted if 0 < file_id < 2**63]
    return File.objects.in_bulk(ids) if ids else {}


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
    _check_together(interface, entries)
    return {"version": "1.0", "input_data": entries, "output_data": []}


def _check_together(interface: Interface, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise InvalidInput for values that no command line can hold as often as it has them."""
    quoted = {
        entry["name"]: len(shlex.quote(str(entry["value"])).encode(errors="replace"))
        for entry in entries
        if "value" in entry
    }
    taken = sum(quoted.values())
    # Most are far from it however often they come; then nothing need be parsed.
    if taken * interface.command_arguments.count("${") > MAX_QUOTED_BYTES:
        parts = interface.template().parts
        placed = (quoted.get(part.name, 0) for part in parts if isinstance(part, Placeholder))
        taken = max(taken, sum(placed))
    if taken > MAX_QUOTED_BYTES:
        raise InvalidInput("inputs", f"the values together exceed {MAX_QUOTED_BYTES} bytes")


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
