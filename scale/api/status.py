"""/status/, /scheduler/queued-resources/ and /metrics: the whole, for people and machines."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from django.http import HttpResponse
from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, shapes
from scale.api.base import View, no_parameters
from scale.api.schema import operation
from scale.core.resources import Resources
from scale.job.bulk_actions import unfinished_actions
from scale.scheduler.overview import (
    Overview,
    demand,
    ended_since,
    fleet,
    left_of,
    live_states,
    overview,
    owed,
)

#: What jobs ended with is counted for this long.
_RECENT: Final = timedelta(minutes=5)


class Status(View):
    """The scheduler, the cluster and the queue."""

    @operation(
        "read_status",
        "Read how everything is; 503 if no scheduler has shown a sign of life for 12 s",
        {200: answers.StatusAnswer, 503: answers.StatusAnswer},
        tag="status",
    )
    def get(self, request: Request) -> Response:
        no_parameters(request)
        now = timezone.now()
        found = overview(now=now)
        answer = Response({"timestamp": now, **_status(found)}, 200 if found.is_alive else 503)
        # Django would log each 503 as an error; whoever asks knows what it means.
        answer._has_been_logged = True  # type: ignore[attr-defined]  # as log_response does
        return answer


def _status(found: Overview) -> dict[str, Any]:
    state = found.scheduler
    master = state.master if state else ""
    hostname, _, port = master.rpartition(":")
    return {
        "master": {
            "is_online": found.is_alive and state is not None and state.is_connected,
            "hostname": hostname or None,
            "port": int(port) if port.isdecimal() else None,
        },
        "scheduler": {
            "is_online": found.is_alive,
            "is_paused": state is not None and state.is_paused,
            "hostname": (state.leader if state else "") or None,
            "heartbeat": state.heartbeat if state else None,
            "framework_id": (state.framework_id if state else "") or None,
        },
        "queue_depth": found.depth.count,
        "is_queue_depth_estimated": found.depth.is_estimate,
        "nodes": {
            **found.fleet.states,
            "troubles": [asdict(each) for each in found.fleet.troubles],
        },
        "resources": {
            "total": _amounts(found.fleet.total),
            "scheduled": _amounts(found.used),
            "used": _amounts(found.used),
            "free": _amounts(left_of(found.fleet.total, found.used)),
        },
    }


def _amounts(of: Resources) -> dict[str, Any] | None:
    return shapes.resources(of.millicpus, of.mem_mib, of.disk_mib)


class QueuedResources(View):
    """What the work at hand needs, for whoever adds and removes nodes."""

    @operation(
        "read_queued_resources",
        "Read what waits and runs needs",
        answers.QueuedResources,
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
    """What PostgreSQL knows; the same from whichever web process is asked."""

    def describe(self) -> list[Metric]:
        """Name nothing before it is asked for: registering must not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        now = timezone.now()
        found = overview(now=now)
        state = found.scheduler
        silent = (now - state.heartbeat).total_seconds() if state and state.heartbeat else None
        yield _gauge("scheduler_up", "Whether a scheduler leads.", found.is_alive)
        yield _gauge(
            "scheduler_connected",
            "Whether it is connected to Mesos.",
            found.is_alive and state is not None and state.is_connected,
        )
        yield _gauge("scheduler_paused", "Whether it is paused.", bool(state and state.is_paused))
        if silent is not None:
            yield _gauge("scheduler_silent_seconds", "Since its last sign of life.", silent)
        yield _gauge("leaders", "How many leaders there were.", state.epoch if state else 0)
        yield _gauge("queue_depth", "Executions that wait.", found.depth.count)
        yield _each("executions", "Executions on nodes.", "state", live_states())
        yield _each("nodes", "Nodes.", "state", found.fleet.states)
        yield from _resources("resources_total", "What the nodes have.", found.fleet.total)
        yield from _resources("resources_used", "What tasks were placed by.", found.used)
        yield _each("owed", "Ended executions that something is owed to.", "what", owed())
        yield _gauge("bulk_actions", "Those not worked off.", len(unfinished_actions()))
        jobs = GaugeMetricFamily(
            "scale_jobs_ended_5m",
            "Jobs that ended within the last five minutes.",
            labels=["status", "category"],
        )
        for status, category, count in ended_since(now - _RECENT):
            jobs.add_metric([status, category], count)
        yield jobs


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"scale_{name}", about, value=float(value))


def _each(name: str, about: str, label: str, amounts: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"scale_{name}", about, labels=[label])
    for key, amount in sorted(amounts.items()):
        family.add_metric([key], amount)
    return family


def _resources(name: str, about: str, amounts: Resources) -> Iterator[Metric]:
    family = GaugeMetricFamily(f"scale_{name}", f"{about} Cores and MiB.", labels=["kind"])
    family.add_metric(["cpus"], amounts.millicpus / 1000)
    family.add_metric(["mem"], amounts.mem_mib)
    family.add_metric(["disk"], amounts.disk_mib)
    yield family


urlpatterns = [
    path("status/", Status.as_view()),
    path("scheduler/queued-resources/", QueuedResources.as_view()),
]
#: Where Prometheus looks, and nowhere else.
metrics_urlpatterns = [path("metrics", Metrics.as_view())]
