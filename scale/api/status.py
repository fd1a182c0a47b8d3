"""/status/, /scheduler/queued-resources/ and /metrics: the whole, for people and machines."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from django.http import HttpResponse
from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, shapes
from scale.api.answers_status import StatusAnswer
from scale.api.base import View, no_parameters
from scale.api.schema import operation
from scale.core.resources import Resources
from scale.job.bulk_actions import unfinished_actions
from scale.scheduler.figures import Distribution, Measured
from scale.scheduler.models import SchedulerState
from scale.scheduler.overview import (
    Overview,
    demand,
    failures_by_category,
    fleet,
    left_of,
    overview,
    owed,
    states_on_nodes,
)

_MIB: Final = 1024 * 1024


class Status(View):
    """The scheduler, the cluster and the queue."""

    needs = {"GET": "scheduler.view_schedulerstate"}

    @operation(
        "read_status",
        "Read how everything is; 503 if no scheduler has shown a sign of life for 12 s",
        {200: StatusAnswer, 503: StatusAnswer},
        tag="status",
    )
    def get(self, request: Request) -> Response:
        no_parameters(request)
        now = timezone.now()
        found = overview(now=now)
        status, headers = (200, {}) if found.is_alive else (503, {"Retry-After": "1"})
        answer = Response({"timestamp": now, **_status(found)}, status, headers=headers)
        # Django would log each 503 as an error; whoever asks knows what it means.
        answer._has_been_logged = True  # type: ignore[attr-defined]  # as log_response does
        return answer


def _status(found: Overview) -> dict[str, Any]:
    total, measured = found.fleet.total, found.measured if found.is_alive else None
    return {
        **_leader_and_mesos(found),
        "queue_depth": found.queue_depth,
        "nodes": {
            **found.fleet.states,
            "troubles": [asdict(each) for each in found.fleet.troubles],
        },
        "resources": {
            "total": _amounts(total),
            "offered": _amounts(measured.offered) if measured else None,
            "scheduled": _amounts(found.used),
            "used": _amounts(found.used),
            "free": _amounts(left_of(total, found.used)),
        },
        "rates": measured.rates if measured else None,
        "round_seconds": {"p50": measured.round_p50_s, "max": measured.round_max_s}
        if measured
        else None,
    }


def _leader_and_mesos(found: Overview) -> dict[str, Any]:
    state = found.scheduler or SchedulerState()
    hostname, _, port = state.master.rpartition(":")
    connected = found.is_alive and state.is_connected
    return {
        "master": {
            "is_online": connected,
            "hostname": hostname or None,
            "port": int(port) if port.isdecimal() else None,
        },
        "scheduler": {
            "is_online": found.is_alive,
            "is_paused": state.is_paused,
            "hostname": state.leader or None,
            "heartbeat": state.heartbeat,
            "epoch": state.epoch,
            "leading_since": found.measured.since if found.measured and found.is_alive else None,
        },
        "mesos": {
            "is_connected": connected,
            "master": state.master or None,
            "framework_id": state.framework_id or None,
            "trouble": state.trouble or None,
        },
    }


def _amounts(of: Resources) -> dict[str, Any] | None:
    return shapes.resources(of.millicpus, of.mem_mib, of.disk_mib)


class QueuedResources(View):
    """What the work at hand needs, for whoever adds and removes nodes."""

    needs = {"GET": "scheduler.view_schedulerstate"}

    @operation(
        "read_queued_resources",
        "Read what waits and runs needs",
        answers.Demand,
        tag="scheduler",
    )
    def get(self, request: Request) -> Response:
        no_parameters(request)
        asked = demand()
        return Response(
            {
                "cluster_resources": _amounts(fleet().total),
                "queue_lengths": {
                    "PENDING": asked.pending,
                    "QUEUED": asked.queued,
                    "RUNNING": asked.running,
                },
                "queued_resources": _amounts(asked.queued_resources),
                "total_resources": _amounts(asked.queued_resources + asked.running_resources),
            }
        )


class Metrics(View):
    """The same in the text format of Prometheus."""

    needs = {"GET": "scheduler.view_schedulerstate"}

    @operation(
        "read_metrics",
        "Read the metrics, as Prometheus does",
        {(200, "text/plain"): OpenApiTypes.STR},
        tag="status",
    )
    def get(self, request: Request) -> HttpResponse:
        no_parameters(request)
        # A registry of its own: the library's shared one would add facts of this one process.
        registry = CollectorRegistry()
        registry.register(_Facts())
        return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Facts(Collector):
    """What PostgreSQL knows; the same from whichever web process is asked.

    Counters and histograms are those of the leader at its last heartbeat: another leader begins
    at nothing, which Prometheus takes for what it is.
    """

    def describe(self) -> list[Metric]:
        """Name nothing before it is asked for: registering must not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        now = timezone.now()
        found = overview(now=now)
        yield from _of_scheduler(found, now)
        if found.measured:
            yield from _of_leader(found.measured)
            if found.is_alive:
                yield from _resources("offered", "of the offers in hand", found.measured.offered)
        yield _gauge("queue_depth", "Executions that wait.", found.queue_depth)
        yield _each("executions", "Executions.", "status", found.executions)
        yield _each("executions_on_nodes", "Live executions.", "state", states_on_nodes())
        errors = failures_by_category()
        yield _counters("execution_errors", "Executions that failed.", "category", errors)
        yield _each("nodes", "Nodes.", "state", found.fleet.states)
        yield from _resources("capacity", "of the nodes that are online", found.fleet.total)
        yield from _resources("used", "that live tasks were placed by", found.used)
        left = owed()
        lag_s = (now - left.logs_since).total_seconds() if left.logs_since else 0
        yield _gauge("logs_owed", "Ended executions whose logs are not stored.", left.logs)
        yield _gauge("log_lag_seconds", "Since the oldest of those ended; 0 without any.", lag_s)
        yield _gauge("cleanups_owed", "Work folders that are to be removed.", left.cleanups)
        yield _gauge("bulk_actions", "Those not worked off.", len(unfinished_actions()))


def _of_scheduler(found: Overview, now: datetime) -> Iterator[Metric]:
    state = found.scheduler or SchedulerState()
    connected = found.is_alive and state.is_connected
    yield _gauge("scheduler_up", "Whether a scheduler leads.", found.is_alive)
    yield _gauge("scheduler_connected", "Whether it is connected to Mesos.", connected)
    yield _gauge("scheduler_paused", "Whether it is paused.", state.is_paused)
    yield _gauge("scheduler_epoch", "How many leaders there were.", state.epoch)
    if state.heartbeat:
        silent_s = (now - state.heartbeat).total_seconds()
        yield _gauge("scheduler_silent_seconds", "Since its last sign of life.", silent_s)


def _of_leader(measured: Measured) -> Iterator[Metric]:
    counts = measured.counts
    for what, about in (
        ("launches", "Tasks that were launched."),
        ("updates", "Status updates that arrived."),
        ("offers", "Offers that arrived."),
        ("kills", "Kills that were sent."),
    ):
        yield CounterMetricFamily(f"scale_{what}", about, value=counts[what])
    ended = {"finished": counts["finished"], "failed": counts["failed"]}
    yield _counters("executions_ended", "Executions that ran and ended.", "how", ended)
    yield _histogram("queue_wait", "From queued to launched.", measured.waits)
    yield _histogram("round", "What rounds of the scheduler took.", measured.rounds)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"scale_{name}", about, value=float(value))


def _each(name: str, about: str, label: str, amounts: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"scale_{name}", about, labels=[label])
    for key, amount in sorted(amounts.items()):
        family.add_metric([key], amount)
    return family


def _counters(name: str, about: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"scale_{name}", about, labels=[label])
    for key, count in sorted(counts.items()):
        family.add_metric([key], count)
    return family


def _resources(what: str, about: str, of: Resources) -> Iterator[Metric]:
    """Make a metric of each kind: units do not mix in one, and are cores and bytes."""
    yield _gauge(f"cpus_{what}", f"Cores {about}.", of.millicpus / 1000)
    yield _gauge(f"memory_{what}_bytes", f"Memory {about}.", of.mem_mib * _MIB)
    yield _gauge(f"disk_{what}_bytes", f"Disk {about}.", of.disk_mib * _MIB)


def _histogram(name: str, about: str, seen: Distribution) -> Metric:
    buckets = [("+Inf" if bound is None else str(bound), count) for bound, count in seen.buckets]
    return HistogramMetricFamily(f"scale_{name}_seconds", about, buckets, sum_value=seen.sum)


urlpatterns = [
    path("status/", Status.as_view()),
    path("scheduler/queued-resources/", QueuedResources.as_view()),
]
#: Where Prometheus looks, and nowhere else.
metrics_urlpatterns = [path("metrics", Metrics.as_view())]
