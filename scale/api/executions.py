"""/job-executions/: attempts to run jobs."""

from dataclasses import replace
from typing import Any, Final

from django.db.models import Q
from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, outlines, shapes
from scale.api.base import View, key_of, links, no_parameters
from scale.api.errors import NotFound
from scale.api.list_schema import parts_of, walking
from scale.api.paging import list_of
from scale.api.parameters import Query
from scale.api.schema import ID, many, one, operation
from scale.core.lifecycle import Status
from scale.core.reasons import WaitCode
from scale.job.lists import execution_rows
from scale.job.selectors import EXECUTION_ORDER, Wanted, execution_details
from scale.scheduler.waiting import Wait, waits_for, why_execution_waits

_STATUSES: Final = [status.value for status in Status]
_CODES: Final = [code.value for code in WaitCode]
WAITING_REASON: Final = many(
    "waiting_reason", OpenApiTypes.STR, "Only what waits, and for this.", _CODES
)
_PARAMETERS: Final = [
    *walking(outlines.EXECUTION, EXECUTION_ORDER),
    one("status", OpenApiTypes.STR, "Only executions with this status.", _STATUSES),
    many("job_type_id", OpenApiTypes.INT, "Only of this job type."),
    many("job_type_name", OpenApiTypes.STR, "Only of job types with this name."),
    many("job_type_category", OpenApiTypes.STR, "Only of job types of this category."),
    many("node_id", OpenApiTypes.INT, "Only on this node."),
    WAITING_REASON,
]


def waiting_for(query: Query, wanted: Wanted) -> Wanted:
    """Restrict a list by the parameter WAITING_REASON; two queries if it is there."""
    codes = query.choices("waiting_reason", _CODES)
    if not codes:
        return wanted
    found = waits_for(codes, now=timezone.now())
    if wanted.statuses:
        return replace(wanted, also=found.condition & Q(status__in=found.statuses))
    return replace(
        wanted, statuses=found.statuses, also=found.condition, also_means=found.job_type_ids
    )


def waiting_reason(wait: Wait | None) -> dict[str, Any] | None:
    """Shape why something waits."""
    if wait is None:
        return None
    return {"code": wait.reason.code, "message": wait.reason.message, "since": wait.since}


class Executions(View):
    """All job executions, those that run and those that have ended."""

    needs = {"GET": "job.view_jobexecution"}

    @operation(
        "list_job_executions",
        "List job executions",
        parts_of(answers.ExecutionAnswer),
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
        wanted = waiting_for(query, wanted)
        asked = query.asked(EXECUTION_ORDER, ["last_modified"], outlines.EXECUTION.names)
        query.done()
        return list_of(request, execution_rows(wanted), outlines.EXECUTION, asked)


class Execution(View):
    """One job execution with its job, node, environment and results."""

    needs = {"GET": "job.view_jobexecution"}

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
