"""/job-types/: the kinds of work."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from scale.api import answers_operators as answers
from scale.api import bodies, outlines, shapes
from scale.api.answers import JobTypeAnswer
from scale.api.base import NoFields, View, created, key_of, no_parameters
from scale.api.errors import NotFound
from scale.api.list_schema import parts_of, walking
from scale.api.paging import list_of
from scale.api.parameters import Query
from scale.api.permissions import require_for_fields
from scale.api.schema import ID, example, many, operation
from scale.core.errors import InvalidInput
from scale.job.advice import advise
from scale.job.counts import recent_jobs_of_type
from scale.job.editing import change_job_type
from scale.job.lists import Rows
from scale.job.models import JobType as JobTypeRow
from scale.job.selectors import JOB_TYPE_ORDER, errors_of, job_types
from scale.job.submission import create_job_type

_PARAMETERS: Final = [
    *walking(outlines.JOB_TYPE, JOB_TYPE_ORDER),
    many("name", OpenApiTypes.STR, "Only with this name."),
    many("category", OpenApiTypes.STR, "Only of this category."),
]
_EXAMPLE: Final = example(
    {
        "name": "word-count",
        "version": "1.0",
        "title": "Word count",
        "category": "text",
        "cpus_required": 0.5,
        "mem_required": 128,
        "disk_out_const_required": 64,
        "timeout": 600,
        "max_tries": 3,
        "priority": 100,
        "interface": {
            "version": "1.0",
            "command": "sh",
            "command_arguments": '-c \'wc -w "$1" > "$SCALE_OUTPUT_DIR/count.txt"\' - ${text}',
            "input_data": [{"name": "text", "type": "file", "media_types": ["text/plain"]}],
            "output_data": [
                {
                    "name": "count",
                    "type": "file",
                    "pattern": "count.txt",
                    "media_type": "text/plain",
                }
            ],
        },
        "error_mapping": {"version": "1.0", "exit_codes": {"3": "bad-data"}},
    }
)
_NO_RULES: Final = (
    "must be null: rules fire on ingested and parsed files, and there are none here; "
    "submit jobs when something happens instead"
)


class JobTypes(View):
    """The kinds of work."""

    needs = {"GET": "job.view_jobtype", "POST": "job.add_jobtype"}

    @operation(
        "list_job_types",
        "List job types",
        parts_of(JobTypeAnswer),
        parameters=_PARAMETERS,
        tag="job-types",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.period()
        names, categories = query.texts("name"), query.texts("category")
        asked = query.asked(JOB_TYPE_ORDER, ["name", "version"], outlines.JOB_TYPE.names)
        query.done()
        rows = job_types(started=started, ended=ended, names=names, categories=categories)
        return list_of(request, Rows(rows), outlines.JOB_TYPE, asked)

    @operation(
        "create_job_type",
        "Create a job type",
        answers.JobTypeDetails,
        status=201,
        body=bodies.JobTypeBody,
        problems=(400, 401, 403, 409, 413, 415),
        examples=[_EXAMPLE],
        tag="job-types",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        fields, now = _known_fields_of(request, bodies.JobTypeBody), timezone.now()
        if fields.get("is_paused"):
            fields["paused"] = now
        job_type = create_job_type(fields)
        return created(request, f"/job-types/{job_type.pk}/", _details(job_type, now))


class JobTypeValidation(View):
    """What would become of a new job type; makes none."""

    needs = {"POST": "job.view_jobtype"}

    @operation(
        "validate_job_type",
        "Check a job type without making it",
        answers.ValidationAnswer,
        body=bodies.JobTypeBody,
        problems=(400, 401, 403, 413, 415),
        examples=[_EXAMPLE],
        tag="job-types",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        found = advise(_known_fields_of(request, bodies.JobTypeBody))
        return Response({"warnings": [asdict(each) for each in found]})


class JobType(View):
    """One kind of work with its documents."""

    needs = {"GET": "job.view_jobtype", "PATCH": "job.change_jobtype"}
    # Who says what runs, and as what, may run anything on all nodes.
    field_needs = {
        name: "job.add_jobtype"
        for name in bodies.JobTypeChange().get_fields()
        if name not in {"is_paused", "priority", "max_scheduled"}
    }

    @operation(
        "read_job_type",
        "Read a job type",
        answers.JobTypeDetails,
        parameters=[ID],
        problems=(400, 401, 404),
        tag="job-types",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "job type")
        found = JobTypeRow.objects.filter(pk=key).first()
        if found is None:
            raise NotFound("job type", key)
        return Response(_details(found, timezone.now()))

    @operation(
        "change_job_type",
        "Change, pause or resume a job type",
        answers.JobTypeDetails,
        body=bodies.JobTypeChange,
        parameters=[ID],
        problems=(400, 401, 403, 404, 413, 415),
        examples=[example({"title": "Words", "max_scheduled": 20, "is_paused": False})],
        tag="job-types",
    )
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "job type")
        changes, now = _known_fields_of(request, bodies.JobTypeChange), timezone.now()
        try:
            found = change_job_type(key, changes, at=now)
        except JobTypeRow.DoesNotExist:
            raise NotFound("job type", key) from None
        return Response(_details(found, now))


def _known_fields_of(request: Request, serializer: type[Serializer[Any]]) -> dict[str, Any]:
    """Return the checked body, without fields that cannot be set.

    The interface has always ignored those of job types, so that what was read can be sent back.
    A body with nothing else is refused.
    """
    if not isinstance(request.data, dict):
        raise InvalidInput("body", "must be a JSON object")
    known = {name: request.data[name] for name in serializer().get_fields() if name in request.data}
    reader = serializer(data=known)
    reader.is_valid(raise_exception=True)
    if not known:
        raise NoFields("body", "")
    require_for_fields(request, known.keys())
    fields = dict(reader.validated_data)
    if fields.pop("trigger_rule", None) not in (None, {}):
        raise InvalidInput("trigger_rule", _NO_RULES)
    return fields


def _details(found: JobTypeRow, now: datetime) -> dict[str, Any]:
    recent = recent_jobs_of_type(found.pk, now=now)
    counts = {f"job_counts_{hours}h": list(map(asdict, each)) for hours, each in recent.items()}
    return {**shapes.job_type_details(found, errors_of(found)), **counts}


urlpatterns = [
    path("job-types/", JobTypes.as_view()),
    path("job-types/validation/", JobTypeValidation.as_view()),
    path("job-types/<str:id>/", JobType.as_view()),
]
