"""Cancel or requeue all jobs that fit a filter: asked for in a row, worked off in the background.

Each step is one transaction that changes some jobs and the row, so that whoever dies in between
has lost nothing, and whoever goes on counts nothing twice.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils.dateparse import parse_datetime

from scale.core.errors import InvalidInput
from scale.core.lifecycle import JobStatus
from scale.job.asked import BulkAction
from scale.job.models import Job, JobType
from scale.job.selectors import Wanted, jobs
from scale.job.services import Outcome, cancel_jobs, requeue_jobs

#: Jobs that one request may requeue itself.
AT_ONCE_JOBS: Final = 1000
#: Jobs that are changed in one transaction.
BATCH_JOBS: Final = 200
# Ids that are looked at in one query: its cost is bounded however few jobs fit.
_WINDOW_IDS: Final = 20_000
_ELIGIBLE: Final[Mapping[str, Collection[str]]] = {
    BulkAction.Kind.CANCEL: (
        JobStatus.PENDING.value,
        JobStatus.BLOCKED.value,
        JobStatus.QUEUED.value,
        JobStatus.RUNNING.value,
    ),
    BulkAction.Kind.REQUEUE: (JobStatus.FAILED.value, JobStatus.CANCELED.value),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which jobs; what is empty or None does not restrict. Times bound the last change.

    `job_types` are {name, version}.
    """

    started: datetime | None = None
    ended: datetime | None = None
    status: Collection[str] = ()
    job_ids: Collection[int] = ()
    job_type_ids: Collection[int] = ()
    job_types: Collection[Mapping[str, str]] = ()
    job_type_names: Collection[str] = ()
    job_type_categories: Collection[str] = ()
    error_categories: Collection[str] = ()
    error_ids: Collection[int] = ()

    def is_empty(self) -> bool:
        return not any(getattr(self, field.name) for field in fields(self))

    def stored(self) -> dict[str, Any]:
        """Return the document that is stored; times are ISO texts."""
        return {
            field.name: value.isoformat() if isinstance(value, datetime) else list(value)
            for field in fields(self)
            if (value := getattr(self, field.name))
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Filters":
        times = {
            name: parse_datetime(document[name])
            for name in ("started", "ended")
            if name in document
        }
        return cls(**{**document, **times})


def jobs_by(filters: Filters) -> QuerySet[Job]:
    """Return the jobs that fit, in no order; one query if types are named with versions."""
    wanted = Wanted(
        started=filters.started,
        ended=filters.ended,
        statuses=filters.status,
        ids=filters.job_ids,
        job_type_ids=filters.job_type_ids,
        job_type_names=filters.job_type_names,
        job_type_categories=filters.job_type_categories,
        error_categories=filters.error_categories,
        error_ids=filters.error_ids,
    )
    if not filters.job_types:
        return jobs(wanted)
    return jobs(wanted).filter(job_type_id__in=_types_called(filters.job_types))


def _types_called(wanted: Collection[Mapping[str, str]]) -> list[int]:
    """Return the ids of the job types with these names and versions, which may be thousands."""
    pairs = {(each["name"], each["version"]) for each in wanted}
    named = JobType.objects.filter(name__in={name for name, _ in pairs})
    found = named.values_list("pk", "name", "version")
    return [pk for pk, name, version in found if (name, version) in pairs]


def check_filters(filters: Filters, *, everything: bool) -> None:
    """Raise InvalidInput if nothing restricts and `everything` was not asked for by name."""
    if filters.is_empty() and not everything:
        raise InvalidInput("all", "must be true to change every job; else give a filter")


def requeue_matching(filters: Filters, *, at: datetime, priority: int | None = None) -> list[int]:
    """Try again what has failed or was canceled among the jobs that fit; return all that fit.

    Raises InvalidInput if more than AT_ONCE_JOBS fit; nothing was written then.
    """
    ids = list(jobs_by(filters).values_list("id", flat=True)[: AT_ONCE_JOBS + 1])
    if len(ids) > AT_ONCE_JOBS:
        raise InvalidInput(
            "body", f"more than {AT_ONCE_JOBS} jobs fit; POST /jobs/requeue/ takes any number"
        )
    requeue_jobs(ids, at=at, priority=priority)
    return ids


def ask_bulk_action(
    kind: BulkAction.Kind,
    filters: Filters,
    *,
    user_id: int | None,
    at: datetime,
    priority: int | None = None,
) -> BulkAction:
    """Store what is asked for; jobs that are made later are not meant. Two queries."""
    newest = Job.objects.aggregate(newest=Max("id"))["newest"] or 0
    return BulkAction.objects.create(
        kind=kind,
        filters=filters.stored(),
        priority=priority,
        requested_by_id=user_id,
        created=at,
        last_id=newest,
    )


def unfinished_actions() -> list[int]:
    """Return which actions are to be worked off, oldest first; one query, by its own index."""
    return list(
        BulkAction.objects.filter(finished=None).order_by("id").values_list("id", flat=True)
    )


@transaction.atomic(durable=True)
def advance_bulk_action(action_id: int, *, at: datetime) -> bool:
    """Take the next step of an action; return whether there is another one for us.

    There is none if it is finished, or if somebody else is at it just now.
    """
    action = (
        BulkAction.objects.select_for_update(skip_locked=True)
        .filter(pk=action_id, finished=None)
        .first()
    )
    if action is None:
        return False
    ids, reached = _next_ids(action)
    outcome = _change(action, ids, at) if ids else Outcome([], {})
    action.position = reached
    action.done += len(outcome.done)
    action.failed += len(outcome.refused)
    action.failure = action.failure or next(iter(outcome.refused.values()), "")
    action.finished = at if reached >= action.last_id else None
    action.save(update_fields=["position", "done", "failed", "failure", "finished"])
    return action.finished is None


def _next_ids(action: BulkAction) -> tuple[list[int], int]:
    """Return the next jobs to change, and the id up to which the action has then looked."""
    filters = Filters.read(action.filters)
    window = min(action.position + _WINDOW_IDS, action.last_id)
    if filters.job_ids:
        later = range(action.position + 1, action.last_id + 1)
        named = sorted(key for key in set(filters.job_ids) if key in later)[:BATCH_JOBS]
        window = named[-1] if len(named) == BATCH_JOBS else action.last_id
    ids = list(
        jobs_by(filters)
        .filter(status__in=_ELIGIBLE[action.kind], id__gt=action.position, id__lte=window)
        .order_by("id")
        .values_list("id", flat=True)[:BATCH_JOBS]
    )
    return ids, ids[-1] if len(ids) == BATCH_JOBS else window


def _change(action: BulkAction, ids: Collection[int], at: datetime) -> Outcome:
    if action.kind == BulkAction.Kind.CANCEL:
        return cancel_jobs(ids, at=at)
    return requeue_jobs(ids, at=at, priority=action.priority)
