"""/jobs/: what users want done."""

from typing import Any, Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies, outlines, shapes
from scale.api.base import View, body_of, created, key_of, links, no_parameters
from scale.api.errors import NotFound
from scale.api.list_schema import parts_of, walking
from scale.api.paging import list_of
from scale.api.parameters import Query
from scale.api.renderers import BIGGEST_INTEGER
from scale.api.repeats import IDEMPOTENCY_KEY, submitted_job
from scale.api.schema import ID, example, many, operation
from scale.core.lifecycle import JobStatus
from scale.error.models import Error
from scale.job.lists import job_rows
from scale.job.models import Job as JobRow
from scale.job.models import JobExecution, JobType
from scale.job.rows import read_row
from scale.job.selectors import (
    JOB_ORDER,
    Wanted,
    executions_of,
    inputs_and_outputs,
    job_details,
)
from scale.job.services import cancel_job
from scale.job.submission import JobRequest

JOB_STATUSES: Final = [status.value for status in JobStatus]
ERROR_CATEGORIES: Final = [category.value for category in Error.Category]
#: What chooses jobs, besides the time and the page.
JOB_FILTERS: Final = [
    many("status", OpenApiTypes.STR, "Only jobs with this status.", JOB_STATUSES),
    many("job_id", OpenApiTypes.INT, "Only this job."),
    many("job_type_id", OpenApiTypes.INT, "Only of this job type."),
    many("job_type_name", OpenApiTypes.STR, "Only of job types with this name."),
    many("job_type_category", OpenApiTypes.STR, "Only of job types of this category."),
    many(
        "error_category", OpenApiTypes.STR, "Only failed by this kind of error.", ERROR_CATEGORIES
    ),
    many("error_id", OpenApiTypes.INT, "Only failed by this error."),
]
_PARAMETERS: Final = [*walking(outlines.JOB, JOB_ORDER), *JOB_FILTERS]
_EXAMPLE: Final = example(
    {
        "job_type": {"name": "word-count", "version": "1.0"},
        "name": "count my file",
        "inputs": {"text": {"file_id": 3}, "pause": 5},
        "priority": 50,
    }
)


def wanted_jobs(query: Query, *, when: str = "last_modified") -> Wanted:
    """Read the parameters JOB_FILTERS and the period, which bounds the time `when`."""
    started, ended = query.period()
    return Wanted(
        started=started,
        ended=ended,
        when=when,
        statuses=query.choices("status", JOB_STATUSES),
        ids=query.integers("job_id"),
        job_type_ids=query.integers("job_type_id"),
        job_type_names=query.texts("job_type_name"),
        job_type_categories=query.texts("job_type_category"),
        error_categories=query.choices("error_category", ERROR_CATEGORIES),
        error_ids=query.integers("error_id"),
    )


class Jobs(View):
    """What users want done."""

    needs = {"GET": "job.view_job", "POST": "job.add_job"}

    @operation(
        "list_jobs", "List jobs", parts_of(answers.JobAnswer), parameters=_PARAMETERS, tag="jobs"
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        wanted = wanted_jobs(query)
        asked = query.asked(JOB_ORDER, ["last_modified"], outlines.JOB.names)
        query.done()
        return list_of(request, job_rows(wanted), outlines.JOB, asked)

    @operation(
        "submit_job",
        "Submit a job",
        answers.JobDetails,
        status=201,
        body=bodies.JobBody,
        parameters=[IDEMPOTENCY_KEY],
        problems=(400, 401, 404, 409, 413, 415),
        examples=[_EXAMPLE],
        tag="jobs",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        body = body_of(request, bodies.JobBody)
        wanted = JobRequest(
            job_type=_job_type(body),
            inputs=body.get("inputs", {}),
            name=body.get("name", ""),
            priority=body.get("priority"),
        )
        key, attempt = submitted_job(request, wanted)
        details = _details_of_new(request, attempt) if attempt else details_of_job(request, key)
        return created(request, f"/jobs/{key}/", details)


class Job(View):
    """One job with its executions, inputs and outputs."""

    needs = {"GET": "job.view_job", "PATCH": "job.change_job"}

    @operation(
        "read_job",
        "Read a job",
        answers.JobDetails,
        parameters=[ID],
        problems=(400, 401, 404),
        tag="jobs",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        return Response(details_of_job(request, key_of(id, "job")))

    @operation(
        "cancel_job",
        "Cancel a job",
        answers.JobDetails,
        body=bodies.JobChange,
        parameters=[ID],
        problems=(400, 401, 404, 409, 413, 415),
        examples=[example({"status": "CANCELED"})],
        tag="jobs",
    )
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "job")
        body_of(request, bodies.JobChange)
        try:
            cancel_job(key, at=timezone.now())
        except JobRow.DoesNotExist:
            raise NotFound("job", key) from None
        return Response(details_of_job(request, key))


def _job_type(body: dict[str, Any]) -> JobType:
    named = body.get("job_type") or {"id": body["job_type_id"]}
    exists = abs(named.get("id", 0)) <= BIGGEST_INTEGER
    found = read_row(JobType, **named) if exists else None
    if found is None:
        field = "job_type" if "job_type" in body else "job_type_id"
        raise NotFound("job type", " ".join(str(part) for part in named.values()), field=field)
    return found


def details_of_job(request: Request, key: int) -> dict[str, Any]:
    found = job_details(key)
    if found is None:
        raise NotFound("job", key)
    attempts = executions_of(key).values_list(*shapes.EXECUTION_IN_JOB_COLUMNS)
    inputs, outputs = inputs_and_outputs(found)
    return shapes.job_details(
        found, [shapes.execution_in_job(row) for row in attempts], inputs, outputs, links(request)
    )


def _details_of_new(request: Request, attempt: JobExecution) -> dict[str, Any]:
    """Return what `details_of_job` does for a job that was just stored, without reading it."""
    row = tuple(getattr(attempt, name) for name in shapes.EXECUTION_IN_JOB_COLUMNS)
    inputs, outputs = inputs_and_outputs(attempt.job)
    return shapes.job_details(
        attempt.job, [shapes.execution_in_job(row)], inputs, outputs, links(request)
    )


urlpatterns = [
    path("jobs/", Jobs.as_view()),
    path("jobs/<str:id>/", Job.as_view()),
]
