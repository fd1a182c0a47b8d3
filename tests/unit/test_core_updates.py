import itertools
import signal
from collections.abc import Iterator

import pytest

from scale.core.cluster import ALIVE, TaskState, TaskUpdate
from scale.core.lifecycle import HAS_TASK, MOVES, Event, Phase, State, next_state
from scale.core.updates import LOST, STEP_ERRORS, TIMEOUTS, LiveExecution, Verdict, judge

TASK = "6a1c.job.2"
RECONCILED = "REASON_RECONCILIATION"
CANCELED: dict[str, object] = {"stopping": True}
TIMED_OUT: dict[str, object] = {"stopping": True, "stopping_error": "timeout"}
STOPPING: dict[str, dict[str, object]] = {"no": {}, "canceled": CANCELED, "timeout": TIMED_OUT}
REASONS = [
    *(None, RECONCILED, "REASON_AGENT_REREGISTERED", "REASON_INVALID_OFFERS"),
    *("REASON_AGENT_REMOVED", "REASON_CONTAINER_LIMITATION_MEMORY", "REASON_NOT_YET_INVENTED"),
    *("REASON_CONTAINER_LAUNCH_FAILED", "REASON_MAX_COMPLETION_TIME_REACHED"),
]
MESSAGES = ["", "Command exited with status 3", "Command terminated with signal Killed", "ü\0"]
ENDS = LOST | {TaskState.FINISHED, TaskState.FAILED, TaskState.KILLED, TaskState.ERROR}


def live(state: State = State.RUNNING, phase: Phase = Phase.JOB, **rest: object) -> LiveExecution:
    given: dict[str, object] = {"first_phase": Phase.PRE, "last_phase": Phase.POST} | rest
    return LiveExecution(state, phase, task_id=TASK, **given)  # type: ignore[arg-type]


def said(
    state: TaskState, message: str = "", reason: str | None = None, *, uuid: str | None = "u"
) -> TaskUpdate:
    return TaskUpdate(TASK, state, message=message, reason=reason, uuid=uuid)


def everything() -> Iterator[tuple[LiveExecution, TaskUpdate]]:
    """Yield every execution with every update, as far as they can differ."""
    spans = [(Phase.PRE, Phase.POST), (Phase.JOB, Phase.JOB)]
    executions = [
        live(state, phase, first_phase=first, last_phase=last, uses_docker=docker, **stopping)
        for state, phase, stopping, docker in itertools.product(
            State, Phase, STOPPING.values(), (False, True)
        )
        for first, last in spans
        if first is Phase.PRE or phase is Phase.JOB
    ]
    updates = [
        TaskUpdate(task_id, state, message=message, reason=reason, uuid=uuid)
        for task_id, state, message, reason, uuid in itertools.product(
            (TASK, "another"), TaskState, MESSAGES, REASONS, (None, "u")
        )
    ]
    return itertools.product(executions, updates)


def complaint(execution: LiveExecution, update: TaskUpdate, verdict: Verdict) -> str | None:
    """Say what is wrong with a verdict, whatever the rules for it are."""
    current = execution.state in HAS_TASK and update.task_id == execution.task_id
    if verdict.kill != (not current and update.state in ALIVE):
        return "strays that live, and only those, are killed"
    if not current and verdict.event:
        return "only the current task moves the execution"
    if verdict.event and (execution.state, verdict.event) not in MOVES:
        return "an illegal move"
    if (verdict.event is Event.FAIL) != (verdict.error is not None):
        return "a failure has an error, nothing else has"
    if verdict.event is Event.CANCEL and (
        not execution.stopping or execution.stopping_error or update.state not in ENDS
    ):
        return "canceled without its being asked for, or without its end"
    if verdict.unreachable != (current and update.state is TaskState.UNREACHABLE):
        return "unreachable is what the cluster calls so"
    return complaint_about_bounce(execution, verdict)


def complaint_about_bounce(execution: LiveExecution, verdict: Verdict) -> str | None:
    if verdict.event not in (Event.BOUNCE, Event.BOUNCE_TO_HOLD):
        return None
    if execution.stopping or execution.state is not State.STARTING:
        return "what runs, or must end, does not go back to wait"
    if (verdict.event is Event.BOUNCE) != (execution.phase is execution.first_phase):
        return "a bounce leads to where the execution came from"
    return None


def test_every_update_gives_a_legal_move_or_none_and_strays_that_live_are_killed() -> None:
    count = 0
    for execution, update in everything():
        wrong = complaint(execution, update, judge(execution, update))
        assert wrong is None, (wrong, execution, update)
        count += 1
    assert count > 300_000


def test_the_second_of_two_equal_updates_changes_nothing() -> None:
    updates = [said(state, reason=reason) for state in TaskState for reason in REASONS]
    for before, phase, update in itertools.product(HAS_TASK, Phase, updates):
        event = judge(live(before, phase), update).event
        if event:
            again = judge(live(next_state(before, event), phase), update)
            assert again.event is None, (before, phase, update)


@pytest.mark.parametrize("state", sorted(set(State) - HAS_TASK))
@pytest.mark.parametrize("told", list(TaskState))
def test_an_execution_without_a_task_is_moved_by_no_update(state: State, told: TaskState) -> None:
    assert judge(live(state), said(told)) == Verdict(kill=told in ALIVE)


def test_a_late_update_of_an_earlier_launch_changes_nothing() -> None:
    update = TaskUpdate("6a1c.job.1", TaskState.FAILED)
    assert judge(live(), update) == Verdict()


@pytest.mark.parametrize(
    ("state", "told", "event"),
    [
        (State.STARTING, TaskState.STAGING, None),
        (State.STARTING, TaskState.STARTING, None),
        (State.STARTING, TaskState.RUNNING, Event.START),
        (State.STARTING, TaskState.KILLING, None),
        (State.RUNNING, TaskState.STAGING, None),
        (State.RUNNING, TaskState.STARTING, None),
        (State.RUNNING, TaskState.RUNNING, None),
        (State.RUNNING, TaskState.KILLING, None),
    ],
)
@pytest.mark.parametrize("stopping", STOPPING.values(), ids=STOPPING)
def test_a_task_that_lives_can_only_start(
    state: State, told: TaskState, event: Event | None, stopping: dict[str, object]
) -> None:
    assert judge(live(state, **stopping), said(told)) == Verdict(event)


@pytest.mark.parametrize("state", sorted(HAS_TASK))
@pytest.mark.parametrize("stopping", STOPPING.values(), ids=STOPPING)
def test_an_unreachable_task_may_come_back(state: State, stopping: dict[str, object]) -> None:
    update = said(TaskState.UNREACHABLE, "health check timed out")
    verdict = judge(live(state, **stopping), update)
    assert verdict == Verdict(message="health check timed out", unreachable=True)


@pytest.mark.parametrize("state", sorted(HAS_TASK))
@pytest.mark.parametrize(
    ("phase", "last", "event"),
    [
        (Phase.PRE, Phase.POST, Event.HOLD),
        (Phase.JOB, Phase.POST, Event.HOLD),
        (Phase.JOB, Phase.JOB, Event.FINISH),
        (Phase.POST, Phase.POST, Event.FINISH),
    ],
)
@pytest.mark.parametrize("stopping", [{}, TIMED_OUT])
def test_a_good_end_is_followed_by_the_next_phase_or_is_the_end_of_all(
    state: State, phase: Phase, last: Phase, event: Event, stopping: dict[str, object]
) -> None:
    update = said(TaskState.FINISHED, "Command exited with status 0")
    verdict = judge(live(state, phase, last_phase=last, **stopping), update)
    assert verdict == Verdict(event, exit_code=0, message="Command exited with status 0")


@pytest.mark.parametrize("state", sorted(HAS_TASK))
@pytest.mark.parametrize("told", sorted(ENDS))
def test_what_was_canceled_is_canceled_however_its_task_ended(
    state: State, told: TaskState
) -> None:
    verdict = judge(live(state, **CANCELED), said(told, "Command exited with status 3"))
    assert verdict.event is Event.CANCEL
    assert verdict.exit_code == (0 if told is TaskState.FINISHED else 3)


@pytest.mark.parametrize("state", sorted(HAS_TASK))
@pytest.mark.parametrize("told", sorted(ENDS - {TaskState.FINISHED}))
def test_what_was_stopped_for_a_reason_fails_for_that_reason(state: State, told: TaskState) -> None:
    update = said(told, reason=RECONCILED, uuid=None)
    verdict = judge(live(state, **TIMED_OUT), update)
    assert (verdict.event, verdict.error) == (Event.FAIL, "timeout")


BACK, LOST_NODE, NO_LAUNCH = (Event.BOUNCE, None), (Event.FAIL, "node-lost"), "task-launch"


@pytest.mark.parametrize(
    ("told", "reason", "while_starting", "while_running"),
    [
        (TaskState.DROPPED, "REASON_INVALID_OFFERS", BACK, LOST_NODE),
        (TaskState.DROPPED, "REASON_AGENT_DISCONNECTED", BACK, LOST_NODE),
        (TaskState.DROPPED, None, BACK, LOST_NODE),
        (TaskState.LOST, "REASON_INVALID_OFFERS", BACK, LOST_NODE),
        (TaskState.LOST, "REASON_AGENT_DISCONNECTED", BACK, LOST_NODE),
        (TaskState.LOST, RECONCILED, BACK, LOST_NODE),
        (TaskState.LOST, "REASON_AGENT_REMOVED", LOST_NODE, LOST_NODE),
        (TaskState.LOST, "REASON_AGENT_RESTARTED", LOST_NODE, LOST_NODE),
        (TaskState.LOST, None, LOST_NODE, LOST_NODE),
        (TaskState.GONE, RECONCILED, BACK, LOST_NODE),
        (TaskState.GONE, "REASON_CONTAINER_PREEMPTED", LOST_NODE, LOST_NODE),
        (TaskState.UNKNOWN, RECONCILED, BACK, LOST_NODE),
        (TaskState.UNKNOWN, None, LOST_NODE, LOST_NODE),
        (TaskState.GONE_BY_OPERATOR, RECONCILED, LOST_NODE, LOST_NODE),
        (TaskState.GONE_BY_OPERATOR, "REASON_AGENT_REMOVED_BY_OPERATOR", LOST_NODE, LOST_NODE),
        (TaskState.ERROR, "REASON_TASK_INVALID", (Event.FAIL, NO_LAUNCH), (Event.FAIL, NO_LAUNCH)),
    ],
)
def test_a_lost_launch_goes_back_and_a_lost_task_fails_its_node(
    told: TaskState,
    reason: str | None,
    while_starting: tuple[Event, str | None],
    while_running: tuple[Event, str | None],
) -> None:
    outcomes = {State.STARTING: while_starting, State.RUNNING: while_running}
    for state in State:
        verdict = judge(live(state, Phase.PRE), said(told, "why", reason))
        assert (verdict.event, verdict.error) == outcomes.get(state, (None, None))
        later = judge(live(state, Phase.POST), said(told, "why", reason))
        expected, error = outcomes.get(state, (None, None))
        expected = Event.BOUNCE_TO_HOLD if expected is Event.BOUNCE else expected
        assert (later.event, later.error) == (expected, error)
        assert verdict.message == ("why" if state in HAS_TASK else "")


@pytest.mark.parametrize("told", [TaskState.LOST, TaskState.GONE, TaskState.UNKNOWN])
@pytest.mark.parametrize("state", sorted(HAS_TASK))
def test_what_a_framework_that_was_ended_had_launched_is_never_taken_for_not_launched(
    told: TaskState, state: State
) -> None:
    verdict = judge(live(state, framework_ended=True), said(told, "", RECONCILED, uuid=None))
    assert (verdict.event, verdict.error) == (Event.FAIL, "scheduler-lost")


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("REASON_CONTAINER_LIMITATION_MEMORY", "memory-limit"),
        ("REASON_CONTAINER_LIMITATION_DISK", "disk-limit"),
        ("REASON_CONTAINER_LAUNCH_FAILED", "task-launch"),
        ("REASON_MAX_COMPLETION_TIME_REACHED", "timeout"),
        ("REASON_EXECUTOR_TERMINATED", "unknown"),
        ("REASON_NOT_YET_INVENTED", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_reason_of_mesos_names_the_error(reason: str | None, error: str) -> None:
    verdict = judge(live(), said(TaskState.FAILED, "Memory limit exceeded", reason))
    assert verdict == Verdict(Event.FAIL, error, None, "Memory limit exceeded")


def test_a_reason_says_more_than_an_exit_code() -> None:
    update = said(
        TaskState.FAILED, "Container exited with status 137", "REASON_CONTAINER_LIMITATION_MEMORY"
    )
    verdict = judge(live(exit_code_errors={137: "bad-data"}), update)
    assert (verdict.error, verdict.exit_code) == ("memory-limit", 137)


@pytest.mark.parametrize("phase", Phase)
def test_each_phase_has_its_own_time_out(phase: Phase) -> None:
    update = said(TaskState.FAILED, reason="REASON_MAX_COMPLETION_TIME_REACHED")
    assert judge(live(phase=phase), update).error == TIMEOUTS[phase]
    assert TIMEOUTS == {"pre": "pre-timeout", "job": "timeout", "post": "post-timeout"}


@pytest.mark.parametrize(
    ("phase", "docker", "error"),
    [
        (Phase.JOB, False, "task-launch"),
        (Phase.JOB, True, "docker-task-launch"),
        (Phase.PRE, True, "task-launch"),
    ],
)
def test_a_task_that_never_started_could_not_be_launched(
    phase: Phase, docker: bool, error: str
) -> None:
    for update in (
        said(TaskState.FAILED, "Executor did not register", "REASON_EXECUTOR_REGISTRATION_TIMEOUT"),
        said(TaskState.FAILED, "no such image", "REASON_CONTAINER_LAUNCH_FAILED"),
        said(TaskState.FAILED),
    ):
        assert judge(live(State.STARTING, phase, uses_docker=docker), update).error == error


def test_a_task_that_ended_before_it_was_seen_running_has_its_exit_code() -> None:
    update = said(TaskState.FAILED, "Command exited with status 3")
    verdict = judge(live(State.STARTING, exit_code_errors={3: "bad-data"}), update)
    assert (verdict.error, verdict.exit_code) == ("bad-data", 3)


@pytest.mark.parametrize(
    ("code", "error"), [(3, "bad-data"), (4, "algorithm-unknown"), (0, "unknown")]
)
def test_the_exit_code_of_the_job_is_looked_up_in_its_error_mapping(code: int, error: str) -> None:
    update = said(TaskState.FAILED, f"Command exited with status {code}")
    verdict = judge(live(exit_code_errors={3: "bad-data"}), update)
    assert (verdict.error, verdict.exit_code) == (error, code)


@pytest.mark.parametrize("phase", [Phase.PRE, Phase.POST])
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (10, "pull"),
        (11, "missing-file"),
        (12, "forbidden-input"),
        (13, "filesystem-io"),
        (14, "api-unreachable"),
        (20, "missing-required-output"),
        (21, "invalid-results-manifest"),
        (22, "unexpected-multiple-outputs"),
        (1, "unknown"),
        (2, "unknown"),
        (3, "unknown"),
    ],
)
def test_the_exit_code_of_a_step_is_not_the_jobs(phase: Phase, code: int, error: str) -> None:
    update = said(TaskState.FAILED, f"Command exited with status {code}")
    verdict = judge(live(phase=phase, exit_code_errors={3: "bad-data", 10: "bad-data"}), update)
    assert (verdict.error, verdict.exit_code) == (error, code)
    assert STEP_ERRORS.get(code, "unknown") == error


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Command exited with status 3", 3),
        ("Container exited with status 255", 255),
        ("Command terminated with signal Killed", 137),
        ("Command terminated with signal Segmentation fault (core dumped)", 139),
        ("Command terminated with signal Terminated\n", 143),
        ("Command terminated with signal Trace/breakpoint trap", 133),
        ("Command terminated with signal Real-time signal 3", None),
        ("Failed to fetch all URIs for container 'x': exited with status 1", None),
        ("Command exited with status 99999999999", None),
        ("Command exited with status", None),
        ("the user said: Command exited with status 3", None),
        ("", None),
    ],
)
def test_the_exit_code_is_in_the_message(message: str, code: int | None) -> None:
    assert judge(live(), said(TaskState.FAILED, message)).exit_code == code


@pytest.mark.parametrize(
    "name",
    [
        *("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV"),
        *("USR2", "PIPE", "ALRM", "TERM", "XCPU", "XFSZ", "SYS"),
    ],
)
def test_a_signal_is_known_by_the_name_that_libc_gives_it(name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    message = f"Command terminated with signal {signal.strsignal(number)}"
    assert judge(live(), said(TaskState.FAILED, message)).exit_code == 128 + number


def test_who_was_killed_by_another_is_not_blamed_on_the_algorithm() -> None:
    message = "Command terminated with signal Terminated"
    verdict = judge(live(), said(TaskState.KILLED, message))
    assert (verdict.error, verdict.exit_code) == ("unknown", 143)
    drained = judge(live(), said(TaskState.KILLED, message, "REASON_AGENT_DRAINING"))
    assert drained.error == "node-lost"
    removed = judge(live(), said(TaskState.KILLED, "removed", "REASON_FRAMEWORK_REMOVED"))
    assert removed.error == "scheduler-lost"


@pytest.mark.parametrize("told", [TaskState.FAILED, TaskState.KILLED])
@pytest.mark.parametrize("reason", [RECONCILED, "REASON_AGENT_REREGISTERED"])
def test_that_a_task_failed_is_believed_when_its_agent_says_how(
    told: TaskState, reason: str
) -> None:
    hearsay = judge(live(), said(told, "Unknown agent reregistered", reason, uuid=None))
    assert hearsay == Verdict(message="Unknown agent reregistered")
    assert judge(live(), said(told, "Command exited with status 3", reason)).event is Event.FAIL


def test_that_a_task_finished_is_believed_at_once() -> None:
    update = said(
        TaskState.FINISHED, "Unknown agent reregistered", "REASON_AGENT_REREGISTERED", uuid=None
    )
    assert judge(live(), update).event is Event.HOLD


def test_a_failure_without_words_is_told_by_its_reason_or_state() -> None:
    assert judge(live(), said(TaskState.LOST)).message == "TASK_LOST"
    assert judge(live(), said(TaskState.LOST, reason="REASON_X")).message == "REASON_X"
