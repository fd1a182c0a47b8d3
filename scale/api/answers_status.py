"""What /status/ looks like, for the schema only."""

from typing import Any

from rest_framework import serializers

from scale.api.answers import ResourcesAnswer
from scale.api.fields import Choice

_Text = serializers.CharField
_Whole = serializers.IntegerField
_Number = serializers.FloatField
_Flag = serializers.BooleanField
_When = serializers.DateTimeField


class MasterAnswer(serializers.Serializer[Any]):
    is_online = _Flag()
    hostname = _Text(allow_null=True)
    port = _Whole(allow_null=True)


class SchedulerStatus(serializers.Serializer[Any]):
    is_online = _Flag()
    is_paused = _Flag()
    hostname = _Text(allow_null=True, help_text="the leader; standbys are not known")
    heartbeat = _When(allow_null=True)
    epoch = _Whole(help_text="how many leaders there were")
    leading_since = _When(allow_null=True)


class MesosStatus(serializers.Serializer[Any]):
    is_connected = _Flag()
    master = _Text(allow_null=True)
    framework_id = _Text(allow_null=True)
    trouble = _Text(allow_null=True, help_text="why Mesos does not take the scheduler in")


class RatesAnswer(serializers.Serializer[Any]):
    """How much of each there was in a second, over the last minute."""

    launches = _Number(help_text="tasks")
    updates = _Number()
    offers = _Number()
    kills = _Number()
    finished = _Number(help_text="executions")
    failed = _Number(help_text="executions")


class RoundTimes(serializers.Serializer[Any]):
    """Seconds that the scheduler's rounds of the last minute took; null without any."""

    p50 = _Number(allow_null=True)
    max = _Number(allow_null=True)


class NodeTrouble(serializers.Serializer[Any]):
    id = _Whole()
    hostname = _Text()
    state = Choice("NodeTroubleState", ["paused", "degraded", "offline"])
    reason = _Text()


class NodesSummary(serializers.Serializer[Any]):
    ready = _Whole()
    paused = _Whole()
    degraded = _Whole(help_text="paused because too much failed there")
    offline = _Whole()
    inactive = _Whole()
    troubles = NodeTrouble(many=True, help_text="up to 100 that take nothing new")


class ClusterResources(serializers.Serializer[Any]):
    total = ResourcesAnswer()
    offered = ResourcesAnswer(
        allow_null=True, help_text="of the offers in the scheduler's hand at its last heartbeat"
    )
    scheduled = ResourcesAnswer()
    used = ResourcesAnswer(help_text="the same as scheduled")
    free = ResourcesAnswer()


class StatusAnswer(serializers.Serializer[Any]):
    timestamp = _When()
    master = MasterAnswer()
    scheduler = SchedulerStatus()
    mesos = MesosStatus()
    queue_depth = _Whole()
    nodes = NodesSummary()
    resources = ClusterResources()
    rates = RatesAnswer(allow_null=True, help_text="null while no scheduler is at work")
    round_seconds = RoundTimes(allow_null=True, help_text="null while no scheduler is at work")
