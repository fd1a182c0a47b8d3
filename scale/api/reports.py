"""Counts for dashboards: /nodes/status/ and /job-types/{status,running,system-failures}/."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, answers_operators, shapes
from scale.api.base import View
from scale.api.nodes import node_row
from scale.api.paging import page_of_all, page_of_list
from scale.api.parameters import Query
from scale.api.schema import PAGING, operation, paged, since
from scale.error.models import Error
from scale.job.counts import (
    Failures,
    executions_by_node,
    jobs_by_type,
    running_by_type,
    running_on_nodes,
    system_failures,
)
from scale.job.models import JobType
from scale.job.selectors import JOB_TYPE_BASE, job_types
from scale.node.selectors import nodes

_RECENT: Final = "PT3H0M0S"
_PERIOD: Final = since(_RECENT, "What is counted.")
_Shapes = list[shapes.Shape]


class NodesStatus(View):
    """The active nodes, what ran there lately and what runs there now."""

    needs = {"GET": "node.view_node"}

    @operation(
        "list_node_statuses",
        "List what ran and runs on the nodes",
        paged(answers_operators.NodeStatus),
        parameters=[*PAGING, *_PERIOD],
        tag="nodes",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.recently(_RECENT)
        page = query.page()
        query.done()

        def shape(rows: Sequence[tuple[Any, ...]]) -> _Shapes:
            return _with_counts([node_row(row) for row in rows], started, ended)

        rows = nodes().order_by("last_modified", "id")
        return page_of_all(request, rows, page, shapes.NODE, shape)


def _with_counts(found: _Shapes, started: datetime, ended: datetime | None) -> _Shapes:
    ids = [node["id"] for node in found]
    tallies = executions_by_node(ids, started=started, ended=ended) if ids else {}
    running: dict[int, _Shapes] = defaultdict(list)
    columns = shapes.EXECUTION_IN_NODE_COLUMNS
    for row in running_on_nodes(ids, columns) if ids else ():
        execution = shapes.execution_in_node(row)
        running[execution["node"]["id"]].append(execution)
    return [
        {
            "node": node,
            "is_online": node["is_online"],
            "job_exe_counts": [asdict(each) for each in tallies.get(node["id"], ())],
            "job_exes_running": running[node["id"]],
        }
        for node in found
    ]


class JobTypesStatus(View):
    """Every job type with its jobs of late, and all that run."""

    needs = {"GET": "job.view_jobtype"}

    @operation(
        "list_job_type_statuses",
        "Count the jobs of each type by status",
        paged(answers.JobTypeStatus),
        parameters=[*PAGING, *_PERIOD],
        tag="job-types",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.recently(_RECENT)
        page = query.page()
        query.done()

        def shape(rows: Sequence[tuple[Any, ...]]) -> _Shapes:
            ids = [row[0] for row in rows]
            tallies = jobs_by_type(ids, started=started, ended=ended) if ids else {}
            return [
                {
                    "job_type": dict(zip(JOB_TYPE_BASE, row, strict=True)),
                    "job_counts": [asdict(each) for each in tallies.get(row[0], ())],
                }
                for row in rows
            ]

        rows = job_types().order_by("last_modified", "id")
        return page_of_all(request, rows, page, JOB_TYPE_BASE, shape)


class JobTypesRunning(View):
    """The job types that run, the one that has run longest first."""

    needs = {"GET": "job.view_jobtype"}

    @operation(
        "list_running_job_types",
        "Count the running jobs of each type",
        paged(answers.JobTypeRunning),
        parameters=PAGING,
        tag="job-types",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        page = query.page()
        query.done()

        def shape(rows: Sequence[tuple[int, int, datetime]]) -> _Shapes:
            types = _job_types({key for key, _, _ in rows})
            return [
                {"job_type": types[key], "count": count, "longest_running": since}
                for key, count, since in rows
            ]

        return page_of_list(request, running_by_type(), page, shape)


class SystemFailures(View):
    """What failed by no fault of its own, the most recent first."""

    needs = {"GET": "job.view_jobtype"}

    @operation(
        "list_system_failures",
        "Count the system's failures of each job type and error",
        paged(answers.SystemFailures),
        parameters=PAGING,
        tag="job-types",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        page = query.page()
        query.done()

        def shape(rows: Sequence[Failures]) -> _Shapes:
            types = _job_types({row.job_type_id for row in rows})
            errors = Error.objects.in_bulk({row.error_id for row in rows}) if rows else {}
            return [
                {
                    "job_type": types[row.job_type_id],
                    "error": shapes.error(errors[row.error_id]),
                    "count": row.count,
                    "first_error": row.first_error,
                    "last_error": row.last_error,
                }
                for row in rows
            ]

        return page_of_list(request, system_failures(), page, shape)


def _job_types(ids: Collection[int]) -> dict[int, shapes.Shape]:
    """Return the base shapes of these job types; one query, none for none."""
    if not ids:
        return {}
    rows = JobType.objects.filter(pk__in=ids).values_list(*JOB_TYPE_BASE)
    return {row[0]: dict(zip(JOB_TYPE_BASE, row, strict=True)) for row in rows}


urlpatterns = [
    path("nodes/status/", NodesStatus.as_view()),
    path("job-types/status/", JobTypesStatus.as_view()),
    path("job-types/running/", JobTypesRunning.as_view()),
    path("job-types/system-failures/", SystemFailures.as_view()),
]
