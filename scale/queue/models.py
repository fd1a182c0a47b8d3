"""The queue is a state of executions, not a table; this is its face."""

from typing import ClassVar

from django.db import models

from scale.core.lifecycle import State
from scale.job.models import JobExecution


class QueueManager(models.Manager["QueuedExecution"]):
    def get_queryset(self) -> models.QuerySet["QueuedExecution"]:
        """Return what waits, most urgent first."""
        waiting = super().get_queryset().filter(state=State.QUEUED.value)
        return waiting.order_by("priority", "queued", "id")


class QueuedExecution(JobExecution):
    """An execution that waits for resources."""

    objects: ClassVar[QueueManager] = QueueManager()

    class Meta:
        proxy = True
        verbose_name = "queued execution"
