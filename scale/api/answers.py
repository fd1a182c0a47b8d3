"""What answers look like, for the schema only: nothing is rendered through these serializers.

A test compares them with what the views send.
"""

from typing import Any

from rest_framework import serializers

from scale.api.fields import Choice
from scale.core.lifecycle import Event, JobStatus, Phase, State, Status
from scale.core.reasons import WaitCode
from scale.error.models import Error
from scale.job.asked import BulkAction
from scale.job.models import ExecutionEvent

_Text = serializers.CharField
_Whole = serializers.IntegerField
_Number = serializers.FloatField
_Flag = serializers.BooleanField
_Document = serializers.DictField


def _when(*, maybe: bool = True) -> serializers.DateTimeField:
    """Declare a time in UTC with milliseconds; `maybe` null."""
    return serializers.DateTimeField(allow_null=maybe)


def _text(*, maybe: bool = True) -> serializers.CharField:
    return _Text(allow_null=maybe)


class Problem(serializers.Serializer[Any]):
    """Why a request was refused; `field` names the parameter or the place in the body."""

    detail = _Text()
    code = _Text()
    field = _Text(required=False)


class Reference(serializers.Serializer[Any]):
    id = _Whole()


class JobTypeBase(serializers.Serializer[Any]):
    id = _Whole()
    name = _Text()
    version = _Text()
    title = _text()
    description = _text()
    category = _text()
    author_name = _text()
    author_url = _text()
    is_system = _Flag()
    is_long_running = _Flag()
    is_active = _Flag()
    is_operational = _Flag()
    is_paused = _Flag()
    icon_code = _text()


class JobTypeAnswer(JobTypeBase):
    uses_docker = _Flag()
    docker_privileged = _Flag()
    docker_image = _text()
    revision_num = _Whole()
    priority = _Whole(help_text="lower is more urgent")
    max_scheduled = _Whole(allow_null=True)
    timeout = _Whole(help_text="seconds")
    max_tries = _Whole()
    cpus_required = _Number()
    mem_required = _Number(help_text="MiB")
    disk_out_const_required = _Number(help_text="MiB")
    disk_out_mult_required = _Number(help_text="MiB for each MiB of input")
    created = _when(maybe=False)
    archived = _when()
    paused = _when()
    last_modified = _when(maybe=False)


class NodeBase(serializers.Serializer[Any]):
    id = _Whole()
    hostname = _Text()
    port = _Whole()
    slave_id = _Text(help_text="its Mesos agent id")


class NodeAnswer(NodeBase):
    pause_reason = _text()
    is_paused = _Flag()
    is_paused_errors = _Flag()
    is_active = _Flag()
    is_online = _Flag()
    archived = _when()
    created = _when(maybe=False)
    last_offer = _when()
    last_modified = _when(maybe=False)


class ErrorBase(serializers.Serializer[Any]):
    id = _Whole()
    name = _Text()
    title = _text()
    description = _text()
    category = Choice("ErrorCategory", Error.Category)
    is_builtin = _Flag()


class ErrorAnswer(ErrorBase):
    should_be_retried = _Flag()
    created = _when(maybe=False)
    last_modified = _when(maybe=False)


class _Execution(serializers.Serializer[Any]):
    id = _Whole()
    status = Choice("ExecutionStatus", Status)
    command_arguments = _Text()
    timeout = _Whole(help_text="seconds; 0 is for ever")
    pre_started = _when()
    pre_completed = _when()
    pre_exit_code = _Whole(allow_null=True)
    job_started = _when()
    job_completed = _when()
    job_exit_code = _Whole(allow_null=True)
    post_started = _when()
    post_completed = _when()
    post_exit_code = _Whole(allow_null=True)
    created = _when(maybe=False)
    queued = _when(maybe=False)
    started = _when()
    ended = _when()
    last_modified = _when(maybe=False)


class JobInExecution(serializers.Serializer[Any]):
    id = _Whole()
    job_type = JobTypeBase()
    job_type_rev = Reference()
    event = Reference()
    error = Reference(allow_null=True)
    status = Choice("JobStatus", JobStatus)
    priority = _Whole()
    num_exes = _Whole()


class ExecutionAnswer(_Execution):
    job = JobInExecution()
    node = NodeBase(allow_null=True)
    error = ErrorBase(allow_null=True)


class RevisionAnswer(serializers.Serializer[Any]):
    id = _Whole()
    job_type = Reference()
    revision_num = _Whole()


class RevisionDetails(RevisionAnswer):
    interface = _Document()
    created = _when(maybe=False)


class EventAnswer(serializers.Serializer[Any]):
    id = _Whole()
    type = _Text()
    occurred = _when(maybe=False)
    rule = Reference(allow_null=True)


class EventDetails(EventAnswer):
    description = _Document()


class _Job(serializers.Serializer[Any]):
    id = _Whole()
    name = _Text()
    status = Choice("JobStatus", JobStatus)
    priority = _Whole()
    num_exes = _Whole()
    timeout = _Whole()
    max_tries = _Whole()
    cpus_required = _Number()
    mem_required = _Number()
    disk_in_required = _Number()
    disk_out_required = _Number()
    created = _when(maybe=False)
    queued = _when()
    started = _when()
    ended = _when()
    last_status_change = _when(maybe=False)
    last_modified = _when(maybe=False)


class JobAnswer(_Job):
    job_type = JobTypeBase()
    job_type_rev = RevisionAnswer()
    event = EventAnswer()
    error = ErrorBase(allow_null=True)


class JobFull(_Job):
    job_type = JobTypeAnswer()
    job_type_rev = RevisionDetails()
    event = EventDetails()
    error = ErrorAnswer(allow_null=True)
    data = _Document()  # type: ignore[assignment] # shadows what we do not use
    results = _Document()


class WaitingReason(serializers.Serializer[Any]):
    """Why something waits, with numbers, and since when it has been for that; null if it does not.

    Of the codes WAITING_FOR_OFFERS says that nothing else is in the way, and NO_SCHEDULER that
    nobody is there who could tell.
    """

    code = Choice("WaitCode", WaitCode)
    message = _Text()
    since = _when(maybe=False)


class ExecutionDetails(_Execution):
    uuid = serializers.UUIDField()
    exe_num = _Whole(help_text="which attempt of its job this is")
    state = Choice("ExecutionState", State)
    phase = Choice("ExecutionPhase", Phase)
    allowed_events = serializers.ListField(child=Choice("ExecutionEvent", Event))
    job = JobFull()
    node = NodeAnswer(allow_null=True)
    error = ErrorAnswer(allow_null=True)
    error_message = _Text()
    environment = _Document()
    cpus_scheduled = _Number(allow_null=True)
    mem_scheduled = _Number(allow_null=True)
    disk_in_scheduled = _Number(allow_null=True)
    disk_out_scheduled = _Number(allow_null=True)
    disk_total_scheduled = _Number(allow_null=True)
    results = _Document()
    current_stdout_url = serializers.URLField(allow_null=True)
    current_stderr_url = serializers.URLField(allow_null=True)
    results_manifest = _Document()
    waiting_reason = WaitingReason(allow_null=True)


class ExecutionInJob(_Execution):
    exe_num = _Whole()
    error_message = _Text()
    job = Reference()
    node = Reference(allow_null=True)
    error = Reference(allow_null=True)


class ExecutionLogs(ExecutionAnswer):
    """An execution with the ends of its logs."""

    is_finished = _Flag(help_text="whether nothing more will come")
    log_problem = _text()
    stdout = _Text()
    stdout_size = _Whole(help_text="bytes")
    stdout_truncated = _Flag()
    stderr = _Text()
    stderr_size = _Whole(help_text="bytes")
    stderr_truncated = _Flag()


class Attempt(ExecutionAnswer):
    exe_num = _Whole(help_text="which attempt of its job this is")
    error_message = _Text()
    cluster_id = serializers.UUIDField(help_text="what the ids of its tasks begin with")
    job_type = JobTypeBase()
    input_file_size = _Number(help_text="MiB of its input files together, rounded up")


class AttemptReference(Reference):
    exe_num = _Whole()


class HistoryAnswer(serializers.Serializer[Any]):
    """One thing that happened to an execution."""

    id = _Whole()
    at = _when(maybe=False)
    event = Choice("HistoryEvent", [ExecutionEvent.CREATE, *Event])
    state = Choice("ExecutionState", State)
    phase = Choice("ExecutionPhase", Phase)
    task_id = _Text()
    message = _Text()
    job_exe = AttemptReference()


class GivenAnswer(serializers.Serializer[Any]):
    name = _Text()
    type = Choice("DataType", ["property", "file", "files"])
    value = serializers.JSONField(
        allow_null=True, help_text="a value, a file, {uri}, a list of files, or null"
    )


class FileAnswer(serializers.Serializer[Any]):
    id = _Whole()
    name = _Text()
    size = _Whole(help_text="bytes")
    media_type = _Text()
    sha256 = _Text()
    created = _when(maybe=False)
    output_name = _Text()
    job_exe = Reference(allow_null=True)
    url = serializers.URLField()


class JobDetails(JobFull):
    error_message = _Text(help_text="what the last execution failed with")
    recipes = serializers.ListField(child=_Document())
    job_exes = ExecutionInJob(many=True)
    inputs = GivenAnswer(many=True)
    outputs = GivenAnswer(many=True)
    input_files = FileAnswer(many=True, help_text="the stored files among the inputs")
    products = FileAnswer(many=True, help_text="the files among the outputs")


class ExecutionInNode(_Execution):
    job = JobInExecution()
    node = Reference()
    error = ErrorBase(allow_null=True)
    cpus_scheduled = _Number(allow_null=True)
    mem_scheduled = _Number(allow_null=True)
    disk_in_scheduled = _Number(allow_null=True)
    disk_out_scheduled = _Number(allow_null=True)
    disk_total_scheduled = _Number(allow_null=True)


class TallyAnswer(serializers.Serializer[Any]):
    status = Choice("JobStatus", JobStatus)
    count = _Whole()
    most_recent = _when(maybe=False)
    category = Choice("ErrorCategory", Error.Category, allow_null=True)


class JobTypeStatus(serializers.Serializer[Any]):
    job_type = JobTypeBase()
    job_counts = TallyAnswer(many=True)


class JobTypeRunning(serializers.Serializer[Any]):
    job_type = JobTypeBase()
    count = _Whole()
    longest_running = _when(maybe=False)


class SystemFailures(serializers.Serializer[Any]):
    job_type = JobTypeBase()
    error = ErrorAnswer()
    count = _Whole()
    first_error = _when(maybe=False)
    last_error = _when(maybe=False)


class ResourcesAnswer(serializers.Serializer[Any]):
    cpus = _Number()
    mem = _Number(help_text="MiB")
    disk = _Number(help_text="MiB")


class JobUpdate(JobAnswer):
    input_files = FileAnswer(many=True)


class JobWithExecution(JobAnswer):
    latest_job_exe = ExecutionInJob(allow_null=True)


class SubmittedAnswer(serializers.Serializer[Any]):
    count = _Whole()
    job_ids = serializers.ListField(child=_Whole(), help_text="in the order of the request")


class BulkActionAnswer(serializers.Serializer[Any]):
    id = _Whole()
    kind = Choice("BulkActionKind", BulkAction.Kind)
    filters = _Document(help_text="as they were given, durations as times")
    priority = _Whole(allow_null=True)
    requested_by = _text()
    created = _when(maybe=False)
    finished = _when()
    done = _Whole(help_text="how many jobs were changed so far")
    failed = _Whole(help_text="how many fitted but could not be changed")
    failure = _Text(help_text="why the first of those could not")


class WaitingAnswer(serializers.Serializer[Any]):
    count = _Whole()
    longest_queued = _when(maybe=False)
    job_type_id = _Whole()
    job_type_name = _Text()
    job_type_version = _Text()
    highest_priority = _Whole(help_text="the lowest number")
    is_job_type_paused = _Flag()
    waiting_reason = WaitingReason(help_text="why the least demanding of them waits")


class QueueAnswer(serializers.Serializer[Any]):
    queue_status = WaitingAnswer(many=True)


class SchedulerAnswer(serializers.Serializer[Any]):
    is_paused = _Flag()


class QueueLengths(serializers.Serializer[Any]):
    PENDING = _Whole()
    QUEUED = _Whole()
    RUNNING = _Whole()


class Demand(serializers.Serializer[Any]):
    """What an autoscaler needs to know."""

    cluster_resources = ResourcesAnswer(help_text="what the nodes that are online have")
    queue_lengths = QueueLengths()
    queued_resources = ResourcesAnswer(help_text="what those that wait need together")
    total_resources = ResourcesAnswer(help_text="what those that wait or run need together")


class VersionAnswer(serializers.Serializer[Any]):
    version = _Text()


class HealthAnswer(serializers.Serializer[Any]):
    status = _Text()


class ReadyAnswer(serializers.Serializer[Any]):
    """Each part is "ok", "not configured", or says what is wrong with it."""

    database = _Text()
    broker = _Text()
    scheduler = _Text()
