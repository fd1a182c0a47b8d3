"""What became of one thing: the attempts and the history of a job, the revisions of a job type."""

from dataclasses import replace
from typing import Any, Final

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, outlines
from scale.api.base import View, key_of
from scale.api.errors import NotFound
from scale.api.executions import WAITING_REASON, waiting_for
from scale.api.list_schema import parts_of, walking, walking_all
from scale.api.outlines import Item
from scale.api.paging import list_of
from scale.api.parameters import Asked, Query
from scale.api.schema import ID, many, operation
from scale.core.lifecycle import Status
from scale.error.models import Error
from scale.job.lists import Rows, execution_rows
from scale.job.models import Job, JobExecution, JobType
from scale.job.selectors import (
    EXECUTION_ORDER,
    Wanted,
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


def _asked(request: Request, item: Item, order: str) -> Asked:
    """Read the parameters of a list that has one order."""
    query = Query(request)
    asked = query.asked({}, [order], item.names)
    query.done()
    return asked


class Attempts(View):
    """The executions of one job."""

    needs = {"GET": "job.view_jobexecution"}

    @operation(
        "list_executions_of_job",
        "List the executions of a job",
        parts_of(answers.Attempt),
        parameters=[
            ID,
            *walking(outlines.ATTEMPT, EXECUTION_ORDER),
            many("status", OpenApiTypes.STR, "Only executions with this status.", _STATUSES),
            many("node_id", OpenApiTypes.INT, "Only on this node."),
            many("error_id", OpenApiTypes.INT, "Only failed by this error."),
            many("error_category", OpenApiTypes.STR, "Only failed by this kind.", _CATEGORIES),
            WAITING_REASON,
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
        wanted = waiting_for(query, wanted)
        asked = query.asked(EXECUTION_ORDER, ["-exe_num"], outlines.ATTEMPT.names)
        query.done()
        wanted = replace(wanted, job_ids=[_existing(Job.objects.all(), "job", id)])
        return list_of(request, execution_rows(wanted), outlines.ATTEMPT, asked)


class JobHistory(View):
    """What happened to all attempts of one job, oldest first."""

    needs = {"GET": "job.view_job"}

    @operation(
        "list_history_of_job",
        "List what happened to a job",
        parts_of(answers.HistoryAnswer),
        parameters=[ID, *walking_all(outlines.HISTORY)],
        problems=_PROBLEMS,
        tag="jobs",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        asked = _asked(request, outlines.HISTORY, "id")
        rows = Rows(history_of_job(_existing(Job.objects.all(), "job", id)))
        return list_of(request, rows, outlines.HISTORY, asked)


class ExecutionHistory(View):
    """What happened to one execution, oldest first."""

    needs = {"GET": "job.view_jobexecution"}

    @operation(
        "list_history_of_job_execution",
        "List what happened to a job execution",
        parts_of(answers.HistoryAnswer),
        parameters=[ID, *walking_all(outlines.HISTORY)],
        problems=_PROBLEMS,
        tag="job-executions",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        asked = _asked(request, outlines.HISTORY, "id")
        key = _existing(JobExecution.objects.all(), "job execution", id)
        return list_of(request, Rows(history_of_execution(key)), outlines.HISTORY, asked)


class Revisions(View):
    """The interfaces that a job type has had, newest first."""

    needs = {"GET": "job.view_jobtype"}

    @operation(
        "list_revisions_of_job_type",
        "List the revisions of a job type",
        parts_of(answers.RevisionDetails),
        parameters=[ID, *walking_all(outlines.REVISION)],
        problems=_PROBLEMS,
        tag="job-types",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        asked = _asked(request, outlines.REVISION, "-revision_num")
        rows = Rows(revisions_of(_existing(JobType.objects.all(), "job type", id)))
        return list_of(request, rows, outlines.REVISION, asked)


urlpatterns = [
    path("jobs/<str:id>/executions/", Attempts.as_view()),
    path("jobs/<str:id>/history/", JobHistory.as_view()),
    path("job-executions/<str:id>/history/", ExecutionHistory.as_view()),
    path("job-types/<str:id>/revisions/", Revisions.as_view()),
]
