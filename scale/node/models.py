"""The machines that executions run on."""

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
        """The worst that is true of the node; `pause_reason` says more."""
        if not self.is_online:
            return self.Health.OFFLINE
        if self.is_paused_errors:
            return self.Health.DEGRADED
        if self.is_paused or not self.is_active:
            return self.Health.PAUSED
        return self.Health.READY
