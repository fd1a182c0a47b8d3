"""Who may start where, and what is done with offers that nobody needs."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from fake_gateway import Declined, Killed, Launched, Listed, Reconciled
from pytest_django import Settings
from scheduled import (
    NOON,
    THREE_PHASES,
    Bench,
    bench,
    make_type,
    newest,
    statements,
    submit,
    submit_many,
)

from scale.core.cluster import TaskState
from scale.job.models import JobExecution, JobType
from scale.job.services import cancel_job
from scale.node.models import Node
from scale.scheduler.explaining import EVERY_S
from scale.scheduler.means import HEARTBEAT_S
from scale.scheduler.models import SchedulerState

pytestmark = pytest.mark.django_db


@pytest.fixture
def scheduler(settings: Settings, db: None) -> Iterator[Bench]:
    settings.SCALE_OFFER_HOLD_S = 5.0
    settings.SCALE_DECLINE_S = 3600.0
    with bench() as made:
        yield made


def place(scheduler: Bench, agent: str = "a1", **free: float) -> list[str]:
    """Offer a machine and do a round; return the uuids of what was launched."""
    scheduler.offer(agent, **free)  # type: ignore[arg-type]
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    return [task.task_id.partition(".")[0] for task in scheduler.launched()]


def ids(executions: list[JobExecution]) -> list[str]:
    return [str(execution.uuid) for execution in executions]


# --- who may start --------------------------------------------------------------------------------


def test_the_more_urgent_start_first_and_then_the_older(scheduler: Bench) -> None:
    job_type = make_type(cpus_required=1.0, priority=100)
    late = submit(job_type, at=NOON.replace(hour=11))
    early = submit(job_type, at=NOON.replace(hour=10))
    urgent = submit(job_type, priority=5)
    assert place(scheduler, cpus=2) == ids([urgent, early])
    assert place(scheduler, cpus=2) == ids([late])


def test_no_more_of_a_type_run_than_its_limit(scheduler: Bench) -> None:
    limited, free = make_type(max_scheduled=3), make_type()
    first = submit_many(limited, 5)
    others = submit_many(free, 2)
    assert sorted(place(scheduler)) == sorted(ids([*first[:3], *others]))
    assert place(scheduler) == []
    task_id = JobExecution.objects.get(pk=first[1].pk).task_id
    scheduler.tell(task_id, TaskState.FINISHED)
    assert [task.task_id.partition(".")[0] for task in scheduler.launched()] == ids([first[3]])


def test_what_holds_counts_for_the_limit_of_its_type_and_its_next_phase_ignores_it(
    scheduler: Bench,
) -> None:
    job_type = make_type(THREE_PHASES, max_scheduled=1)
    first, second = submit_many(job_type, 2)
    task = scheduler.launch(first)
    scheduler.tell(task.task_id, TaskState.FINISHED)
    first.refresh_from_db()
    assert first.state == "holding"
    assert place(scheduler) == ids([first])
    second.refresh_from_db()
    assert second.state == "queued"


@pytest.mark.parametrize("field", [{"is_paused": True}, {"is_active": False}])
def test_a_type_that_is_paused_or_inactive_waits_and_others_go(
    scheduler: Bench, field: dict[str, bool]
) -> None:
    paused, other = make_type(priority=1), make_type(priority=9)
    waits, goes = submit(paused), submit(other)
    JobType.objects.filter(pk=paused.pk).update(**field)
    assert place(scheduler) == ids([goes])
    JobType.objects.filter(pk=paused.pk).update(is_paused=False, is_active=True)
    assert place(scheduler) == ids([waits])


@pytest.mark.parametrize(
    "field",
    [
        {"is_paused": True},
        {"is_paused_errors": True},
        {"is_active": False, "archived": timezone.now()},
    ],
)
def test_a_node_that_is_paused_or_inactive_finishes_what_it_has_and_takes_nothing_new(
    scheduler: Bench, field: dict[str, object]
) -> None:
    running, waiting = submit_many(make_type(THREE_PHASES, max_scheduled=None), 2)
    JobExecution.objects.filter(pk=waiting.pk).update(priority=999)
    task = scheduler.launch(running) if place(scheduler, cpus=1) == [] else None
    assert task is None
    running.refresh_from_db()
    Node.objects.update(**field)
    scheduler.tell(running.task_id, TaskState.FINISHED)
    assert place(scheduler) == ids([running]), "its next phase"
    assert place(scheduler) == []
    assert place(scheduler, "a2") == ids([waiting])


def test_a_paused_scheduler_launches_next_phases_only(scheduler: Bench) -> None:
    running = submit(make_type(THREE_PHASES))
    task = scheduler.launch(running)
    waiting = submit()
    SchedulerState.objects.update(is_paused=True)
    scheduler.tell(task.task_id, TaskState.FINISHED)
    assert place(scheduler) == ids([running])
    assert place(scheduler) == []
    SchedulerState.objects.update(is_paused=False)
    assert place(scheduler) == ids([waiting])


def test_a_next_phase_goes_only_to_its_own_node_and_before_new_work(scheduler: Bench) -> None:
    running = submit(make_type(THREE_PHASES))
    task = scheduler.launch(running)
    scheduler.tell(task.task_id, TaskState.FINISHED)
    urgent = submit(make_type(priority=1))
    assert place(scheduler, "a2", cpus=1) == ids([urgent])
    urgent = submit(make_type(priority=1))
    assert place(scheduler, "a1", cpus=1) == ids([running])
    assert newest(urgent.job).state == "queued"


def test_a_thousand_that_fit_nowhere_do_not_hold_up_one_that_fits(scheduler: Bench) -> None:
    big = make_type(cpus_required=64.0, priority=1)
    submit_many(big, 1000)
    small = submit(make_type(cpus_required=1.0, priority=100))
    scheduler.machine("a2", cpus=1)
    assert place(scheduler, "a2", cpus=1) == ids([small])


def test_a_thousand_shapes_that_fit_nowhere_do_not_hold_up_one_that_fits(scheduler: Bench) -> None:
    big = submit_many(make_type(cpus_required=64.0, priority=1), 1100)
    for number, execution in enumerate(big):
        execution.needs_disk_mib = 100 + number
    JobExecution.objects.bulk_update(big, ["needs_disk_mib"], batch_size=1100)
    small = submit(make_type(cpus_required=1.0, priority=100))
    assert place(scheduler) == ids([small])


def test_a_round_takes_as_many_queries_however_many_it_launches(scheduler: Bench) -> None:
    def cost(count: int) -> int:
        for job_type in (make_type(cpus_required=0.1), make_type(THREE_PHASES, cpus_required=0.1)):
            submit_many(job_type, count)
        scheduler.offer(mem=100_000)
        with statements() as sent:
            scheduler.round(hint=True)
        assert len(scheduler.launched()) == 2 * count
        return sent.count

    scheduler.machine()
    place(scheduler)
    assert cost(1) == cost(25) <= 35


# --- offers that nobody needs ---------------------------------------------------------------------


def test_an_offer_is_held_for_a_moment_and_then_declined_for_long(scheduler: Bench) -> None:
    offer = scheduler.offer()
    scheduler.round()
    scheduler.gateway.take(Listed)
    pause_s = scheduler.round(after_s=EVERY_S)
    assert pause_s == pytest.approx(5 - EVERY_S)
    scheduler.round(after_s=pause_s - 0.1)
    assert scheduler.declined() == []
    scheduler.round(after_s=0.1)
    assert scheduler.gateway.take(Declined) == [Declined((offer.offer_id,), 3600.0)]


def test_work_that_comes_while_an_offer_is_held_starts_on_it(scheduler: Bench) -> None:
    scheduler.offer()
    scheduler.round()
    scheduler.gateway.take(Listed)
    execution = submit()
    scheduler.round(after_s=3, hint=True)
    assert [task.task_id for task in scheduler.launched()] == [f"{execution.uuid}.job.1"]


def declined_all(scheduler: Bench) -> None:
    scheduler.offer()
    scheduler.round()
    scheduler.gateway.take(Listed)
    scheduler.round(after_s=5)
    assert len(scheduler.declined()) == 1


def test_new_work_after_a_decline_asks_for_offers_once(scheduler: Bench) -> None:
    declined_all(scheduler)
    scheduler.round(after_s=100)
    assert scheduler.revived() == 0
    submit()
    scheduler.round(hint=True)
    assert scheduler.revived() == 1
    scheduler.round(after_s=1, hint=True)
    scheduler.round(after_s=31)
    assert scheduler.revived() == 0, "nothing was declined since"


def test_a_hint_without_work_asks_for_no_offers(scheduler: Bench) -> None:
    declined_all(scheduler)
    scheduler.round(hint=True)
    assert scheduler.revived() == 0


def test_the_last_job_that_ends_asks_for_no_offers(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(), "running")
    scheduler.offer()
    scheduler.round(after_s=5)
    scheduler.round(after_s=5)
    assert len(scheduler.declined()) == 1
    scheduler.tell(task.task_id, TaskState.FINISHED)
    assert scheduler.revived() == 0


def test_a_next_phase_asks_for_offers_after_a_decline(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(make_type(THREE_PHASES)), "running")
    declined_all(scheduler)
    scheduler.tell(task.task_id, TaskState.FINISHED)
    assert scheduler.revived() == 1


def test_a_failed_job_with_files_asks_for_an_offer_to_clean_up(scheduler: Bench) -> None:
    task = scheduler.run_to(submit(make_type(THREE_PHASES, max_tries=1)), "running")
    declined_all(scheduler)
    scheduler.tell(task.task_id, TaskState.FAILED)
    assert scheduler.revived() == 1


def test_work_that_fits_nowhere_does_not_revive_in_a_loop(scheduler: Bench) -> None:
    submit(make_type(cpus_required=500))
    scheduler.round(hint=True)
    declined_all(scheduler)
    revived = 0
    for _ in range(120):
        scheduler.round(after_s=1)
        count = scheduler.revived()
        revived += count
        if count:
            scheduler.offer()
        scheduler.declined()
    assert 2 <= revived <= 4


@pytest.mark.parametrize("why", ["paused scheduler", "paused type", "limit of the type"])
def test_what_no_offer_would_help_asks_for_none(scheduler: Bench, why: str) -> None:
    job_type = make_type(max_scheduled=1)
    scheduler.launch(submit(job_type))
    submit(job_type)
    if why != "limit of the type":
        JobType.objects.update(max_scheduled=None)
    JobType.objects.update(is_paused=why == "paused type")
    SchedulerState.objects.update(is_paused=why == "paused scheduler")
    scheduler.offer()
    scheduler.round(hint=True)
    for _ in range(40):
        scheduler.round(after_s=5)
    assert len(scheduler.declined()) == 1
    assert scheduler.revived() == 0


# --- sleep ----------------------------------------------------------------------------------------


def test_an_idle_scheduler_sleeps_until_its_next_sign_of_life(scheduler: Bench) -> None:
    assert scheduler.round() == HEARTBEAT_S
    assert scheduler.round(after_s=2) == HEARTBEAT_S - 2
    before = SchedulerState.objects.get().heartbeat
    with statements() as sent:
        assert scheduler.round(after_s=2.5) == 0.5
    assert sent.count <= 3
    assert SchedulerState.objects.get().heartbeat == before
    scheduler.round(after_s=0.5)
    assert SchedulerState.objects.get().heartbeat == scheduler.now()


def test_calls_that_take_long_do_not_silence_the_leader(scheduler: Bench) -> None:
    stopped = scheduler.run_to(submit(), "running")
    cancel_job(JobExecution.objects.get(task_id=stopped.task_id).job_id, at=scheduler.now())

    def hang(_call: object) -> None:
        scheduler.elapsed_s += 7

    ages = []
    scheduler.gateway.before[Killed] = hang
    scheduler.gateway.before[Launched] = lambda _call: ages.append(
        scheduler.now() - SchedulerState.objects.values_list("heartbeat", flat=True).get()
    )
    submit()
    scheduler.offer()
    scheduler.round(hint=True)
    assert ages == [timedelta()]
    assert len(scheduler.killed()) == len(scheduler.launched()) == 1


def test_it_wakes_for_the_next_deadline(scheduler: Bench) -> None:
    execution = submit(make_type(timeout=62))
    task = scheduler.run_to(execution, "running")
    for _ in range(12):
        scheduler.round(after_s=5)
    assert scheduler.round() == pytest.approx(2)
    scheduler.round(after_s=2)
    assert scheduler.killed() == [task.task_id]
    assert scheduler.round() > 0


def test_many_rounds_of_an_idle_cluster_are_few(scheduler: Bench) -> None:
    """Turn the clock by each pause; a loop that spins would never get to an hour."""
    scheduler.offer()
    rounds = 0
    while scheduler.elapsed_s < 3600:
        pause_s = scheduler.round()
        scheduler.elapsed_s += pause_s
        rounds += 1
        assert rounds < 3600 / HEARTBEAT_S * 1.1 + 20
    for kind in (Listed, Declined, Reconciled):
        scheduler.gateway.take(kind)
