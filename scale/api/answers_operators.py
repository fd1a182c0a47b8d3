"""What answers about job types, nodes and measures look like, for the schema only."""

from typing import Any

from rest_framework import serializers

from scale.api.answers import (
    ErrorAnswer,
    ExecutionInNode,
    JobTypeAnswer,
    NodeAnswer,
    Reference,
    ResourcesAnswer,
    TallyAnswer,
)
from scale.api.fields import Choice
from scale.node.models import Node

_Text = serializers.CharField
_Whole = serializers.IntegerField
_Number = serializers.FloatField
_Document = serializers.DictField


def _changed(hours: int) -> TallyAnswer:
    about = f"its jobs whose status changed within {hours} hours"
    return TallyAnswer(many=True, help_text=about)


class JobTypeDetails(JobTypeAnswer):
    interface = _Document()
    error_mapping = _Document()
    environment = _Document()
    volumes = serializers.ListField(child=_Document())
    errors = ErrorAnswer(many=True)  # type: ignore[assignment] # shadows what we do not use
    trigger_rule = Reference(allow_null=True, help_text="always null: nothing fires rules here")
    job_counts_6h = _changed(6)
    job_counts_12h = _changed(12)
    job_counts_24h = _changed(24)


class AdviceAnswer(serializers.Serializer[Any]):
    id = _Text()
    details = _Text()


class ValidationAnswer(serializers.Serializer[Any]):
    warnings = AdviceAnswer(many=True)


class NodeWithHealth(NodeAnswer):
    health = Choice("NodeHealth", Node.Health, help_text="the worst that is true of it")
    health_reason = _Text(allow_null=True, help_text="null if it is READY")


class NodeStatus(serializers.Serializer[Any]):
    node = NodeWithHealth()
    is_online = serializers.BooleanField()
    job_exe_counts = TallyAnswer(many=True)
    job_exes_running = ExecutionInNode(many=True)


class NodeResources(serializers.Serializer[Any]):
    """Cores and MiB, to one decimal; what the node has comes twice, as the interface has it."""

    total = ResourcesAnswer(allow_null=True)
    scheduled = ResourcesAnswer()
    used = ResourcesAnswer(help_text="the same as scheduled")
    cpus = _Number(allow_null=True)
    mem = _Number(allow_null=True)
    disk = _Number(allow_null=True)


class NodeDetails(NodeWithHealth):
    job_exes_running = ExecutionInNode(many=True)
    resources = NodeResources(required=False)
    disconnected = serializers.BooleanField(
        required=False, help_text="only there, and true, when it is not online"
    )


class LoadAnswer(serializers.Serializer[Any]):
    """How many jobs were at hand at one time."""

    time = serializers.DateTimeField()
    pending_count = _Whole()
    queued_count = _Whole()
    running_count = _Whole()


class MetricFilter(serializers.Serializer[Any]):
    param = _Text(help_text="a field of the choices")
    type = _Text()


class MetricGroup(serializers.Serializer[Any]):
    name = _Text()
    title = _Text()
    description = _Text()


class MetricColumn(MetricGroup):
    units = Choice("MetricUnits", ["count", "seconds"])
    group = _Text()
    aggregate = Choice("MetricAggregate", ["sum", "min", "max", "avg"])


class MetricType(MetricGroup):
    filters = MetricFilter(many=True)
    groups = MetricGroup(many=True)
    columns = MetricColumn(many=True)


class MetricDetails(MetricType):
    choices = serializers.ListField(
        child=_Document(), help_text="what can be measured: job types, or errors"
    )


class PlotValue(serializers.Serializer[Any]):
    id = _Whole(required=False, help_text="of the choice; only there if several were asked for")
    date = serializers.DateField()
    value = _Number()


class PlotAnswer(serializers.Serializer[Any]):
    """One column over time; the bounds are null if there are no values."""

    column = MetricColumn()
    min_x = serializers.DateField(allow_null=True)
    max_x = serializers.DateField(allow_null=True)
    min_y = _Number(allow_null=True)
    max_y = _Number(allow_null=True)
    values = PlotValue(many=True)


class DayCount(serializers.Serializer[Any]):
    date = serializers.DateField()
    count = _Whole()


class TimelineAnswer(serializers.Serializer[Any]):
    """How many executions of a job type ended on each day; days without any are left out."""

    job_type_id = _Whole()
    name = _Text()
    version = _Text()
    title = _Text(allow_null=True)
    revision_num = _Whole()
    results = DayCount(many=True)
