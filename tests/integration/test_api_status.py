"""/status/, /scheduler/queued-resources/ and /metrics say what is so."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from scale.core.lifecycle import State
from scale.core.resources import Resources
from scale.job.models import JobExecution, JobType
from scale.node.models import Node
from scale.scheduler import overview
from scale.scheduler.figures import Figures
from scale.scheduler.models import SchedulerState

BEGAN = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def leading(db: None) -> None:
    SchedulerState.objects.update(
        heartbeat=timezone.now(),
        is_connected=True,
        leader="here:1",
        master="10.0.0.1:5050",
        framework_id="f-1",
        epoch=4,
        figures=figures(),
    )


def figures() -> dict[str, Any]:
    """Return what a leader stored that has led for a minute."""
    made = Figures(began=BEGAN, now_s=0)
    made.count("launches", 7, now_s=30)
    made.count("offers", 2, now_s=30)
    made.count("failed", 1, now_s=30)
    made.waited([0.75, 100])
    made.round_took(0.25, now_s=30)
    return made.document(offered=Resources(500, 1024, 1), used=Resources(500, 100, 10), now_s=70)


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
    assert found["scheduler"]["epoch"] == 4
    assert found["scheduler"]["leading_since"] == "2026-03-04T12:00:00.000Z"
    assert found["mesos"] == {
        "is_connected": True,
        "master": "10.0.0.1:5050",
        "framework_id": "f-1",
        "trouble": None,
    }
    assert found["queue_depth"] == 2
    assert found["rates"]["launches"] == pytest.approx(7 / 60, abs=0.001)
    assert found["rates"]["updates"] == 0
    assert found["round_seconds"] == {"p50": 0.25, "max": 0.25}
    troubles = found["nodes"].pop("troubles")
    assert found["nodes"] == {"ready": 1, "paused": 1, "degraded": 1, "offline": 1, "inactive": 1}
    assert [(each["id"], each["state"], each["reason"]) for each in troubles] == [
        (paused.pk, "paused", "a new disk"),
        (lost.pk, "offline", "the cluster does not have it"),
        (broken.pk, "degraded", "too many jobs failed there"),
    ]
    assert found["resources"]["total"] == {"cpus": 24.0, "mem": 48000.0, "disk": 300_000.0}
    assert found["resources"]["offered"] == {"cpus": 0.5, "mem": 1024.0, "disk": 1.0}
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
    assert answer["Retry-After"] == "1"
    assert answer.json()["scheduler"]["is_online"] is False
    assert answer.json()["master"]["is_online"] is False
    assert answer.json()["scheduler"]["leading_since"] is None
    assert answer.json()["rates"] is None, "nobody measures"
    assert answer.json()["resources"]["offered"] is None


def test_a_scheduler_that_is_not_connected_is_online_all_the_same(
    leading: None, api: APIClient
) -> None:
    SchedulerState.objects.update(is_connected=False, trouble="403: not you")
    answer = api.get("/status/")
    assert answer.status_code == 200
    assert answer.json()["mesos"]["trouble"] == "403: not you"
    assert answer.json()["master"]["is_online"] is False


def test_a_scheduler_without_a_row_is_offline(api: APIClient, db: None) -> None:
    SchedulerState.objects.all().delete()
    answer = api.get("/status/")
    assert answer.status_code == 503
    assert answer.json()["master"] == {"is_online": False, "hostname": None, "port": None}
    assert answer.json()["scheduler"]["epoch"] == 0


def test_what_is_queued_and_what_it_needs(
    work: Node, api: APIClient, django_assert_num_queries: Callable[..., Any]
) -> None:
    with django_assert_num_queries(6):
        found = api.get("/scheduler/queued-resources/").json()
    assert found == {
        "cluster_resources": {"cpus": 8.0, "mem": 16000.0, "disk": 100_000.0},
        "queue_lengths": {"PENDING": 0, "QUEUED": 2, "RUNNING": 1},
        "queued_resources": {"cpus": 1.0, "mem": 200.0, "disk": 20.0},
        "total_resources": {"cpus": 1.5, "mem": 300.0, "disk": 30.0},
    }


def test_of_job_types_with_several_shapes_each_execution_is_counted(
    make_job_type: Callable[..., JobType],
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    plain, mixed = make_job_type(cpus_required=1), make_job_type(cpus_required=2)
    for _ in range(3):
        make_execution(job_type=plain)
        make_execution(job_type=mixed)
    JobType.objects.filter(pk=mixed.pk).update(cpus_required=0.5)
    mixed.refresh_from_db()
    make_execution(job_type=mixed)
    with django_assert_num_queries(7):
        found = api.get("/scheduler/queued-resources/").json()
    assert found["queued_resources"]["cpus"] == 3 + 6 + 0.5
    monkeypatch.setattr(overview, "SHAPE_LIMIT", 3)
    assert api.get("/scheduler/queued-resources/").json() == found, "beyond the limit all are read"


def read(answer: Any) -> dict[tuple[str, ...], float]:
    """Return the samples of a text in the format of Prometheus by name and values of labels."""
    families = list(text_string_to_metric_families(answer.content.decode()))
    assert all(family.documentation for family in families)
    assert "unknown" not in {family.type for family in families}
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_reads_the_metrics(
    leading: None,
    work: Node,
    make_execution: Callable[..., JobExecution],
    api: APIClient,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    failed = make_execution(State.FAILED)
    ended = timezone.now() - timedelta(hours=1)
    JobExecution.objects.filter(pk=failed.pk).update(ended=ended)
    with django_assert_num_queries(11):
        answer = api.get("/metrics")
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = read(answer)
    assert samples["scale_scheduler_up",] == 1
    assert samples["scale_scheduler_connected",] == 1
    assert 0 <= samples["scale_scheduler_silent_seconds",] < 12
    assert samples["scale_queue_depth",] == 2
    assert samples["scale_executions", "QUEUED"] == 2
    assert samples["scale_executions", "CANCELED"] == 0
    assert samples["scale_executions_on_nodes", "running"] == 1
    assert samples["scale_nodes", "ready"] == 2
    assert samples["scale_cpus_used",] == 0.5
    assert samples["scale_memory_offered_bytes",] == 1024 * 1024 * 1024
    assert samples["scale_logs_owed",] == 2
    assert 0 <= samples["scale_log_lag_seconds",] < 60, "of the oldest execution"
    assert samples["scale_execution_errors_total", "ALGORITHM"] == 1
    assert samples["scale_execution_errors_total", "SYSTEM"] == 0
    assert samples["scale_launches_total",] == 7
    assert samples["scale_offers_total",] == 2
    assert samples["scale_executions_ended_total", "failed"] == 1
    assert samples["scale_queue_wait_seconds_bucket", "0.5"] == 0
    assert samples["scale_queue_wait_seconds_bucket", "1"] == 1
    assert samples["scale_queue_wait_seconds_bucket", "+Inf"] == 2
    assert samples["scale_queue_wait_seconds_count",] == 2
    assert samples["scale_queue_wait_seconds_sum",] == 100.75
    assert samples["scale_round_seconds_count",] == 1


def test_metrics_are_named_as_prometheus_has_it(leading: None, api: APIClient) -> None:
    families = list(text_string_to_metric_families(api.get("/metrics").content.decode()))
    assert len({family.name for family in families}) == len(families) >= 30
    for family in families:
        assert re.fullmatch(r"scale(_[a-z]+)+", family.name)
        assert family.documentation.endswith("."), family.name
        if family.type == "gauge":
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket")), family.name
        assert {"mib", "ms", "mem", "millicpus", "minutes"}.isdisjoint(family.name.split("_"))
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= {"status", "state", "category", "how", "le"}, "one unit in each metric"


def test_what_a_silent_leader_had_in_hand_is_no_metric(leading: None, api: APIClient) -> None:
    assert ("scale_cpus_offered",) in read(api.get("/metrics"))
    SchedulerState.objects.update(heartbeat=timezone.now() - timedelta(seconds=13))
    samples = read(api.get("/metrics"))
    assert not [name for name, *_ in samples if "offered" in name]
    assert samples["scale_launches_total",] == 7


def test_before_any_leader_there_are_metrics_all_the_same(db: None, api: APIClient) -> None:
    SchedulerState.objects.all().delete()
    samples = read(api.get("/metrics"))
    assert samples["scale_scheduler_up",] == samples["scale_queue_depth",] == 0
    assert samples["scale_log_lag_seconds",] == 0
    assert ("scale_launches_total",) not in samples


def test_the_metrics_are_for_who_may_read(db: None, api: APIClient) -> None:
    assert APIClient().get("/metrics").status_code == 401
    assert APIClient().get("/status/").status_code == 401
    with override_settings(SCALE_ANONYMOUS_READ=True):
        assert APIClient().get("/metrics").status_code == 200
    assert api.get("/metrics?foo=1").json()["field"] == "foo"
