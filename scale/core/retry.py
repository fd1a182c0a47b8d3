"""Whether a failed attempt is tried again, and what that makes of the job."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from scale.core.lifecycle import JobStatus, State

_STATUS: Final[Mapping[State, JobStatus]] = MappingProxyType(
    {
        State.QUEUED: JobStatus.QUEUED,
        State.STARTING: JobStatus.RUNNING,
        State.RUNNING: JobStatus.RUNNING,
        State.HOLDING: JobStatus.RUNNING,
        State.COMPLETED: JobStatus.COMPLETED,
        State.FAILED: JobStatus.FAILED,
        State.CANCELED: JobStatus.CANCELED,
    }
)


def should_retry(*, should_be_retried: bool, exe_num: int, max_tries: int, canceled: bool) -> bool:
    """Say whether a failed attempt gets a successor.

    `should_be_retried` is what the catalogue says of its error. `exe_num` is the number of the
    failed attempt, from 1; a bounced launch is not an attempt. A canceled job launches nothing.
    """
    return should_be_retried and not canceled and exe_num < max_tries


def job_status_after(state: State, *, will_retry: bool, canceled: bool) -> JobStatus:
    """Return the status of a job whose newest execution is now in `state`.

    `will_retry` is what `should_retry` said and matters only to a failed one: its successor waits
    in the queue. A canceled job stays so while its last task is being killed.
    """
    if canceled:
        return JobStatus.CANCELED
    if state is State.FAILED and will_retry:
        return JobStatus.QUEUED
    return _STATUS[state]
