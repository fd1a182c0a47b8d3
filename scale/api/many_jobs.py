"""/jobs/bulk/: many jobs in one request. /jobs/cancel/, /jobs/requeue/: all jobs that fit."""

from typing import Any, Final

from django.db.models import Q
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies, outlines, shapes
from scale.api.base import (
    UnexpectedFields,
    View,
    body_of,
    key_of,
    links,
    no_parameters,
)
from scale.api.errors import NotFound
from scale.api.list_schema import parts_of, walking_all
from scale.api.paging import list_of
from scale.api.parameters import Query, period_of
from scale.api.quick import certainly_valid
from scale.api.repeats import IDEMPOTENCY_KEY, submitted
from scale.api.schema import ID, example, operation
from scale.core.errors import InvalidInput
from scale.job.asked import BulkAction as BulkActionRow
from scale.job.bulk_actions import Filters, ask_bulk_action, check_filters
from scale.job.lists import Rows
from scale.job.models import JobType
from scale.job.submission import JobRequest

_MOST_JOBS: Final = 1000
_PROBLEMS: Final = (400, 401, 403, 413, 415)


class BulkSubmission(View):
    """Many jobs at once."""

    needs = {"POST": "job.add_job"}

    @operation(
        "submit_jobs",
        "Submit many jobs, all or none",
        answers.SubmittedAnswer,
        status=201,
        body=bodies.JobsBody,
        parameters=[IDEMPOTENCY_KEY],
        problems=(400, 401, 409, 413, 415),
        examples=[
            example(
                {
                    "jobs": [
                        {"job_type": {"name": "word-count", "version": "1.0"}},
                        {"job_type_id": 4, "inputs": {"text": {"file_id": 3}}, "priority": 50},
                    ]
                }
            )
        ],
        tag="jobs",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        keys = submitted(request, _requests(_checked(request.data)), place=_place)
        return Response({"count": len(keys), "job_ids": keys}, status=201)


def _place(field: str) -> str:
    """Return where in the body it is; `submit_jobs` has an index only for several."""
    return f"jobs{field}" if field.startswith("[") else f"jobs[0].{field}"


def _checked(data: Any) -> list[dict[str, Any]]:
    """Return the checked jobs of a body; what is wrong is named by its index."""
    if not isinstance(data, dict):
        raise InvalidInput("body", "must be a JSON object")
    if set(data) - {"jobs"}:
        raise UnexpectedFields(sorted(set(data) - {"jobs"}))
    listed = data.get("jobs")
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MOST_JOBS:
        raise InvalidInput("jobs", f"must be a list of 1 to {_MOST_JOBS} jobs")
    # One for all: making a serializer takes longer than using it.
    reader, is_valid = bodies.JobBody(), certainly_valid(bodies.JobBody)
    return [
        each if is_valid(each) else _job(reader, index, each) for index, each in enumerate(listed)
    ]


def _job(reader: bodies.JobBody, index: int, given: Any) -> dict[str, Any]:
    unknown = sorted(set(given) - set(reader.fields)) if isinstance(given, dict) else []
    if unknown:
        raise InvalidInput(f"jobs[{index}].{unknown[0][:80]}", "is not a field here")
    try:
        return dict(reader.run_validation(given))
    except serializers.ValidationError as error:
        raise serializers.ValidationError({"jobs": [{}] * index + [error.detail]}) from None


def _requests(jobs: list[dict[str, Any]]) -> list[JobRequest]:
    types = _job_types(jobs)
    requests = []
    for index, job in enumerate(jobs):
        job_type = types.get(_named(job))
        if job_type is None:
            field = "job_type" if "job_type" in job else "job_type_id"
            raise InvalidInput(f"jobs[{index}].{field}", "there is no such job type")
        requests.append(
            JobRequest(
                job_type=job_type,
                inputs=job.get("inputs", {}),
                name=job.get("name", ""),
                priority=job.get("priority"),
            )
        )
    return requests


def _named(job: dict[str, Any]) -> tuple[Any, ...]:
    named = job.get("job_type")
    return (named["name"], named["version"]) if named else (job["job_type_id"],)


def _job_types(jobs: list[dict[str, Any]]) -> dict[tuple[Any, ...], JobType]:
    """Return the job types that are named, by how they are; one query."""
    wanted = Q(pk__in={job["job_type_id"] for job in jobs if "job_type_id" in job})
    for name, version in {_named(job) for job in jobs if "job_type" in job}:
        wanted |= Q(name=name, version=version)
    found: dict[tuple[Any, ...], JobType] = {}
    for job_type in JobType.objects.filter(wanted):
        found[job_type.pk,] = found[job_type.name, job_type.version] = job_type
    return found


def filters_of(body: dict[str, Any]) -> Filters:
    """Return the filters of a checked body; raises InvalidInput if it has none and not `all`."""
    chosen = {name: value for name, value in body.items() if name not in {"all", "priority"}}
    started, ended = period_of(body.get("started"), body.get("ended"), timezone.now())
    filters = Filters(**{**chosen, "started": started, "ended": ended})
    check_filters(filters, everything=body.get("all", False))
    return filters


def _ask(request: Request, kind: BulkActionRow.Kind, body: dict[str, Any]) -> Response:
    action = ask_bulk_action(
        kind,
        filters_of(body),
        user_id=request.user.pk,
        at=timezone.now(),
        priority=body.get("priority"),
    )
    shape = _shape(action.pk)
    location = links(request)(f"/bulk-actions/{action.pk}/")
    return Response(shape, status=202, headers={"Location": location})


class BulkCancel(View):
    """Cancels all jobs that fit, in the background."""

    needs = {"POST": "job.change_job"}

    @operation(
        "cancel_jobs",
        "Cancel all jobs that fit",
        answers.BulkActionAnswer,
        status=202,
        body=bodies.CancelBody,
        problems=_PROBLEMS,
        examples=[example({"job_type_names": ["word-count"], "status": ["QUEUED"]})],
        tag="jobs",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        return _ask(request, BulkActionRow.Kind.CANCEL, body_of(request, bodies.CancelBody))


class BulkRequeue(View):
    """Tries all failed and canceled jobs that fit again, in the background."""

    needs = {"POST": "job.change_job"}

    @operation(
        "requeue_jobs",
        "Requeue all jobs that fit",
        answers.BulkActionAnswer,
        status=202,
        body=bodies.RequeueBody,
        problems=_PROBLEMS,
        examples=[example({"error_categories": ["SYSTEM"], "priority": 10})],
        tag="jobs",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        return _ask(request, BulkActionRow.Kind.REQUEUE, body_of(request, bodies.RequeueBody))


class BulkActions(View):
    """What was asked for in bulk, the newest first."""

    needs = {"GET": "job.view_bulkaction"}

    @operation(
        "list_bulk_actions",
        "List bulk actions",
        parts_of(answers.BulkActionAnswer),
        parameters=walking_all(outlines.BULK_ACTION),
        tag="jobs",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        asked = query.asked({}, ["-id"], outlines.BULK_ACTION.names)
        query.done()
        return list_of(request, Rows(BulkActionRow.objects.all()), outlines.BULK_ACTION, asked)


class BulkAction(View):
    """How far one of them is."""

    needs = {"GET": "job.view_bulkaction"}

    @operation(
        "read_bulk_action",
        "Read how far a bulk action is",
        answers.BulkActionAnswer,
        parameters=[ID],
        problems=(400, 401, 404),
        tag="jobs",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        return Response(_shape(key_of(id, "bulk action")))


def _shape(key: int) -> dict[str, Any]:
    row = BulkActionRow.objects.filter(pk=key).values_list(*shapes.BULK_ACTION_COLUMNS).first()
    if row is None:
        raise NotFound("bulk action", key)
    return shapes.bulk_action(row)


urlpatterns = [
    path("jobs/bulk/", BulkSubmission.as_view()),
    path("jobs/cancel/", BulkCancel.as_view()),
    path("jobs/requeue/", BulkRequeue.as_view()),
    path("bulk-actions/", BulkActions.as_view()),
    path("bulk-actions/<str:id>/", BulkAction.as_view()),
]
