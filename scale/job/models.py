"""Job types, jobs, their executions and files.

Fields have the names of the REST contract (seed 002). Every rule that SQL can say is a constraint.
"""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Case, F, Q, Value, When

from scale.core.lifecycle import (
    HAS_TASK,
    ON_NODE,
    STATUS,
    TERMINAL,
    Event,
    JobStatus,
    Phase,
    State,
    Status,
)
from scale.error.models import Error
from scale.job.asked import BulkAction, IdempotencyKey  # noqa: F401 - Django finds models here
from scale.job.tallies import Tally  # noqa: F401 - Django finds models here
from scale.node.models import Node


def values(members: "type[State | JobStatus | Phase] | frozenset[State]") -> list[str]:
    """Return plain strings: an enum member in Meta would be frozen into the migrations."""
    return sorted(member.value for member in members)


LIVE = values(frozenset(State) - TERMINAL)


class JobType(models.Model):
    """A kind of work: a command with typed inputs and outputs, and what it needs.

    `interface` and `error_mapping` are documents (`docs/job-types.md`); `environment` is a mapping
    of variable names to values; `volumes` a list of {container_path, host_path, mode}.
    `launch_failures` counts attempts in a row that failed before the command ran; from
    `scheduler.backoff.PATIENCE` on, nothing is launched until `launch_after`, and then one by one.
    """

    name = models.CharField(max_length=50, db_index=True)
    version = models.CharField(max_length=50)
    title = models.CharField(max_length=50, null=True)  # noqa: DJ001 - null in the contract
    description = models.TextField(null=True)  # noqa: DJ001 - null in the contract
    category = models.CharField(max_length=50, null=True, db_index=True)  # noqa: DJ001 - contract
    author_name = models.CharField(max_length=50, null=True)  # noqa: DJ001 - null in the contract
    author_url = models.TextField(null=True)  # noqa: DJ001 - null in the contract
    is_system = models.BooleanField(default=False)
    is_long_running = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    is_operational = models.BooleanField(default=True)
    is_paused = models.BooleanField(default=False)
    icon_code = models.CharField(max_length=20, null=True)  # noqa: DJ001 - null in the contract
    uses_docker = models.BooleanField(default=False)
    docker_privileged = models.BooleanField(default=False)
    docker_image = models.CharField(max_length=500, null=True)  # noqa: DJ001 - null in the contract
    volumes = models.JSONField(default=list)
    environment = models.JSONField(default=dict)
    interface = models.JSONField()
    error_mapping = models.JSONField(default=dict)
    revision_num = models.PositiveIntegerField(default=1)
    priority = models.IntegerField(default=100)
    max_scheduled = models.PositiveIntegerField(null=True)
    timeout = models.PositiveIntegerField(default=1800)
    max_tries = models.PositiveIntegerField(default=3)
    cpus_required = models.FloatField(default=1.0)
    mem_required = models.FloatField(default=64.0)
    disk_out_const_required = models.FloatField(default=64.0)
    disk_out_mult_required = models.FloatField(default=0.0)
    launch_failures = models.PositiveIntegerField(default=0)
    launch_after = models.DateTimeField(null=True)
    created = models.DateTimeField(auto_now_add=True)
    archived = models.DateTimeField(null=True)
    paused = models.DateTimeField(null=True)
    last_modified = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "job_type"
        constraints = [
            models.UniqueConstraint("name", "version", name="job_type_name_version"),
            models.CheckConstraint(
                name="job_type_docker_has_image",
                condition=Q(uses_docker=False) | Q(docker_image__isnull=False),
            ),
            models.CheckConstraint(
                name="job_type_numbers_valid",
                condition=Q(
                    max_tries__gte=1,
                    cpus_required__gt=0,
                    mem_required__gt=0,
                    disk_out_const_required__gte=0,
                    disk_out_mult_required__gte=0,
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class JobTypeRevision(models.Model):
    """The interface as it was when a job was made; jobs keep the revision they were made with."""

    job_type = models.ForeignKey(JobType, models.PROTECT, related_name="revisions")
    revision_num = models.PositiveIntegerField()
    interface = models.JSONField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "job_type_revision"
        constraints = [
            models.UniqueConstraint("job_type", "revision_num", name="job_type_revision_num")
        ]

    def __str__(self) -> str:
        return f"{self.job_type} revision {self.revision_num}"


class TriggerEvent(models.Model):
    """What caused jobs; one for each submission."""

    type = models.CharField(max_length=50, db_index=True)
    description = models.JSONField(default=dict)
    occurred = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "trigger_event"

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"


class Job(models.Model):
    """What a user wants done; its attempts are executions.

    `data` is the job data document: which value or files each input has. `status` follows from
    the executions and is written with them (`services.move_executions`).
    """

    # An index below begins with each key that has none of its own; revisions are never deleted.
    job_type = models.ForeignKey(JobType, models.PROTECT, db_index=False)
    job_type_rev = models.ForeignKey(JobTypeRevision, models.PROTECT, db_index=False)
    event = models.ForeignKey(TriggerEvent, models.PROTECT)
    error = models.ForeignKey(Error, models.PROTECT, null=True, db_index=False)
    name = models.CharField(max_length=250, default="", blank=True)
    status = models.CharField(max_length=50, choices=[(s.value, s.value) for s in JobStatus])
    priority = models.IntegerField()
    num_exes = models.PositiveIntegerField(default=0)
    timeout = models.PositiveIntegerField()
    max_tries = models.PositiveIntegerField()
    cpus_required = models.FloatField()
    mem_required = models.FloatField()
    disk_in_required = models.FloatField()
    disk_out_required = models.FloatField()
    created = models.DateTimeField()
    queued = models.DateTimeField(null=True)
    started = models.DateTimeField(null=True)
    ended = models.DateTimeField(null=True)
    last_status_change = models.DateTimeField()
    last_modified = models.DateTimeField()
    data = models.JSONField(default=dict)
    results = models.JSONField(default=dict)

    class Meta:
        db_table = "job"
        constraints = [
            models.CheckConstraint(
                name="job_status_known", condition=Q(status__in=values(JobStatus))
            ),
            models.CheckConstraint(
                name="job_error_iff_failed",
                condition=Q(status="FAILED", error__isnull=False)
                | (~Q(status="FAILED") & Q(error__isnull=True)),
            ),
            models.CheckConstraint(
                name="job_ended_iff_terminal",
                condition=Q(status__in=["CANCELED", "COMPLETED", "FAILED"], ended__isnull=False)
                | (~Q(status__in=["CANCELED", "COMPLETED", "FAILED"]) & Q(ended__isnull=True)),
            ),
        ]
        indexes = [
            # Lists by last change, all or one status, type or error (`lists.py`); a status within
            # a type is found without reading rows.
            models.Index("last_modified", "id", name="job_by_last_modified"),
            models.Index("status", "last_modified", "id", name="job_by_status"),
            models.Index("job_type", "last_modified", "id", name="job_by_type", include=["status"]),
            models.Index(
                "error",
                "last_modified",
                "id",
                name="job_by_error",
                condition=Q(error__isnull=False),
            ),
            # Lists by change of status, filtered without reading rows, and counts of late changes.
            models.Index(
                "last_status_change",
                "id",
                name="job_by_change_of_status",
                include=["status", "job_type", "error"],
            ),
            # What the system failed (`counts.py`).
            models.Index(
                "error",
                "job_type",
                "last_status_change",
                name="job_failed",
                condition=Q(error__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name or f"job {self.pk}"


class JobExecution(models.Model):
    """One attempt to run a job; its life is `scale.core.lifecycle`.

    `state` is the truth and `status`, what seed 002 calls it, is computed by the database.
    `needs_*` are what placement asks for, in whole units. `agent_id` is where its task or work
    folder is; a phase's logs lie there under the framework that launched it. `launches` counts
    tasks sent, so that each has an id of its own. `deadline` is when the scheduler must act if
    nothing happens; while `unreachable_since` is set, the node is out of reach and the deadline
    ends our patience. While `stopping_since` is set the task is being
    killed, for `stopping_error`, or because the job was canceled if that is null.
    """

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    # A constraint or an index below begins with each key that has no index of its own.
    job = models.ForeignKey(Job, models.PROTECT, related_name="executions", db_index=False)
    job_type = models.ForeignKey(JobType, models.PROTECT, db_index=False)
    exe_num = models.PositiveIntegerField()
    state = models.CharField(max_length=20, choices=[(s.value, s.value) for s in State])
    status = models.GeneratedField(
        expression=Case(
            *[When(state=state.value, then=Value(status.value)) for state, status in STATUS.items()]
        ),
        output_field=models.CharField(max_length=20, choices=[(s.value, s.value) for s in Status]),
        db_persist=True,
    )
    phase = models.CharField(max_length=10, choices=[(p.value, p.value) for p in Phase])
    has_steps = models.BooleanField(help_text="whether it has pre and post phases")
    priority = models.IntegerField()
    needs_millicpus = models.PositiveIntegerField()
    needs_mem_mib = models.PositiveIntegerField()
    needs_disk_mib = models.PositiveIntegerField()
    command_arguments = models.TextField(default="", blank=True)
    timeout = models.PositiveIntegerField()
    environment = models.JSONField(default=dict)

    pre_started = models.DateTimeField(null=True)
    pre_completed = models.DateTimeField(null=True)
    pre_exit_code = models.IntegerField(null=True)
    pre_task_id = models.CharField(max_length=80, default="", blank=True)
    pre_framework_id = models.CharField(max_length=255, default="", blank=True)
    job_started = models.DateTimeField(null=True)
    job_completed = models.DateTimeField(null=True)
    job_exit_code = models.IntegerField(null=True)
    job_task_id = models.CharField(max_length=80, default="", blank=True)
    job_framework_id = models.CharField(max_length=255, default="", blank=True)
    post_started = models.DateTimeField(null=True)
    post_completed = models.DateTimeField(null=True)
    post_exit_code = models.IntegerField(null=True)
    post_task_id = models.CharField(max_length=80, default="", blank=True)
    post_framework_id = models.CharField(max_length=255, default="", blank=True)

    created = models.DateTimeField()
    queued = models.DateTimeField()
    started = models.DateTimeField(null=True)
    ended = models.DateTimeField(null=True)
    last_modified = models.DateTimeField()

    node = models.ForeignKey(Node, models.PROTECT, null=True, db_index=False)
    agent_id = models.CharField(max_length=255, default="", blank=True)
    task_id = models.CharField(max_length=80, default="", blank=True)
    launches = models.PositiveIntegerField(default=0)
    deadline = models.DateTimeField(null=True)
    unreachable_since = models.DateTimeField(null=True)
    stopping_since = models.DateTimeField(null=True)
    stopping_error = models.ForeignKey(
        Error, models.PROTECT, null=True, related_name="+", db_index=False
    )
    error = models.ForeignKey(Error, models.PROTECT, null=True, db_index=False)
    error_message = models.TextField(default="", blank=True)

    cpus_scheduled = models.FloatField(null=True)
    mem_scheduled = models.FloatField(null=True)
    disk_in_scheduled = models.FloatField(null=True)
    disk_out_scheduled = models.FloatField(null=True)
    disk_total_scheduled = models.FloatField(null=True)
    results = models.JSONField(default=dict)
    results_manifest = models.JSONField(default=dict)

    cleanup_owed = models.BooleanField(default=False)
    cleanup_tries = models.PositiveSmallIntegerField(default=0)
    cleanup_task_id = models.CharField(max_length=80, default="", blank=True)
    cleanup_deadline = models.DateTimeField(null=True)
    logs_owed = models.BooleanField(default=False)

    class Meta:
        db_table = "job_execution"
        constraints = [
            models.UniqueConstraint("job", "exe_num", name="execution_number"),
            models.UniqueConstraint(
                "job", condition=Q(state__in=LIVE), name="execution_one_live_per_job"
            ),
            models.CheckConstraint(
                name="execution_state_known", condition=Q(state__in=values(State))
            ),
            models.CheckConstraint(
                name="execution_phase_known", condition=Q(phase__in=values(Phase))
            ),
            models.CheckConstraint(
                name="execution_ended_iff_terminal",
                condition=Q(state__in=values(TERMINAL), ended__isnull=False)
                | Q(state__in=LIVE, ended__isnull=True),
            ),
            models.CheckConstraint(
                name="execution_error_iff_failed",
                condition=Q(state=State.FAILED.value, error__isnull=False)
                | (~Q(state=State.FAILED.value) & Q(error__isnull=True)),
            ),
            models.CheckConstraint(
                name="execution_on_a_node_while_it_lives_there",
                condition=~Q(state__in=values(ON_NODE))
                | (Q(node__isnull=False, started__isnull=False) & ~Q(agent_id="")),
            ),
            models.CheckConstraint(
                name="execution_has_task_while_it_runs",
                condition=~Q(state__in=values(HAS_TASK)) | ~Q(task_id=""),
            ),
        ]
        indexes = [
            # The queue: heads of each shape are found by skipping from shape to shape.
            models.Index(
                "job_type",
                "needs_millicpus",
                "needs_mem_mib",
                "needs_disk_mib",
                "priority",
                "queued",
                "id",
                name="execution_queue",
                condition=Q(state=State.QUEUED.value),
            ),
            models.Index(
                "state", "job_type", name="execution_live", condition=Q(state__in=values(ON_NODE))
            ),
            models.Index(
                "deadline", name="execution_deadline", condition=Q(deadline__isnull=False)
            ),
            models.Index(
                "id", name="execution_stopping", condition=Q(stopping_since__isnull=False)
            ),
            models.Index("id", name="execution_cleanup", condition=Q(cleanup_owed=True)),
            models.Index("id", name="execution_logs_owed", condition=Q(logs_owed=True)),
            # For the foreign key: an error may be deleted if nothing has it.
            models.Index(
                "stopping_error",
                name="execution_stopping_error",
                condition=Q(stopping_error__isnull=False),
            ),
            # Lists by last change, all or one status, type, node or error (`lists.py`); a status
            # within a type or node is found without reading rows.
            models.Index("last_modified", "id", name="execution_by_last_modified"),
            models.Index("status", "last_modified", "id", name="execution_by_status"),
            models.Index(
                "job_type", "last_modified", "id", name="execution_by_type", include=["status"]
            ),
            models.Index(
                "node", "last_modified", "id", name="execution_on_node", include=["status"]
            ),
            models.Index(
                "error",
                "last_modified",
                "id",
                name="execution_by_error",
                condition=Q(error__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"execution {self.pk}"

    @property
    def first_phase(self) -> Phase:
        return Phase.PRE if self.has_steps else Phase.JOB

    @property
    def last_phase(self) -> Phase:
        return Phase.POST if self.has_steps else Phase.JOB

    @property
    def is_finished(self) -> bool:
        return State(self.state) in TERMINAL


class ExecutionEvent(models.Model):
    """The history of executions; nothing is changed or deleted here.

    `event` is a lifecycle event, or "create" for the first entry.
    """

    CREATE = "create"

    execution = models.ForeignKey(
        JobExecution, models.PROTECT, related_name="history", db_index=False
    )
    at = models.DateTimeField()
    event = models.CharField(
        max_length=20, choices=[(CREATE, CREATE), *[(e.value, e.value) for e in Event]]
    )
    state = models.CharField(max_length=20, choices=[(s.value, s.value) for s in State])
    phase = models.CharField(max_length=10, choices=[(p.value, p.value) for p in Phase])
    task_id = models.CharField(max_length=80, default="", blank=True)
    message = models.TextField(default="", blank=True)

    class Meta:
        db_table = "execution_event"
        indexes = [models.Index("execution", "id", name="event_by_execution")]

    def __str__(self) -> str:
        return f"{self.event} -> {self.state}"


class File(models.Model):
    """Bytes that a user uploaded or an execution produced.

    `sha256` is in hex. `storage_name` is where Django's default storage keeps them.
    """

    name = models.CharField(max_length=255)
    size = models.PositiveBigIntegerField()
    media_type = models.CharField(max_length=250)
    sha256 = models.CharField(max_length=64)
    storage_name = models.CharField(max_length=250, unique=True)
    created = models.DateTimeField()
    uploaded_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)
    execution = models.ForeignKey(
        JobExecution, models.PROTECT, null=True, related_name="files", db_index=False
    )
    output_name = models.CharField(max_length=255, default="", blank=True)

    class Meta:
        db_table = "file"
        indexes = [models.Index("created", "id", name="file_by_created")]  # the list of files
        constraints = [
            models.UniqueConstraint(
                F("execution"),
                F("output_name"),
                F("name"),
                name="file_once_per_output",
                condition=Q(execution__isnull=False),
            ),
            models.CheckConstraint(
                name="file_output_iff_execution",
                condition=Q(execution__isnull=True, output_name="")
                | (Q(execution__isnull=False) & ~Q(output_name="")),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ArchivedLog(models.Model):
    """One stream of one phase of an ended execution, as it was when its task had ended.

    `size` counts the bytes of the log. They are stored as gzip members of `BLOCK_BYTES` each;
    `block_ends` are the offsets in the stored file at which the members end. An empty log has no
    stored file.
    """

    BLOCK_BYTES = 256 * 1024

    execution = models.ForeignKey(JobExecution, models.PROTECT, related_name="logs", db_index=False)
    phase = models.CharField(max_length=10, choices=[(p.value, p.value) for p in Phase])
    stream = models.CharField(max_length=10, choices=[("stdout", "stdout"), ("stderr", "stderr")])
    size = models.PositiveBigIntegerField()
    storage_name = models.CharField(max_length=250, default="", blank=True)
    block_ends = models.JSONField(default=list)
    lost = models.BooleanField(default=False, help_text="the agent no longer had it")
    archived = models.DateTimeField()

    class Meta:
        db_table = "archived_log"
        constraints = [
            models.UniqueConstraint("execution", "phase", "stream", name="log_once_per_stream")
        ]

    def __str__(self) -> str:
        return f"{self.phase} {self.stream}"
