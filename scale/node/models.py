"""The machines that executions run on."""

from collections.abc import Mapping
from typing import Any

from django.db import models
from django.db.models import Q


class Node(models.Model):
    """A Mesos agent, known by its hostname; its agent id may change (reference: seed 002).

    `address` is what to connect to. Totals are what the agent has, in cores and MiB; null until
    the cluster has told. `is_online` follows what the cluster says of the agent.

    `failed_jobs` are the ids of different jobs that failed there in a row and by no fault of their
    own. Too many set `is_paused_errors`: then a probe task tells when the node works again.
    `probe_at` is when to start the next probe, or when `probe_task_id` has taken too long.
    """

    class Health(models.TextChoices):
        """What an operator wants to know first."""

        READY = "READY"
        PAUSED = "PAUSED"
        DEGRADED = "DEGRADED"
        OFFLINE = "OFFLINE"

    #: What `health_of` needs to know.
    HEALTH_FIELDS = ("is_online", "is_active", "is_paused", "is_paused_errors", "pause_reason")

    hostname = models.CharField(max_length=250, unique=True)
    port = models.PositiveIntegerField()
    slave_id = models.CharField(max_length=250, unique=True)
    address = models.CharField(max_length=250)
    pause_reason = models.CharField(max_length=250, null=True)  # noqa: DJ001 - null in the contract
    is_paused = models.BooleanField(default=False)
    is_paused_errors = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    is_online = models.BooleanField(default=True)
    archived = models.DateTimeField(null=True)
    created = models.DateTimeField(auto_now_add=True)
    last_offer = models.DateTimeField(null=True)
    last_modified = models.DateTimeField(auto_now=True)
    millicpus_total = models.PositiveIntegerField(null=True)
    mem_mib_total = models.PositiveBigIntegerField(null=True)
    disk_mib_total = models.PositiveBigIntegerField(null=True)
    failed_jobs = models.JSONField(default=list)
    probe_task_id = models.CharField(max_length=80, default="", blank=True)
    probe_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "node"
        constraints = [
            models.CheckConstraint(
                name="node_archived_iff_inactive",
                condition=Q(is_active=True, archived__isnull=True)
                | Q(is_active=False, archived__isnull=False),
            ),
            models.CheckConstraint(
                name="node_port_valid", condition=Q(port__gte=1, port__lte=65535)
            ),
        ]

    def __str__(self) -> str:
        return self.hostname

    @property
    def health(self) -> Health:
        """The worst that is true of the node; `health_reason` says more."""
        return self.health_of({name: getattr(self, name) for name in self.HEALTH_FIELDS})[0]

    @property
    def health_reason(self) -> str | None:
        return self.health_of({name: getattr(self, name) for name in self.HEALTH_FIELDS})[1]

    @classmethod
    def health_of(cls, facts: Mapping[str, Any]) -> tuple[Health, str | None]:
        """Return the worst that is true, and why, of a node with these facts."""
        if not facts["is_online"]:
            return cls.Health.OFFLINE, "the cluster does not have it"
        if facts["is_paused_errors"]:
            return cls.Health.DEGRADED, facts["pause_reason"] or "too many jobs failed there"
        if not facts["is_active"]:
            return cls.Health.PAUSED, "it was retired"
        if facts["is_paused"]:
            return cls.Health.PAUSED, facts["pause_reason"] or "it was paused without a reason"
        return cls.Health.READY, None
