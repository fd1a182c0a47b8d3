"""What became of one thing: the attempts and the history of a job, the revisions of a job type."""

from typing import Any, Final

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, shapes
from scale.api.base import View, key_of
from scale.api.errors import NotFound
from scale.api.paging import page_of
from scale.api.parameters import Page, Query
from scale.api.schema import ID, PAGING, listing, many, operation, paged
from scale.core.lifecycle import Status
from scale.error.models import Error
from scale.job.models import Job, JobExecution, JobType
from scale.job.selectors import (
    EXECUTION_ORDER,
    Wanted,
    executions,
    history_of_execution,
    history_of_job,
    revisions_of,
)

_STATUSES: Final = [status.value for status in Status]
_CATEGORIES: Final = [category.value for category in Error.Category]
_PROBLEMS: Final = (400, 401, 404)


def _existing(rows: QuerySet[Any, Any], what: str, text: str) -> int:
    """Return the key that a path names; raises NotFound if nothing has it. One query."""
    key = key_of(text, what)
    if not rows.filter(pk=key).exists():
        raise NotFound(what, key)
    return key


def _only_page(request: Request) -> Page:
    query = Query(request)
    page = query.page()
    query.done()
    return page


class Attempts(View):
    """The executions of one job."""

    @operation(
        "list_executions_of_job",
        "List the executions of a job",
        paged(answers.Attempt),
        parameters=[
            ID,
            *listing(EXECUTION_ORDER),
            many("status", OpenApiTypes.STR, "Only executions with this status.", _STATUSES),
            many("node_id", OpenApiTypes.INT, "Only on this node."),
            many("error_id", OpenApiTypes.INT, "Only failed by this error."),
            many("error_category", OpenApiTypes.STR, "Only failed by this kind.", _CATEGORIES),
        ],
        problems=_PROBLEMS,
        tag="jobs",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        query = Query(request)
        started, ended = query.period()
        wanted = Wanted(
            started=started,
            ended=ended,
            statuses=query.choices("status", _STATUSES),
            node_ids=query.integers("node_id"),
            error_ids=query.integers("error_id"),
            error_categories=query.choices("error_category", _CATEGORIES),
        )
        order = query.order(EXECUTION_ORDER, ["-exe_num"])
        page = query.page()
        query.done()
        key = _existing(Job.objects.all(), "job", id)
        rows = executions(wanted).filter(job_id=key).order_by(*order)
        return page_of(request, rows, page, shapes.ATTEMPT_COLUMNS, shapes.attempt)


class JobHistory(View):
    """What happened to all attempts of one job, oldest first."""

    @operation(
        "list_history_of_job",
        "List what happened to a job",
        paged(answers.HistoryAnswer),
        parameters=[ID, *PAGING],
        problems=_PROBLEMS,
        tag="jobs",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        page = _only_page(request)
        rows = history_of_job(_existing(Job.objects.all(), "job", id))
        return page_of(request, rows, page, shapes.HISTORY_COLUMNS, shapes.history)


class ExecutionHistory(View):
    """What happened to one execution, oldest first."""

    @operation(
        "list_history_of_job_execution",
        "List what happened to a job execution",
        paged(answers.HistoryAnswer),
        parameters=[ID, *PAGING],
        problems=_PROBLEMS,
        tag="job-executions",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        page = _only_page(request)
        rows = history_of_execution(_existing(JobExecution.objects.all(), "job execution", id))
        return page_of(request, rows, page, shapes.HISTORY_COLUMNS, shapes.history)


class Revisions(View):
    """The interfaces that a job type has had, newest first."""

    @operation(
        "list_revisions_of_job_type",
        "List the revisions of a job type",
        paged(answers.RevisionDetails),
        parameters=[ID, *PAGING],
        problems=_PROBLEMS,
        tag="job-types",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        page = _only_page(request)
        rows = revisions_of(_existing(JobType.objects.all(), "job type", id))
        return page_of(request, rows, page, shapes.REVISION_COLUMNS, shapes.revision)


urlpatterns = [
    path("jobs/<str:id>/executions/", Attempts.as_view()),
    path("jobs/<str:id>/history/", JobHistory.as_view()),
    path("job-executions/<str:id>/history/", ExecutionHistory.as_view()),
    path("job-types/<str:id>/revisions/", Revisions.as_view()),
]
