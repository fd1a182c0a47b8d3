"""What is measured of the work: samples of the load, days of metrics; and the queue's face.

The queue itself is a state of executions, not a table.
"""

from typing import ClassVar, Final

from django.db import models
from django.db.models import Q

from scale.core.lifecycle import State
from scale.error.models import Error
from scale.job.models import JobExecution, JobType

#: What of an execution takes time; stage is what is lost between the phases.
TIMES: Final = ("queue", "pre", "job", "post", "run", "stage")


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


class LoadSample(models.Model):
    """How many jobs were at hand at one time; there is a row even if there were none.

    `measured` is the beginning of the period it was taken in: the key, so that a second sample of
    a period is refused. The first sample of an hour is kept longer.
    """

    measured = models.DateTimeField(primary_key=True)
    pending_count = models.PositiveBigIntegerField()
    queued_count = models.PositiveBigIntegerField()
    running_count = models.PositiveBigIntegerField()
    total_count = models.PositiveBigIntegerField()
    is_first_of_hour = models.BooleanField()

    class Meta:
        db_table = "load_sample"
        indexes = [
            models.Index("measured", name="load_between", condition=Q(is_first_of_hour=False))
        ]

    def __str__(self) -> str:
        return f"load at {self.measured:%Y-%m-%d %H:%M:%S}"


class JobTypeLoad(models.Model):
    """The part of one job type in a sample; there is no row if it had no jobs at hand."""

    sample = models.ForeignKey(LoadSample, models.CASCADE, related_name="parts", db_index=False)
    job_type = models.ForeignKey(JobType, models.PROTECT, db_index=False)
    pending_count = models.PositiveBigIntegerField()
    queued_count = models.PositiveBigIntegerField()
    running_count = models.PositiveBigIntegerField()

    class Meta:
        db_table = "load_of_job_type"
        constraints = [models.UniqueConstraint("sample", "job_type", name="load_once_per_job_type")]

    def __str__(self) -> str:
        return f"{self.job_type} in the {self.sample}"


class MeasuredDay(models.Model):
    """A day, in UTC, whose metrics are worked out: the key, so that nothing is counted twice."""

    date = models.DateField(primary_key=True)

    class Meta:
        db_table = "measured_day"

    def __str__(self) -> str:
        return str(self.date)


def _seconds() -> "models.FloatField[float | None, float | None]":
    return models.FloatField(null=True)


class DailyJobType(models.Model):
    """What ended on one day of one job type. Times are in seconds.

    `*_time_count` says how many executions had that time, which the average needs; the others
    are null if none had.
    """

    day = models.ForeignKey(MeasuredDay, models.CASCADE, db_index=False)
    job_type = models.ForeignKey(JobType, models.PROTECT, db_index=False)
    completed_count = models.PositiveBigIntegerField()
    failed_count = models.PositiveBigIntegerField()
    canceled_count = models.PositiveBigIntegerField()
    total_count = models.PositiveBigIntegerField()
    error_system_count = models.PositiveBigIntegerField()
    error_data_count = models.PositiveBigIntegerField()
    error_algorithm_count = models.PositiveBigIntegerField()

    queue_time_count = models.PositiveBigIntegerField()
    queue_time_sum = _seconds()
    queue_time_min = _seconds()
    queue_time_max = _seconds()
    pre_time_count = models.PositiveBigIntegerField()
    pre_time_sum = _seconds()
    pre_time_min = _seconds()
    pre_time_max = _seconds()
    job_time_count = models.PositiveBigIntegerField()
    job_time_sum = _seconds()
    job_time_min = _seconds()
    job_time_max = _seconds()
    post_time_count = models.PositiveBigIntegerField()
    post_time_sum = _seconds()
    post_time_min = _seconds()
    post_time_max = _seconds()
    run_time_count = models.PositiveBigIntegerField()
    run_time_sum = _seconds()
    run_time_min = _seconds()
    run_time_max = _seconds()
    stage_time_count = models.PositiveBigIntegerField()
    stage_time_sum = _seconds()
    stage_time_min = _seconds()
    stage_time_max = _seconds()

    class Meta:
        db_table = "daily_job_type"
        constraints = [models.UniqueConstraint("job_type", "day", name="daily_once_per_job_type")]
        indexes = [models.Index("day", name="daily_job_type_by_day")]

    def __str__(self) -> str:
        return f"{self.job_type} on {self.day_id}"


class DailyError(models.Model):
    """How many executions failed by one error on one day."""

    day = models.ForeignKey(MeasuredDay, models.CASCADE, db_index=False)
    error = models.ForeignKey(Error, models.PROTECT, db_index=False)
    total_count = models.PositiveBigIntegerField()

    class Meta:
        db_table = "daily_error"
        constraints = [models.UniqueConstraint("error", "day", name="daily_once_per_error")]
        indexes = [models.Index("day", name="daily_error_by_day")]

    def __str__(self) -> str:
        return f"{self.error} on {self.day_id}"
