import itertools

import pytest

from scale.core.lifecycle import STATUS, JobStatus, State
from scale.core.retry import job_status_after, should_retry


@pytest.mark.parametrize(
    ("should_be_retried", "exe_num", "max_tries", "canceled", "again"),
    [
        (True, 1, 3, False, True),
        (True, 2, 3, False, True),
        (True, 3, 3, False, False),
        (True, 4, 3, False, False),
        (True, 1, 1, False, False),
        (True, 1, 0, False, False),
        (False, 1, 3, False, False),
        (True, 1, 3, True, False),
    ],
)
def test_an_error_that_may_pass_is_tried_again_until_the_tries_are_spent(
    should_be_retried: bool, exe_num: int, max_tries: int, canceled: bool, again: bool
) -> None:
    answer = should_retry(
        should_be_retried=should_be_retried,
        exe_num=exe_num,
        max_tries=max_tries,
        canceled=canceled,
    )
    assert answer is again


@pytest.mark.parametrize("state", State)
def test_a_job_is_what_its_newest_execution_is(state: State) -> None:
    assert job_status_after(state, will_retry=False, canceled=False) == STATUS[state].value


def test_a_job_whose_failed_attempt_is_retried_waits_in_the_queue() -> None:
    assert job_status_after(State.FAILED, will_retry=True, canceled=False) is JobStatus.QUEUED


@pytest.mark.parametrize("state", sorted(set(State) - {State.FAILED}))
def test_only_a_failure_is_retried(state: State) -> None:
    plain = job_status_after(state, will_retry=False, canceled=False)
    assert job_status_after(state, will_retry=True, canceled=False) is plain


@pytest.mark.parametrize(("state", "will_retry"), list(itertools.product(State, (False, True))))
def test_a_canceled_job_stays_canceled(state: State, will_retry: bool) -> None:
    assert job_status_after(state, will_retry=will_retry, canceled=True) is JobStatus.CANCELED
