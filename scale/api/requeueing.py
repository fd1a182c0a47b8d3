"""/queue/requeue-job/: tries one job again, for scripts of the first interface."""

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies
from scale.api.base import View, body_of, no_parameters
from scale.api.errors import NotFound
from scale.api.jobs import details_of_job
from scale.api.schema import example, operation
from scale.job.afresh import requeue_afresh
from scale.job.models import Job


class RequeueJob(View):
    """Tries a failed or canceled job again; POST /queue/requeue-jobs/ takes several."""

    needs = {"POST": "job.change_job"}

    @operation(
        "requeue_job",
        "Requeue a job",
        answers.JobDetails,
        body=bodies.RequeueJobBody,
        problems=(400, 401, 403, 404, 409, 413, 415),
        examples=[example({"job_id": 17})],
        tag="queue",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        key = body_of(request, bodies.RequeueJobBody)["job_id"]
        try:
            requeue_afresh(key, at=timezone.now())
        except Job.DoesNotExist:
            raise NotFound("job", key, field="job_id") from None
        return Response(details_of_job(request, key))


urlpatterns = [path("queue/requeue-job/", RequeueJob.as_view())]
