"""How a job type changes after it was made."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.db import transaction

from scale.core.errors import InvalidInput
from scale.job.models import JobType, JobTypeRevision
from scale.job.submission import check_documents
from scale.wake import wake_scheduler

#: Those that Scale itself brings can only be held back.
_OF_SYSTEM_TYPES: Final = frozenset({"is_paused"})
_FOLLOW: Final = ("uses_docker", "paused", "archived", "revision_num", "last_modified")


@transaction.atomic
def change_job_type(job_type_id: int, changes: Mapping[str, Any], *, at: datetime) -> JobType:
    """Change fields of a job type, which are those of the model and of the right types.

    Another interface is a new revision: jobs that exist keep theirs. What is paused or not active
    starts no new executions, and what is not active takes no new jobs; what runs goes on.

    Raises:
        JobType.DoesNotExist: no such job type.
        InvalidInput: a document does not hold, or the job type is one of the system's and this is
            more than a pause; nothing was written.
    """
    job_type = JobType.objects.select_for_update(no_key=True).get(pk=job_type_id)
    forbidden = sorted(set(changes) - _OF_SYSTEM_TYPES) if job_type.is_system else []
    if forbidden:
        raise InvalidInput(forbidden[0], "cannot be changed: this job type is the system's")
    check_documents(changes)
    was_active, was_paused, interface = job_type.is_active, job_type.is_paused, job_type.interface
    for name, value in changes.items():
        setattr(job_type, name, value)
    job_type.uses_docker = bool(job_type.docker_image)
    if job_type.is_paused != was_paused:
        job_type.paused = at if job_type.is_paused else None
    if job_type.is_active != was_active:
        job_type.archived = None if job_type.is_active else at
    if job_type.interface != interface:
        _revise(job_type)
    job_type.save(update_fields=[*changes, *_FOLLOW])
    wake_scheduler()
    return job_type


def _revise(job_type: JobType) -> None:
    job_type.revision_num += 1
    JobTypeRevision.objects.create(
        job_type=job_type, revision_num=job_type.revision_num, interface=job_type.interface
    )
