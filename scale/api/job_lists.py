"""/jobs/updates/ and /jobs/executions/: jobs with more beside them."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, shapes
from scale.api.base import Link, View, links
from scale.api.jobs import JOB_FILTERS, wanted_jobs
from scale.api.paging import page_of_all
from scale.api.parameters import Query
from scale.api.schema import listing, operation, paged
from scale.job.selectors import JOB_ORDER, input_files, jobs, latest_executions

_Rows = Sequence[tuple[Any, ...]]
_Shapes = list[shapes.Shape]


class Updates(View):
    """Jobs by when their status changed, with the files that they read."""

    @operation(
        "list_job_updates",
        "List changes of jobs' statuses",
        paged(answers.JobUpdate),
        parameters=[*listing(JOB_ORDER, "last change of the status"), *JOB_FILTERS],
        tag="jobs",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        wanted = wanted_jobs(query, when="last_status_change")
        order = query.order(JOB_ORDER, ["last_status_change"])
        page = query.page()
        query.done()
        columns = (*shapes.JOB_COLUMNS, "data")
        rows = jobs(wanted).order_by(*order)
        return page_of_all(request, rows, page, columns, _with_files(links(request)))


def _with_files(link: Link) -> Callable[[_Rows], _Shapes]:
    def shape(rows: _Rows) -> _Shapes:
        found = [shapes.job(row[:-1]) for row in rows]
        files = input_files({job["id"]: row[-1] for job, row in zip(found, rows, strict=True)})
        for job in found:
            job["input_files"] = [shapes.file(each, link) for each in files[job["id"]]]
        return found

    return shape


class LatestExecutions(View):
    """Jobs with their last attempts."""

    @operation(
        "list_jobs_with_executions",
        "List jobs with their latest executions",
        paged(answers.JobWithExecution),
        parameters=[*listing(JOB_ORDER), *JOB_FILTERS],
        tag="jobs",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        wanted = wanted_jobs(query)
        order = query.order(JOB_ORDER, ["last_modified"])
        page = query.page()
        query.done()
        rows = jobs(wanted).order_by(*order)
        return page_of_all(request, rows, page, shapes.JOB_COLUMNS, _with_executions)


def _with_executions(rows: _Rows) -> _Shapes:
    found = [shapes.job(row) for row in rows]
    last = latest_executions([job["id"] for job in found]) if found else None
    attempts = map(
        shapes.execution_in_job,
        last.values_list(*shapes.EXECUTION_IN_JOB_COLUMNS) if last is not None else (),
    )
    by_job = {each["job"]["id"]: each for each in attempts}
    for job in found:
        job["latest_job_exe"] = by_job.get(job["id"])
    return found


urlpatterns: Final = [
    path("jobs/updates/", Updates.as_view()),
    path("jobs/executions/", LatestExecutions.as_view()),
]
