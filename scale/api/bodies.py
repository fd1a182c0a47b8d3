"""What bodies may hold; what they mean is checked by the services."""

import math
import re
from typing import Any, Final

from rest_framework import serializers

from scale.api.fields import Choice
from scale.api.renderers import BIGGEST_INTEGER
from scale.core.lifecycle import JobStatus
from scale.error.models import Error

_INT32: Final = 2**31 - 1
_MOST_MIB: Final = float(_INT32)


class Text(serializers.CharField):
    """A text that can be shown in a line; nothing else is turned into one."""

    default_error_messages = {"printable": "Must not have control characters."}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        text = super().to_internal_value(data)
        if not text.isprintable():
            self.fail("printable")
        return text


class Name(serializers.RegexField):
    """A text that is like a pattern; nothing else is turned into one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Lines(serializers.CharField):
    """A text of several lines."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    """A whole number, or the text of one, as the interface has always taken it; no truth value."""

    #: What such a text is like, also in the schema.
    TEXT: Final = r"^-?[0-9]{1,19}$"

    def to_internal_value(self, data: Any) -> int:
        is_text = isinstance(data, str) and re.fullmatch(self.TEXT, data, re.ASCII)
        if isinstance(data, bool) or not (is_text or isinstance(data, int | float)):
            self.fail("invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    """True or false, or the text of one, as parameters have it; no number stands for it."""

    #: What such a text is like, also in the schema.
    TEXT: Final = r"^([Tt]([Rr][Uu][Ee])?|[Ff]([Aa][Ll][Ss][Ee])?|[01])$"

    def to_internal_value(self, data: Any) -> bool:
        if isinstance(data, str) and re.fullmatch(self.TEXT, data):
            return data.lower() in {"true", "t", "1"}
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Number(serializers.FloatField):
    """A finite number, or the text of one."""

    #: What such a text is like, also in the schema.
    TEXT: Final = r"^-?[0-9]{1,15}(\.[0-9]{1,15})?$"

    def to_internal_value(self, data: Any) -> float:
        is_text = isinstance(data, str) and re.fullmatch(self.TEXT, data, re.ASCII)
        if isinstance(data, bool) or not (is_text or isinstance(data, int | float)):
            self.fail("invalid")
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


def _whole(least: int, **options: Any) -> Whole:
    return Whole(min_value=least, max_value=_INT32, required=False, **options)


def _mib(least: float) -> Number:
    return Number(min_value=least, max_value=_MOST_MIB, required=False, help_text="MiB")


class JobTypeBody(serializers.Serializer[Any]):
    """A new job type."""

    name = Text(max_length=50)
    version = Text(max_length=50)
    title = Text(max_length=50, allow_null=True, allow_blank=True, required=False)
    description = Lines(max_length=100_000, allow_null=True, allow_blank=True, required=False)
    category = Text(max_length=50, allow_null=True, allow_blank=True, required=False)
    author_name = Text(max_length=50, allow_null=True, allow_blank=True, required=False)
    author_url = Text(max_length=2000, allow_null=True, allow_blank=True, required=False)
    icon_code = Text(max_length=20, allow_null=True, allow_blank=True, required=False)
    is_operational = Flag(required=False)
    is_paused = Flag(required=False)
    docker_image = Text(max_length=500, allow_null=True, required=False)
    docker_privileged = Flag(required=False)
    volumes = serializers.JSONField(
        required=False, help_text="a list of {container_path, host_path, mode: RO or RW}"
    )
    environment = serializers.JSONField(
        required=False, help_text="maps names of variables to texts"
    )
    interface = serializers.JSONField()
    error_mapping = serializers.JSONField(required=False, allow_null=True)
    priority = Whole(min_value=-_INT32, max_value=_INT32, required=False)
    max_scheduled = _whole(1, allow_null=True)
    timeout = _whole(1, help_text="seconds")
    max_tries = _whole(1)
    cpus_required = Number(min_value=0.001, max_value=1_000_000.0, required=False)
    mem_required = _mib(1.0)
    disk_out_const_required = _mib(0.0)
    disk_out_mult_required = Number(min_value=0.0, max_value=1_000_000.0, required=False)

    trigger_rule = serializers.JSONField(
        required=False, allow_null=True, help_text="null: nothing fires rules here"
    )

    def validate_error_mapping(self, value: Any) -> Any:
        return {} if value is None else value


class JobTypeChange(JobTypeBody):
    """What to change of a job type; the rest stays."""

    name = None  # type: ignore[assignment] # these two are what it is known by
    version = None  # type: ignore[assignment]
    interface = serializers.JSONField(required=False, help_text="another one is a new revision")
    is_active = Flag(
        required=False,
        help_text="false retires it: nothing of it starts, and no new jobs are taken",
    )
    trigger_rule = serializers.JSONField(
        required=False, allow_null=True, help_text="null or {}: nothing fires rules here"
    )


class JobTypeName(serializers.Serializer[Any]):
    name = Text()
    version = Text()

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        if unknown:
            raise serializers.ValidationError({unknown[0][:80]: "is not a field here"})
        return super().to_internal_value(data)


class JobBody(serializers.Serializer[Any]):
    """A new job: `job_type` or `job_type_id` says of which type."""

    job_type = JobTypeName(required=False)
    job_type_id = Whole(required=False)
    name = Text(max_length=250, allow_blank=True, required=False)
    inputs = serializers.DictField(
        required=False,
        help_text="input name -> value, {file_id} or {uri}, or a list of those for files",
    )
    priority = Whole(
        min_value=-_INT32, max_value=_INT32, required=False, help_text="lower is more urgent"
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("job_type" in attrs) == ("job_type_id" in attrs):
            raise serializers.ValidationError(
                {"job_type": "Give either job_type, with name and version, or job_type_id."}
            )
        return attrs


class JobsBody(serializers.Serializer[Any]):
    """Many new jobs; all are made, or none."""

    jobs = serializers.ListField(child=JobBody(), min_length=1, max_length=1000)


class OneOrMany(serializers.ListField):
    """A list that is not empty, or the one thing that would be in it."""

    def __init__(self, child: serializers.Field[Any, Any, Any, Any]) -> None:
        super().__init__(child=child, required=False, allow_empty=False, max_length=10_000)

    def to_internal_value(self, data: Any) -> list[Any]:
        return super().to_internal_value(data if isinstance(data, list) else [data])


def _ids() -> OneOrMany:
    return OneOrMany(Whole(max_value=BIGGEST_INTEGER))


class CancelBody(serializers.Serializer[Any]):
    """Which jobs to change. Filters go together; of the values of one, any will do."""

    started = Text(required=False, help_text="changed then or later; a time or a duration")
    ended = Text(required=False, help_text="changed then or before")
    status = OneOrMany(Choice("JobStatus", JobStatus))
    job_ids = _ids()
    job_type_ids = _ids()
    job_types = OneOrMany(JobTypeName())
    job_type_names = OneOrMany(Text())
    job_type_categories = OneOrMany(Text())
    error_categories = OneOrMany(Choice("ErrorCategory", Error.Category))
    error_ids = _ids()
    all = Flag(required=False, help_text="must be true if there is no filter")


class RequeueBody(CancelBody):
    """Which jobs to try again, and how urgent they are then."""

    priority = Whole(
        min_value=-_INT32, max_value=_INT32, required=False, help_text="lower is more urgent"
    )


class RequeueJobBody(serializers.Serializer[Any]):
    job_id = Whole(max_value=BIGGEST_INTEGER)


class NewJobBody(serializers.Serializer[Any]):
    """A new job as the first interface took it."""

    job_type_id = Whole()
    job_data = serializers.DictField(
        required=False, help_text="{version, input_data: [{name, value | file_id | file_ids}]}"
    )


class JobChange(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["CANCELED"])


class ErrorBody(serializers.Serializer[Any]):
    """A new error of the catalogue."""

    name = Name(
        r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=50, help_text="what error mappings name it by"
    )
    title = Text(max_length=50)
    description = Text(max_length=250)
    category = serializers.ChoiceField(["ALGORITHM", "DATA"])
    should_be_retried = Flag(required=False)


class ErrorChangeBody(serializers.Serializer[Any]):
    """What to change of an error; what is empty stays as it is."""

    title = Text(max_length=50, allow_blank=True, allow_null=True, required=False)
    description = Text(max_length=250, allow_blank=True, allow_null=True, required=False)
    category = serializers.ChoiceField(
        ["ALGORITHM", "DATA"], allow_blank=True, allow_null=True, required=False
    )
    should_be_retried = Flag(required=False)


class NodeBody(serializers.Serializer[Any]):
    """A whole node; its hostname and port are the cluster's, and must be as they are."""

    hostname = Text(max_length=250)
    port = Whole(min_value=1, max_value=65535)
    pause_reason = Text(max_length=250, allow_null=True, allow_blank=True, required=False)
    is_paused = Flag()
    is_active = Flag()


class NodeChangeBody(serializers.Serializer[Any]):
    """What to change of a node; hostname and port are the cluster's, and must be as they are."""

    hostname = Text(max_length=250, required=False)
    port = Whole(min_value=1, max_value=65535, required=False)
    is_paused = Flag(required=False)
    pause_reason = Text(max_length=250, allow_null=True, allow_blank=True, required=False)
    is_active = Flag(required=False)


class SchedulerChange(serializers.Serializer[Any]):
    is_paused = Flag(required=False)


class Upload(serializers.Serializer[Any]):
    file = serializers.FileField()
