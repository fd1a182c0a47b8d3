"""Background work on executions; each task is one call of a service."""

import logging
import time

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from scale.job.archive import archive_owed_logs
from scale.job.bulk_actions import advance_bulk_action, unfinished_actions
from scale.job.idempotency import KEPT_FOR, forget_keys
from scale.job.logs import Agents
from scale.job.tallies import correct_tallies, fold
from scale.mesos.files import AgentError, AgentFiles, AgentUnreachable, FileGone

logger = logging.getLogger(__name__)

_AGENT_TIMEOUT_S = 5.0
# So that one large action does not keep a thread of the worker for ever; beat calls again.
_BULK_S = 30.0
_FOLD_S = 30.0
_FOLD_ROWS = 5000


@shared_task
def archive_logs() -> None:
    """Archive the logs of executions that have ended; beat calls it (settings)."""
    files = AgentFiles(
        settings.SCALE_MESOS_PRINCIPAL or None,
        settings.SCALE_MESOS_SECRET or None,
        timeout_s=_AGENT_TIMEOUT_S,
    )
    try:
        agents = Agents(files.read, FileGone, AgentUnreachable, AgentError)
        archive_owed_logs(agents, now=timezone.now())
    finally:
        files.close()


@shared_task
def work_off_bulk_actions() -> None:
    """Go on with bulk actions, whoever began them; beat calls it (settings)."""
    until = time.monotonic() + _BULK_S
    for action_id in unfinished_actions():
        try:
            while time.monotonic() < until and advance_bulk_action(action_id, at=timezone.now()):
                pass
        except Exception:
            # The others must go on; this one is where its row says, and is tried again.
            logger.exception("a bulk action failed", extra={"bulk_action": action_id})


@shared_task
def forget_idempotency_keys() -> None:
    """Forget which requests were made long ago; beat calls it (settings)."""
    forget_keys(before=timezone.now() - KEPT_FOR)


@shared_task
def fold_tallies() -> None:
    """Fold what the kept counts have grown by; beat calls it (settings)."""
    until = time.monotonic() + _FOLD_S
    while fold(_FOLD_ROWS) == _FOLD_ROWS and time.monotonic() < until:
        pass


@shared_task
def check_tallies() -> None:
    """Count all rows and correct the kept counts; beat calls it (settings)."""
    for each in correct_tallies():
        logger.error("a kept count was wrong", extra={"tally": str(each)})
