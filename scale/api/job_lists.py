"""/jobs/updates/ and /jobs/executions/: jobs with more beside them."""

from collections.abc import Callable
from typing import Final

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, outlines, shapes
from scale.api.base import Link, View, links
from scale.api.jobs import JOB_FILTERS, wanted_jobs
from scale.api.list_schema import parts_of, walking
from scale.api.paging import list_of
from scale.api.parameters import Query
from scale.api.schema import operation
from scale.job.lists import job_rows, latest_executions
from scale.job.selectors import JOB_ORDER, input_files

_Shapes = list[shapes.Shape]


class Updates(View):
    """Jobs by when their status changed, with the files that they read."""

    needs = {"GET": "job.view_job"}

    @operation(
        "list_job_updates",
        "List changes of jobs' statuses",
        parts_of(answers.JobUpdate),
        parameters=[
            *walking(outlines.JOB_UPDATE, JOB_ORDER, "last change of the status"),
            *JOB_FILTERS,
        ],
        tag="jobs",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        wanted = wanted_jobs(query, when="last_status_change")
        item = outlines.JOB_UPDATE
        asked = query.asked(JOB_ORDER, ["last_status_change"], item.names)
        query.done()
        return list_of(request, job_rows(wanted), item, asked, _with_files(links(request)))


def _with_files(link: Link) -> Callable[[_Shapes], _Shapes]:
    """Return what puts files in the place of the documents that name them; one query."""

    def finish(found: _Shapes) -> _Shapes:
        documents = {n: job["input_files"] for n, job in enumerate(found) if "input_files" in job}
        for n, files in input_files(documents).items():
            found[n]["input_files"] = [shapes.file(each, link) for each in files]
        return found

    return finish


class LatestExecutions(View):
    """Jobs with their last attempts."""

    needs = {"GET": "job.view_job"}

    @operation(
        "list_jobs_with_executions",
        "List jobs with their latest executions",
        parts_of(answers.JobWithExecution),
        parameters=[*walking(outlines.JOB_WITH_EXECUTION, JOB_ORDER), *JOB_FILTERS],
        tag="jobs",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        wanted = wanted_jobs(query)
        item = outlines.JOB_WITH_EXECUTION
        asked = query.asked(JOB_ORDER, ["last_modified"], item.names)
        query.done()
        return list_of(request, job_rows(wanted), item, asked, _with_executions)


def _with_executions(found: _Shapes) -> _Shapes:
    """Put executions in the place of the ids of their jobs; one query."""
    asking = [job for job in found if "latest_job_exe" in job]
    if not asking:
        return found
    job_ids = [job["latest_job_exe"] for job in asking]
    rows = latest_executions(shapes.EXECUTION_IN_JOB_COLUMNS, job_ids)
    by_job = {each["job"]["id"]: each for each in map(shapes.execution_in_job, rows)}
    for job in asking:
        job["latest_job_exe"] = by_job.get(job["latest_job_exe"])
    return found


urlpatterns: Final = [
    path("jobs/updates/", Updates.as_view()),
    path("jobs/executions/", LatestExecutions.as_view()),
]
