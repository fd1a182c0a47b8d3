"""What the scheduler must remember between its lives."""

from django.db import models
from django.db.models import Q


class SchedulerState(models.Model):
    """The one row of the scheduler.

    `epoch` counts leaders: each new one adds 1, and every transaction of a leader checks that the
    epoch is still its own (fencing). `heartbeat` is the leader's last sign of life.
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

    class Meta:
        db_table = "scheduler_state"
        constraints = [models.CheckConstraint(name="scheduler_one_row", condition=Q(id=1))]

    def __str__(self) -> str:
        return "scheduler"
