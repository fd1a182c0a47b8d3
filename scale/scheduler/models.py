"""What the scheduler must remember between its lives."""

from django.db import models
from django.db.models import Q

from scale.core.reasons import Reason, WaitCode
from scale.core.resources import Resources
from scale.job.models import JobType


class SchedulerState(models.Model):
    """The one row of the scheduler.

    `epoch` counts leaders: each new one adds 1, and every transaction of a leader checks that the
    epoch is still its own (fencing). `heartbeat` is the leader's last sign of life. `trouble` is
    why the cluster does not take it in, in the cluster's words; empty while all is well. `figures`
    are what the leader counted and measured until then (`figures.Figures.document`).
    """

    ONLY = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY)
    is_paused = models.BooleanField(default=False)
    epoch = models.PositiveBigIntegerField(default=0)
    framework_id = models.CharField(max_length=255, default="", blank=True)
    leader = models.CharField(max_length=255, default="", blank=True)
    master = models.CharField(max_length=255, default="", blank=True)
    is_connected = models.BooleanField(default=False)
    heartbeat = models.DateTimeField(null=True)
    trouble = models.TextField(default="", blank=True)
    figures = models.JSONField(default=dict)

    class Meta:
        db_table = "scheduler_state"
        constraints = [models.CheckConstraint(name="scheduler_one_row", condition=Q(id=1))]

    def __str__(self) -> str:
        return "scheduler"


class WaitingShape(models.Model):
    """Why queued executions of one job type with the same needs wait, as the leader last saw it.

    Written by the leader only, and only when something changed. `since` is kept while the code
    stays the same: an execution that was queued later waits for it since then.
    """

    job_type = models.ForeignKey(JobType, models.PROTECT, related_name="+", db_index=False)
    needs_millicpus = models.PositiveIntegerField()
    needs_mem_mib = models.PositiveIntegerField()
    needs_disk_mib = models.PositiveIntegerField()
    code = models.CharField(max_length=50)
    message = models.TextField()
    since = models.DateTimeField()

    class Meta:
        db_table = "waiting_shape"
        constraints = [
            models.UniqueConstraint(
                fields=["job_type", "needs_millicpus", "needs_mem_mib", "needs_disk_mib"],
                name="waiting_shape_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.job_type_id}: {self.code}"

    @property
    def needs(self) -> Resources:
        return Resources(self.needs_millicpus, self.needs_mem_mib, self.needs_disk_mib)

    @property
    def reason(self) -> Reason:
        return Reason(WaitCode(self.code), self.message)
