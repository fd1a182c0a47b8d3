"""What people asked for that is more than one job: bulk actions, and requests that may repeat."""

from django.conf import settings
from django.db import models
from django.db.models import Q


class BulkAction(models.Model):
    """A change of many jobs, worked off in the background (`scale.job.bulk_actions`).

    `filters` is the document of `bulk_actions.Filters`. Jobs are looked at by rising id, up to
    `last_id`, the newest when it was asked for; those up to `position` are behind it. `failure` is
    why the first of those that `failed` counts was left as it is.
    """

    class Kind(models.TextChoices):
        CANCEL = "cancel"
        REQUEUE = "requeue"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    filters = models.JSONField()
    priority = models.IntegerField(null=True)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)
    created = models.DateTimeField()
    finished = models.DateTimeField(null=True)
    position = models.BigIntegerField(default=0)
    last_id = models.BigIntegerField()
    done = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)
    failure = models.TextField(default="", blank=True)

    class Meta:
        db_table = "bulk_action"
        constraints = [
            models.CheckConstraint(
                name="bulk_action_kind_known", condition=Q(kind__in=["cancel", "requeue"])
            ),
            models.CheckConstraint(
                name="bulk_action_failure_iff_failed",
                condition=Q(failed=0, failure="") | (Q(failed__gt=0) & ~Q(failure="")),
            ),
        ]
        indexes = [
            models.Index("id", name="bulk_action_unfinished", condition=Q(finished__isnull=True))
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class IdempotencyKey(models.Model):
    """A request that made jobs, so that the same request again makes none.

    `request_hash` is the SHA-256 of what was asked, in hex; `job_ids` are the answer.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    key = models.CharField(max_length=255)
    request_hash = models.CharField(max_length=64)
    job_ids = models.JSONField(default=list)
    created = models.DateTimeField()

    class Meta:
        db_table = "idempotency_key"
        constraints = [
            models.UniqueConstraint("user", "key", name="idempotency_key_once_per_user"),
            models.CheckConstraint(name="idempotency_key_not_empty", condition=~Q(key="")),
        ]
        indexes = [models.Index("created", name="idempotency_key_by_age")]

    def __str__(self) -> str:
        return self.key
