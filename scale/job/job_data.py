"""Reads the job data document of the first interface (scale 3, job data 1.0) as inputs."""

from collections.abc import Mapping
from typing import Any

from scale.core.errors import InvalidInput
from scale.job.documents import stored_interface
from scale.job.models import JobType

_WORDS = {"true": True, "false": False}


def inputs_of(document: Mapping[str, Any], job_type: JobType) -> dict[str, Any]:
    """Return the inputs that a job data document gives, as `JobRequest` takes them.

    Inputs that the job type does not have are left out, as that interface did, and so are the
    workspaces of outputs. Properties are texts there: they become what the input is.

    Raises InvalidInput for a document that is none; its values are checked by `submit_jobs`.
    """
    if document.get("version", "1.0") != "1.0":
        raise InvalidInput("job_data.version", "must be 1.0")
    listed = document.get("input_data", [])
    if not isinstance(listed, list):
        raise InvalidInput("job_data.input_data", "must be a list")
    kinds = {
        each.name: each.value_type if each.type == "property" else each.type
        for each in stored_interface(job_type.interface).inputs
    }
    inputs: dict[str, Any] = {}
    for index, item in enumerate(listed):
        where = f"job_data.input_data[{index}]"
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise InvalidInput(where, "must be an object with a name")
        if item["name"] in inputs:
            raise InvalidInput(where, "is given twice")
        if item["name"] in kinds:
            inputs[item["name"]] = _value(where, item, kinds[item["name"]])
    return inputs


def _value(where: str, item: Mapping[str, Any], kind: str) -> Any:
    given = [name for name in ("value", "file_id", "file_ids") if name in item]
    if len(given) != 1:
        raise InvalidInput(where, "must have one of value, file_id and file_ids")
    value = item[given[0]]
    if given == ["file_id"]:
        return {"file_id": value}
    if given == ["file_ids"]:
        if not isinstance(value, list):
            raise InvalidInput(f"{where}.file_ids", "must be a list")
        return [{"file_id": each} for each in value]
    return _typed(value, kind)


def _typed(value: Any, kind: str) -> Any:
    """Return what a text means for this kind of property; itself if it means nothing."""
    if not isinstance(value, str):
        return value
    if kind == "boolean":
        return _WORDS.get(value.lower(), value)
    if kind == "number":
        whole = value.removeprefix("-").isdecimal() and len(value) < 19
        try:
            return int(value) if whole else float(value)
        except ValueError:
            return value
    return value
