"""What the steps program reports of an execution. States are not its to move: Mesos tells those."""

from collections.abc import Collection
from typing import Any, Final

from django.conf import settings
from django.db.models import Q, QuerySet, Sum

from scale.core.errors import InvalidInput, NotAllowedNow
from scale.core.lifecycle import HAS_TASK, Phase
from scale.job.documents import Output, stored_interface
from scale.job.models import File, JobExecution, values
from scale.job.submission import file_ids_of

_MESSAGE_CHARACTERS: Final = 1000
_STEPS: Final = (Phase.PRE.value, Phase.POST.value)
_MIB: Final = 1024 * 1024


def executions_in_steps() -> QuerySet[JobExecution]:
    """Return the executions whose task is the steps program now."""
    return JobExecution.objects.filter(state__in=values(HAS_TASK), phase__in=_STEPS)


def input_ids(execution: JobExecution) -> set[int]:
    """Return the ids of the stored files that the execution may read; it comes with its job."""
    items = execution.job.data.get("input_data", [])
    return {file_id for item in items for file_id in file_ids_of(item)}


def require_phase(execution: JobExecution, phase: Phase) -> None:
    """Raise NotAllowedNow unless the execution is in a phase."""
    if execution.phase != phase:
        raise NotAllowedNow(f"the execution is in phase {execution.phase}, not {phase}")


def declared_output(execution: JobExecution, name: str) -> Output:
    """Return an output of the execution's interface; it comes with its job's revision.

    Raises:
        InvalidInput: there is none of that name.
    """
    for output in stored_interface(execution.job.job_type_rev.interface).outputs:
        if output.name == name:
            return output
    raise InvalidInput("output", f"{name[:80]!r} is not an output of this job type")


def room_for_output(execution: JobExecution, output_name: str, name: str) -> int:
    """Return how many bytes a file may have, which replaces an earlier one of the same name."""
    others = File.objects.filter(execution=execution).exclude(
        Q(output_name=output_name) & Q(name=name)
    )
    taken: int = others.aggregate(total=Sum("size"))["total"] or 0
    return max(0, settings.SCALE_MAX_OUTPUT_MIB * _MIB - taken)


def report_results(
    execution: JobExecution, *, outputs: Any, manifest: Any, folder_removed: Any
) -> None:
    """Store what came out of an execution; `outputs` is [{name, file_id | file_ids}].

    May be repeated until the task ends. A work folder that was not removed is owed a clean-up.

    Raises:
        InvalidInput: something is not of its type, or names what is not this execution's.
        NotAllowedNow: the task has ended meanwhile, or is not that of the post phase.
        Nothing was written then.
    """
    require_phase(execution, Phase.POST)
    if not isinstance(manifest, dict):
        raise InvalidInput("results_manifest", "must be an object")
    if not isinstance(folder_removed, bool):
        raise InvalidInput("folder_removed", "must be true or false")
    results = {"version": "1.0", "output_data": _read_outputs(execution, outputs)}
    changes: dict[str, Any] = {"results": results, "results_manifest": manifest}
    if not folder_removed:
        changes["cleanup_owed"] = True
    same = executions_in_steps().filter(pk=execution.pk, task_id=execution.task_id)
    if not same.update(**changes):
        raise NotAllowedNow("the task has ended")


def _read_outputs(execution: JobExecution, outputs: Any) -> list[dict[str, Any]]:
    if not isinstance(outputs, list):
        raise InvalidInput("outputs", "must be a list")
    stored = dict(File.objects.filter(execution=execution).values_list("pk", "output_name"))
    read: list[dict[str, Any]] = []
    for index, given in enumerate(outputs):
        field = f"outputs[{index}]"
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise InvalidInput(field, "must be an object with a name")
        if any(earlier["name"] == given["name"] for earlier in read):
            raise InvalidInput(field, f"output {given['name'][:80]!r} comes twice")
        read.append(_read_output(declared_output(execution, given["name"]), given, stored, field))
    return read


def _read_output(
    output: Output, given: dict[str, Any], stored: dict[int, str], field: str
) -> dict[str, Any]:
    key = "file_ids" if output.type == "files" else "file_id"
    if set(given) != {"name", key}:
        raise InvalidInput(field, f"must have name and {key}")
    ids: Collection[Any] = given[key] if key == "file_ids" else [given[key]]
    if not isinstance(ids, list) or any(type(each) is not int for each in ids):
        raise InvalidInput(f"{field}.{key}", "must be an id" if key == "file_id" else "must be ids")
    if len(set(ids)) < len(ids):
        # What cannot be shown is left out of names: the last one took the place of the others.
        raise InvalidInput(f"{field}.{key}", "has files whose names cannot be told apart")
    for file_id in ids:
        if stored.get(file_id) != output.name:
            raise InvalidInput(f"{field}.{key}", f"file {file_id} was not stored for this output")
    return {"name": output.name, key: given[key]}


def report_failure(execution: JobExecution, *, phase: Any, message: Any) -> None:
    """Store a sentence on why a phase fails, if there is none yet.

    It is shown to users when the execution has failed: at most 1,000 characters, and none that
    cannot be seen.

    Raises:
        InvalidInput: one of them is not of its type.
        NotAllowedNow: the execution is not in that phase.
    """
    if phase not in _STEPS:
        raise InvalidInput("phase", "must be pre or post")
    if not isinstance(message, str):
        raise InvalidInput("message", "must be a string")
    require_phase(execution, Phase(phase))
    seen = "".join(char if char.isprintable() else " " for char in message)
    text = " ".join(seen.split())[:_MESSAGE_CHARACTERS]
    same = executions_in_steps().filter(pk=execution.pk, task_id=execution.task_id)
    same.filter(error_message="").update(error_message=text)
