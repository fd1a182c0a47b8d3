"""/job-executions/: attempts to run jobs."""

from typing import Any, Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, shapes
from scale.api.base import View, key_of, links, no_parameters
from scale.api.errors import NotFound
from scale.api.paging import page_of
from scale.api.parameters import Query
from scale.api.schema import ID, listing, many, one, operation, paged
from scale.core.lifecycle import Status
from scale.job.selectors import EXECUTION_ORDER, Wanted, execution_details, executions
from scale.scheduler.waiting import Wait, why_execution_waits

_STATUSES: Final = [status.value for status in Status]
_PARAMETERS: Final = [
    *listing(EXECUTION_ORDER),
    one("status", OpenApiTypes.STR, "Only executions with this status.", _STATUSES),
    many("job_type_id", OpenApiTypes.INT, "Only of this job type."),
    many("job_type_name", OpenApiTypes.STR, "Only of job types with this name."),
    many("job_type_category", OpenApiTypes.STR, "Only of job types of this category."),
    many("node_id", OpenApiTypes.INT, "Only on this node."),
]


def waiting_reason(wait: Wait | None) -> dict[str, Any] | None:
    """Shape why something waits."""
    if wait is None:
        return None
    return {"code": wait.reason.code, "message": wait.reason.message, "since": wait.since}


class Executions(View):
    """All job executions, those that run and those that have ended."""

    @operation(
        "list_job_executions",
        "List job executions",
        paged(answers.ExecutionAnswer),
        parameters=_PARAMETERS,
        tag="job-executions",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.period()
        status = query.choice("status", _STATUSES)
        wanted = Wanted(
            started=started,
            ended=ended,
            statuses=[status] if status else (),
            job_type_ids=query.integers("job_type_id"),
            job_type_names=query.texts("job_type_name"),
            job_type_categories=query.texts("job_type_category"),
            node_ids=query.integers("node_id"),
        )
        order = query.order(EXECUTION_ORDER, ["last_modified"])
        page = query.page()
        query.done()
        rows = executions(wanted).order_by(*order)
        return page_of(request, rows, page, shapes.EXECUTION_COLUMNS, shapes.execution)


class Execution(View):
    """One job execution with its job, node, environment and results."""

    @operation(
        "read_job_execution",
        "Read a job execution",
        answers.ExecutionDetails,
        parameters=[ID],
        problems=(400, 401, 404),
        tag="job-executions",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "job execution")
        found = execution_details(key)
        if found is None:
            raise NotFound("job execution", key)
        wait = why_execution_waits(found, now=timezone.now())
        shape = shapes.execution_details(found, links(request))
        return Response({**shape, "waiting_reason": waiting_reason(wait)})


urlpatterns = [
    path("job-executions/", Executions.as_view()),
    path("job-executions/<str:id>/", Execution.as_view()),
]
