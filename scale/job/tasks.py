"""Background work on executions; each task is one call of a service."""

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from scale.job.archive import archive_owed_logs
from scale.job.logs import Agents
from scale.mesos.files import AgentError, AgentFiles, AgentUnreachable, FileGone
from scale.scheduler.models import SchedulerState

_AGENT_TIMEOUT_S = 5.0


@shared_task
def archive_logs() -> None:
    """Archive the logs of executions that have ended; beat calls it (settings)."""
    state = SchedulerState.objects.filter(pk=SchedulerState.ONLY).first()
    if state is None or not state.framework_id:
        return
    files = AgentFiles(
        settings.SCALE_MESOS_PRINCIPAL or None,
        settings.SCALE_MESOS_SECRET or None,
        timeout_s=_AGENT_TIMEOUT_S,
    )
    try:
        agents = Agents(files.read, FileGone, AgentUnreachable, AgentError)
        archive_owed_logs(agents, framework_id=state.framework_id, now=timezone.now())
    finally:
        files.close()
