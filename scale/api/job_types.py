"""/job-types/: the kinds of work."""

from typing import Any, Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies, shapes
from scale.api.base import View, body_of, created, key_of, no_parameters, some_fields_of
from scale.api.errors import NotFound
from scale.api.paging import page_of
from scale.api.parameters import Query
from scale.api.schema import ID, example, listing, many, operation, paged
from scale.job.models import JobType as JobTypeRow
from scale.job.pausing import pause_job_type
from scale.job.selectors import JOB_TYPE_ORDER, errors_of, job_types
from scale.job.submission import create_job_type

_PARAMETERS: Final = [
    *listing(JOB_TYPE_ORDER),
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


class JobTypes(View):
    """The kinds of work."""

    needs = {"POST": "job.add_jobtype"}

    @operation(
        "list_job_types",
        "List job types",
        paged(answers.JobTypeAnswer),
        parameters=_PARAMETERS,
        tag="job-types",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.period()
        names, categories = query.texts("name"), query.texts("category")
        order = query.order(JOB_TYPE_ORDER, ["name", "version"])
        page = query.page()
        query.done()
        rows = job_types(started=started, ended=ended, names=names, categories=categories)
        return page_of(
            request, rows.order_by(*order), page, shapes.JOB_TYPE, shapes.plain(shapes.JOB_TYPE)
        )

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
        fields = body_of(request, bodies.JobTypeBody)
        if fields.get("is_paused"):
            fields["paused"] = timezone.now()
        job_type = create_job_type(fields)
        return created(request, f"/job-types/{job_type.pk}/", _details(job_type))


class JobType(View):
    """One kind of work with its documents."""

    needs = {"PATCH": "job.change_jobtype"}

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
        return Response(_details(found))

    @operation(
        "change_job_type",
        "Pause or resume a job type",
        answers.JobTypeDetails,
        body=bodies.JobTypeChange,
        parameters=[ID],
        problems=(400, 401, 403, 404, 413, 415),
        examples=[example({"is_paused": True})],
        tag="job-types",
    )
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "job type")
        change = some_fields_of(request, bodies.JobTypeChange)
        try:
            found = pause_job_type(key, paused=change["is_paused"], at=timezone.now())
        except JobTypeRow.DoesNotExist:
            raise NotFound("job type", key) from None
        return Response(_details(found))


def _details(found: JobTypeRow) -> dict[str, Any]:
    return shapes.job_type_details(found, errors_of(found))


urlpatterns = [
    path("job-types/", JobTypes.as_view()),
    path("job-types/<str:id>/", JobType.as_view()),
]
