"""/queue/new-job/ and /queue/requeue-jobs/: the writing half of the queue's first interface."""

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies, outlines
from scale.api.base import View, body_of, links, no_parameters
from scale.api.errors import NotFound
from scale.api.jobs import details_of_job
from scale.api.many_jobs import filters_of
from scale.api.paging import page_of
from scale.api.parameters import Query
from scale.api.repeats import IDEMPOTENCY_KEY, submitted
from scale.api.schema import PAGING, example, operation, paged
from scale.job.bulk_actions import requeue_matching
from scale.job.job_data import inputs_of
from scale.job.models import JobType
from scale.job.selectors import Wanted, jobs
from scale.job.submission import JobRequest


class NewJob(View):
    """Makes and queues a job; POST /jobs/ can do more."""

    needs = {"POST": "job.add_job"}

    @operation(
        "queue_new_job",
        "Submit a job by its data document",
        answers.JobDetails,
        status=201,
        body=bodies.NewJobBody,
        parameters=[IDEMPOTENCY_KEY],
        problems=(400, 401, 404, 409, 413, 415),
        examples=[
            example(
                {
                    "job_type_id": 4,
                    "job_data": {"version": "1.0", "input_data": [{"name": "text", "file_id": 3}]},
                }
            )
        ],
        tag="queue",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        body = body_of(request, bodies.NewJobBody)
        job_type = JobType.objects.filter(pk=body["job_type_id"]).first()
        if job_type is None:
            raise NotFound("job type", body["job_type_id"], field="job_type_id")
        wanted = JobRequest(job_type, inputs_of(body.get("job_data", {}), job_type))
        [key] = submitted(request, [wanted], place="job_data.{}".format)
        details = details_of_job(request, key)
        first = details["job_exes"][-1]["id"]
        location = links(request)(f"/job-executions/{first}/")
        return Response(details, status=201, headers={"Location": location})


class RequeueJobs(View):
    """Tries failed and canceled jobs again at once, if they are not too many."""

    needs = {"POST": "job.change_job"}

    @operation(
        "requeue_jobs_at_once",
        "Requeue up to 1,000 jobs and list those that fit",
        paged(answers.JobAnswer),
        body=bodies.RequeueBody,
        parameters=PAGING,
        problems=(400, 401, 403, 404, 413, 415),
        examples=[example({"job_ids": [17, 18], "priority": 10})],
        tag="queue",
    )
    def post(self, request: Request) -> Response:
        query = Query(request)
        page = query.page()
        query.done()
        body = body_of(request, bodies.RequeueBody)
        ids = requeue_matching(filters_of(body), at=timezone.now(), priority=body.get("priority"))
        if not ids:
            raise NotFound("job", "that fits these filters", field="body")
        rows = jobs(Wanted(ids=ids)).order_by("last_modified", "id")
        outline = outlines.JOB.outline(outlines.JOB.names)
        return page_of(request, rows, page, outline.columns, outline.shape)


urlpatterns = [
    path("queue/new-job/", NewJob.as_view()),
    path("queue/requeue-jobs/", RequeueJobs.as_view()),
]
