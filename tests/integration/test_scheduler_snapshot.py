"""What placement is told, compared with what a plain look at every row says."""

from collections import Counter
from random import Random

import pytest
from django.db import connection
from fake_gateway import Listed
from scheduled import NOON, THREE_PHASES, Bench, bench, make_type, statements, submit, submit_many

from scale.core.cluster import Offer, TaskState
from scale.core.placement import Capacity, Shape
from scale.core.resources import Resources
from scale.job.models import JobExecution, JobType
from scale.job.services import cancel_job, needs_of
from scale.node.models import Node
from scale.scheduler.snapshot import (
    LAUNCH_LIMIT,
    Turn,
    headroom,
    heads,
    held_executions,
    snapshot,
    something_waits,
    waiting_shapes,
)

pytestmark = pytest.mark.django_db


def scatter(seed: int, count: int = 120) -> list[JobExecution]:
    """Queue executions of few shapes, with ties in priority and time; return them all."""
    random = Random(seed)
    types = [make_type() for _ in range(4)]
    executions = [each for job_type in types for each in submit_many(job_type, count // 4)]
    for execution in executions:
        execution.needs_millicpus = random.choice([1000, 2000])
        execution.needs_disk_mib = random.choice([1, 5, 9])
        execution.priority = random.choice([1, 2, 3])
        execution.queued = NOON.replace(second=random.randrange(4))
    fields = ["needs_millicpus", "needs_disk_mib", "priority", "queued"]
    JobExecution.objects.bulk_update(executions, fields)
    return executions


def shape(execution: JobExecution) -> Shape:
    return Shape(execution.job_type_id, needs_of(execution))


def urgency(execution: JobExecution) -> tuple[object, ...]:
    return execution.priority, execution.queued, execution.pk


@pytest.mark.parametrize("seed", range(4))
def test_shapes_and_heads_are_those_of_a_look_at_every_row(seed: int) -> None:
    executions = scatter(seed)
    gone = Random(seed).sample(executions, 20)
    for each in gone:
        cancel_job(each.job_id, at=NOON)
    waiting = sorted(JobExecution.objects.filter(state="queued"), key=urgency)
    assert len(waiting) == len(executions) - 20
    shapes = waiting_shapes()
    assert len(shapes) == len(set(shapes))
    assert set(shapes) == {shape(each) for each in waiting}
    wanted = {each: Random(seed).randrange(1, 5) for each in shapes}
    left = Counter(wanted)
    expected = []
    for each in waiting:
        if left[shape(each)]:
            left[shape(each)] -= 1
            expected.append((each.pk, each.priority, shape(each)))
    assert [
        (head.execution_id, head.priority, Shape(head.job_type_id, head.needs))
        for head in heads(wanted)
    ] == expected


def test_an_empty_queue_has_no_shapes_and_no_heads() -> None:
    assert waiting_shapes() == []
    assert heads({}) == []
    assert not something_waits(now=NOON)


def test_the_cost_is_that_of_the_shapes_and_not_of_the_queue() -> None:
    submit_many(make_type(), 300)
    submit_many(make_type(), 300)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE job_execution")
    with statements() as sent:
        assert len(waiting_shapes()) == 2
    assert sent.count == 1


def test_beyond_the_limit_each_look_goes_on_where_the_last_one_ended() -> None:
    for cpus in range(1, 6):
        submit(make_type(cpus_required=cpus))
    everything = waiting_shapes()
    turn = Turn()
    looks = [waiting_shapes(turn, limit=2) for _ in range(4)]
    first, second, third, fourth, fifth = everything
    assert looks == [[first, second], [third, fourth], [fifth, first], [second, third]]
    assert waiting_shapes(turn, limit=6) == [fourth, fifth, first, second, third]
    assert turn.after is None, "all were seen"


def offer(agent: str = "a1", cpus: int = 4) -> Offer:
    free = Resources(cpus * 1000, 10_000, 10_000)
    return Offer(f"o-{agent}", agent, f"host-{agent}", "127.0.0.1", 5051, free)


def test_of_each_shape_one_more_is_read_than_fits_and_one_of_what_may_not_start() -> None:
    fits, paused, limited = make_type(), make_type(), make_type(max_scheduled=2)
    JobType.objects.filter(pk=paused.pk).update(is_paused=True)
    for job_type in (fits, paused, limited):
        submit_many(job_type, 9)
    seen = snapshot([offer()], {}, waiting_shapes(), now=NOON)
    counts = Counter(each.job_type_id for each in seen.waiting)
    assert Capacity([offer()]).of(Resources(1000, 100, 10)) == 4
    assert counts == {fits.pk: 5, paused.pk: 1, limited.pk: 2}
    assert seen.headroom == {paused.pk: 0, limited.pk: 2}


def test_a_snapshot_takes_as_many_queries_however_long_the_queue_is() -> None:
    counts = []
    for _ in range(2):
        for _ in range(3):
            submit_many(make_type(max_scheduled=5), 20)
        with statements() as sent:
            snapshot([offer()], {}, waiting_shapes(), now=NOON)
        counts.append(sent.count)
    assert counts[0] == counts[1] <= 9


def test_nodes_are_told_with_their_sizes_and_those_that_take_nothing_new() -> None:
    for number, fields in enumerate(
        [
            {},
            {"is_paused": True},
            {"is_paused_errors": True},
            {"is_active": False, "archived": NOON},
            {"is_online": False},
            {"millicpus_total": None},
        ]
    ):
        Node.objects.create(
            **{
                "hostname": f"h{number}",
                "slave_id": f"s{number}",
                "port": 1,
                "address": "x",
                "millicpus_total": 1000,
                "mem_mib_total": 2000,
                "disk_mib_total": 3000,
                **fields,
            }
        )
    seen = snapshot([], {}, [], now=NOON)
    assert seen.nodes_total == {f"s{n}": Resources(1000, 2000, 3000) for n in (0, 1, 2)}
    assert seen.paused_nodes == {"s1", "s2", "s3"}


def test_headroom_counts_what_is_on_a_node_whatever_it_does() -> None:
    job_type = make_type(THREE_PHASES, max_scheduled=4)
    submit_many(job_type, 5)

    def rooms() -> dict[int, int]:
        return {pk: limit.room for pk, limit in headroom([job_type.pk], now=NOON).items()}

    with bench() as scheduler:
        assert rooms() == {job_type.pk: 4}
        start_three(scheduler)
        assert rooms() == {job_type.pk: 1}
        assert [each.agent_id for each in held_executions()] == ["a1"]
        assert something_waits(now=NOON)
        JobType.objects.update(max_scheduled=1)
        assert rooms() == {job_type.pk: 0}, "never less than none"
    assert headroom([], now=NOON) == {}


def start_three(scheduler: Bench) -> None:
    """Let three executions be on a node: one starting, one running, one holding."""
    scheduler.offer(cpus=3)
    scheduler.round(hint=True)
    scheduler.gateway.take(Listed)
    _starting, running, holding = scheduler.launched()
    scheduler.tell(running.task_id, TaskState.RUNNING)
    scheduler.tell(holding.task_id, TaskState.FINISHED)


def test_no_more_than_a_round_takes_is_read() -> None:
    assert LAUNCH_LIMIT >= 100
    job_type = make_type(cpus_required=0.001, mem_required=1, disk_out_const_required=0)
    submit_many(job_type, LAUNCH_LIMIT + 5)
    assert len(snapshot([offer()], {}, waiting_shapes(), now=NOON).waiting) == LAUNCH_LIMIT
