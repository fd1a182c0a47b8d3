"""/status/, /scheduler/queued-resources/ and /metrics say what is so."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.job.models import JobExecution, JobType
from scale.node.models import Node
from scale.scheduler import overview
from scale.scheduler.models import SchedulerState


@pytest.fixture
def leading(db: None) -> None:
    SchedulerState.objects.update(
        heartbeat=timezone.now(),
        is_connected=True,
        leader="here:1",
        master="10.0.0.1:5050",
        framework_id="f-1",
    )


@pytest.fixture
def work(
    make_job_type: Callable[..., JobType],
    make_node: Callable[..., Node],
    make_execution: Callable[..., JobExecution],
) -> Node:
    """A node of 8 cores with one task of half a core; two more executions wait."""
    job_type = make_job_type(cpus_required=0.5, mem_required=100, disk_out_const_required=10)
    node = make_node()
    make_execution(State.RUNNING, job_type=job_type, node=node)
    make_execution(State.QUEUED, job_type=job_type)
    make_execution(State.QUEUED, job_type=job_type)
    make_execution(State.COMPLETED, job_type=job_type, node=node)
    return node


def test_the_status_shows_the_scheduler_the_cluster_and_the_queue(
    leading: None,
    work: Node,
    make_node: Callable[..., Node],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    paused = make_node(is_paused=True, pause_reason="a new disk")
    lost = make_node(is_online=False)
    make_node(is_active=False, archived=timezone.now())
    broken = make_node(is_paused_errors=True)
    with django_assert_num_queries(4):
        answer = api.get("/status/")
    assert answer.status_code == 200
    found = answer.json()
    assert found["master"] == {"is_online": True, "hostname": "10.0.0.1", "port": 5050}
    assert found["scheduler"]["is_online"] is True
    assert found["scheduler"]["hostname"] == "here:1"
    assert (found["queue_depth"], found["is_queue_depth_estimated"]) == (2, False)
    troubles = found["nodes"].pop("troubles")
    assert found["nodes"] == {"ready": 1, "paused": 1, "degraded": 1, "offline": 1, "inactive": 1}
    assert [(each["id"], each["state"], each["reason"]) for each in troubles] == [
        (paused.pk, "paused", "a new disk"),
        (lost.pk, "offline", "the cluster does not have it"),
        (broken.pk, "degraded", "too many errors"),
    ]
    assert found["resources"]["total"] == {"cpus": 24.0, "mem": 48000.0, "disk": 300_000.0}
    assert found["resources"]["used"] == {"cpus": 0.5, "mem": 100.0, "disk": 10.0}
    assert found["resources"]["free"] == {"cpus": 23.5, "mem": 47900.0, "disk": 299_990.0}


@pytest.mark.parametrize("silent_s", [13, None])
def test_a_silent_scheduler_is_503_and_its_master_not_online(
    silent_s: int | None, leading: None, api: APIClient
) -> None:
    at = None if silent_s is None else timezone.now() - timedelta(seconds=silent_s)
    SchedulerState.objects.update(heartbeat=at)
    answer = api.get("/status/")
    assert answer.status_code == 503
    assert answer.json()["scheduler"]["is_online"] is False
    assert answer.json()["master"]["is_online"] is False


def test_a_scheduler_that_is_not_connected_is_online_all_the_same(
    leading: None, api: APIClient
) -> None:
    SchedulerState.objects.update(is_connected=False)
    answer = api.get("/status/")
    assert answer.status_code == 200
    assert answer.json()["master"]["is_online"] is False


def test_a_scheduler_without_a_row_is_offline(api: APIClient, db: None) -> None:
    SchedulerState.objects.all().delete()
    answer = api.get("/status/")
    assert answer.status_code == 503
    assert answer.json()["master"] == {"is_online": False, "hostname": None, "port": None}


def test_a_long_queue_is_estimated_by_its_index(
    work: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "EXACT_DEPTH", 1)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE job_execution")
    found = overview.queue_depth()
    assert (found.count, found.is_estimate) == (2, True)


def test_what_is_queued_and_what_it_needs(
    work: Node, api: APIClient, django_assert_num_queries: Callable[..., Any]
) -> None:
    with django_assert_num_queries(4):
        found = api.get("/scheduler/queued-resources/").json()
    assert found == {
        "cluster_resources": {"cpus": 8.0, "mem": 16000.0, "disk": 100_000.0},
        "queue_lengths": {"PENDING": 0, "QUEUED": 2, "RUNNING": 1},
        "queued_resources": {"cpus": 1.0, "mem": 200.0, "disk": 20.0},
        "total_resources": {"cpus": 1.5, "mem": 300.0, "disk": 30.0},
    }


def test_prometheus_reads_the_metrics(
    leading: None,
    work: Node,
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    make_execution(State.FAILED)
    with django_assert_num_queries(9):
        answer = api.get("/metrics")
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }
    assert samples["scale_scheduler_up",] == 1
    assert samples["scale_scheduler_connected",] == 1
    assert 0 <= samples["scale_scheduler_silent_seconds",] < 12
    assert samples["scale_queue_depth",] == 2
    assert samples["scale_executions", "running"] == 1
    assert samples["scale_nodes", "ready"] == 2
    assert samples["scale_resources_used", "cpus"] == 0.5
    assert samples["scale_owed", "logs"] == 2
    assert samples["scale_jobs_ended_5m", "ALGORITHM", "FAILED"] == 1
    assert samples["scale_jobs_ended_5m", "", "COMPLETED"] == 1


def test_the_metrics_are_for_who_may_read(db: None, api: APIClient) -> None:
    assert APIClient().get("/metrics").status_code == 401
    assert APIClient().get("/status/").status_code == 401
    with override_settings(SCALE_ANONYMOUS_READ=True):
        assert APIClient().get("/metrics").status_code == 200
    assert api.get("/metrics?foo=1").json()["field"] == "foo"
    assert api.get("/v3/metrics").status_code == 404
