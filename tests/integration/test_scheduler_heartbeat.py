"""A leader that works shows it in time, however long a round is: else a standby would end it."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings as django_settings
from fake_gateway import Acknowledged, Killed, Launched, Listed, Reconciled
from scheduled import FRAMEWORK, Bench, bench, ended_well, make_type, submit, submit_many

from scale.core.cluster import AgentLost, Subscribed
from scale.core.errors import GatewayError
from scale.job.models import JobExecution
from scale.job.services import cancel_jobs
from scale.scheduler import loop, updates
from scale.scheduler.models import SchedulerState

pytestmark = pytest.mark.django_db
LEASE_S = django_settings.SCALE_LEASE_S
CALLS = (Acknowledged, Killed, Launched, Listed, Reconciled)


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        made.round(after_s=5)
        yield made
        for kind in CALLS:
            made.gateway.take(kind)


@pytest.fixture
def silences(scheduler: Bench) -> list[float]:
    """Collects how long no sign of life had come each time that something had taken long."""
    return []


def takes(
    scheduler: Bench, silences: list[float], seconds: float, error: str = ""
) -> Callable[[Any], None]:
    def pass_time(_what: object) -> None:
        scheduler.elapsed_s += seconds
        heartbeat = SchedulerState.objects.get().heartbeat
        assert heartbeat is not None
        silences.append((scheduler.now() - heartbeat).total_seconds())
        if error:
            raise GatewayError(error)

    return pass_time


def test_calls_that_hang_one_after_the_other_do_not_take_the_lease(
    scheduler: Bench, silences: list[float]
) -> None:
    running = scheduler.run_to(submit(), "running")
    canceled = submit()
    scheduler.run_to(canceled, "running")
    cancel_jobs([canceled.job_id], at=scheduler.now())
    hangs = takes(scheduler, silences, LEASE_S / 2, "timed out")
    scheduler.gateway.before = dict.fromkeys(CALLS, hangs)
    scheduler.gateway.say(Subscribed(FRAMEWORK, "master:5050"), AgentLost("a1"))
    scheduler.offer("a2")
    scheduler.gateway.say(*ended_well([running.task_id]))
    scheduler.round(after_s=4.9, hint=True)
    assert len(silences) == 4, "two lists of agents, the acknowledgement and the kill"
    assert max(silences) < LEASE_S


def test_many_slow_launches_and_kills_do_not_take_the_lease(
    scheduler: Bench, silences: list[float]
) -> None:
    executions = submit_many(make_type(cpus_required=8.0), 20)
    for number in range(20):
        scheduler.offer(f"a{number}")
    slow = takes(scheduler, silences, 1.0)
    scheduler.gateway.before = {Launched: slow, Killed: slow}
    scheduler.round(hint=True)
    assert len(scheduler.launched()) == 20
    cancel_jobs([each.job_id for each in executions], at=scheduler.now())
    scheduler.round(hint=True)
    assert len(set(scheduler.killed())) == 20
    assert max(silences) < LEASE_S


def test_many_updates_are_several_transactions_with_signs_of_life_between(
    scheduler: Bench, silences: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "UPDATES_AT_ONCE", 2)
    submit_many(make_type(cpus_required=0.1), 20)
    scheduler.offer()
    scheduler.round(hint=True)
    scheduler.gateway.say(*ended_well([task.task_id for task in scheduler.launched()]))
    with patch.object(updates, "fail_point", takes(scheduler, silences, 2.0)):
        scheduler.round()
    assert max(silences) < LEASE_S
    assert len(silences) == 10
    assert {row.state for row in JobExecution.objects.all()} == {"completed"}
    told = [len(call.updates) for call in scheduler.gateway.take(Acknowledged)]
    assert told == [2] * 10
