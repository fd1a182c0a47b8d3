"""Bad inputs fail their own jobs: others of the same job type do not wait for them."""

from collections.abc import Iterator

import pytest
from fake_gateway import Declined, Listed, Revived
from scheduled import THREE_PHASES, Bench, bench, make_type, submit

from scale.core.cluster import TaskState
from scale.job.models import JobExecution, JobType

pytestmark = pytest.mark.django_db


@pytest.fixture
def scheduler(db: None) -> Iterator[Bench]:
    with bench() as made:
        yield made
        for kind in (Listed, Revived, Declined):
            made.gateway.take(kind)


def launched(scheduler: Bench, execution: JobExecution) -> str:
    """Return the task of what starts on a machine with room, beside clean-ups of the others."""
    scheduler.offer()
    scheduler.round(hint=True)
    tasks = [task.task_id for task in scheduler.launched()]
    [ours] = [task_id for task_id in tasks if task_id.startswith(str(execution.uuid))]
    return ours


@pytest.mark.parametrize(("code", "error"), [(10, "pull"), (11, "missing-file")])
def test_jobs_beside_one_with_a_bad_input_start_at_once(
    scheduler: Bench, code: int, error: str
) -> None:
    job_type = make_type(THREE_PHASES, max_tries=1)
    for _ in range(4):
        bad = submit(job_type)
        told = f"Command exited with status {code}"
        scheduler.tell(launched(scheduler, bad), TaskState.FAILED, message=told)
        bad.refresh_from_db()
        assert bad.error is not None
        assert bad.error.name == error
    assert JobType.objects.get(pk=job_type.pk).launch_failures == 0
    assert launched(scheduler, submit(job_type))
