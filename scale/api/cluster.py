"""/queue/status/, /scheduler/ and /version/: the whole at a glance."""

from dataclasses import fields
from typing import Final

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

import scale
from scale.api import answers, bodies
from scale.api.base import View, created, no_parameters, some_fields_of
from scale.api.errors import NotFound
from scale.api.executions import waiting_reason
from scale.api.permissions import LOGGED_IN
from scale.api.schema import example, operation
from scale.queue.status import Waiting, queue_by_job_type
from scale.scheduler.models import SchedulerState
from scale.scheduler.selectors import scheduler_state
from scale.scheduler.services import pause_scheduler
from scale.scheduler.waiting import why_job_types_wait

_WAITING: Final = [field.name for field in fields(Waiting)]


class QueueStatus(View):
    """What waits, by job type."""

    needs = {"GET": "queue.view_queuedexecution"}

    @operation("read_queue_status", "Read the queue", answers.QueueAnswer, tag="queue")
    def get(self, request: Request) -> Response:
        no_parameters(request)
        waiting = queue_by_job_type()
        queued = {each.job_type_id: each.longest_queued for each in waiting}
        reasons = why_job_types_wait(queued, now=timezone.now())
        return Response(
            {
                "queue_status": [
                    {
                        **{name: getattr(each, name) for name in _WAITING},
                        "waiting_reason": waiting_reason(reasons[each.job_type_id]),
                    }
                    for each in waiting
                ]
            }
        )


class Scheduler(View):
    """The scheduler, which can be paused: what runs goes on, nothing new starts."""

    needs = {"GET": "scheduler.view_schedulerstate", "PATCH": "scheduler.change_schedulerstate"}

    @operation(
        "read_scheduler",
        "Read the scheduler",
        answers.SchedulerAnswer,
        problems=(400, 401, 404),
        tag="scheduler",
    )
    def get(self, request: Request) -> Response:
        no_parameters(request)
        state = scheduler_state()
        if state is None:
            raise NotFound("scheduler", "yet", field="")
        return Response({"is_paused": state.is_paused})

    @operation(
        "change_scheduler",
        "Pause or resume the scheduler",
        answers.SchedulerAnswer,
        status=201,
        body=bodies.SchedulerChange,
        problems=(400, 401, 403, 404, 413, 415),
        examples=[example({"is_paused": True})],
        tag="scheduler",
    )
    def patch(self, request: Request) -> Response:
        no_parameters(request)
        change = some_fields_of(request, bodies.SchedulerChange)
        try:
            state = pause_scheduler(paused=change["is_paused"])
        except SchedulerState.DoesNotExist:
            raise NotFound("scheduler", "yet", field="") from None
        # 201 is what the interface has always answered here.
        return created(request, "/scheduler/", {"is_paused": state.is_paused})


class Version(View):
    """Which Scale this is."""

    needs = {"GET": LOGGED_IN}

    @operation("read_version", "Read the version", answers.VersionAnswer, tag="version")
    def get(self, request: Request) -> Response:
        no_parameters(request)
        return Response({"version": scale.__version__})


urlpatterns = [
    path("queue/status/", QueueStatus.as_view()),
    path("scheduler/", Scheduler.as_view()),
    path("version/", Version.as_view()),
]
