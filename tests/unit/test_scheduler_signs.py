"""What an ending says of the job type and the node, and when database work is repeated."""

import psycopg2
import pytest
from django.db import IntegrityError, InterfaceError, OperationalError, ProgrammingError

from scale.core.lifecycle import Event, Phase
from scale.scheduler.patience import TRIES, Patience, Trouble, trouble
from scale.scheduler.signs import Ending, Sign, sign_of_node, sign_of_type

SYSTEM = {"task-launch", "launch-timeout", "node-lost", "unknown", "filesystem-io"}
SYSTEM |= {"pull", "missing-file", "api-unreachable"}
WORKS, BROKEN = Sign.WORKS, Sign.BROKEN


@pytest.mark.parametrize(
    ("event", "phase", "error", "exit_code", "of_type", "of_node"),
    [
        (Event.START, Phase.JOB, None, None, WORKS, None),
        (Event.START, Phase.PRE, None, None, None, None),
        (Event.HOLD, Phase.PRE, None, 0, None, WORKS),
        (Event.HOLD, Phase.JOB, None, 0, WORKS, WORKS),
        (Event.FINISH, Phase.JOB, None, 0, WORKS, WORKS),
        (Event.FINISH, Phase.POST, None, 0, None, WORKS),
        (Event.CANCEL, Phase.JOB, None, 143, None, None),
        (Event.FAIL, Phase.JOB, "task-launch", None, BROKEN, BROKEN),
        (Event.FAIL, Phase.POST, "launch-timeout", None, BROKEN, BROKEN),
        (Event.FAIL, Phase.JOB, "algorithm-unknown", 1, WORKS, WORKS),
        (Event.FAIL, Phase.JOB, "timeout", None, None, WORKS),
        (Event.FAIL, Phase.JOB, "unknown", None, None, BROKEN),
        (Event.FAIL, Phase.JOB, "unknown", 137, WORKS, None),
        (Event.FAIL, Phase.PRE, "filesystem-io", 13, BROKEN, BROKEN),
        (Event.FAIL, Phase.PRE, "pull", 10, None, None),
        (Event.FAIL, Phase.PRE, "missing-file", 11, None, None),
        (Event.FAIL, Phase.PRE, "api-unreachable", 14, BROKEN, None),
        (Event.FAIL, Phase.PRE, "node-lost", None, None, None),
        (Event.FAIL, Phase.JOB, "node-lost", None, None, None),
    ],
)
def test_each_ending_says_what_it_says(
    event: Event,
    phase: Phase,
    error: str | None,
    exit_code: int | None,
    of_type: Sign | None,
    of_node: Sign | None,
) -> None:
    ending = Ending(
        job_id=1,
        job_type_id=1,
        node_id=1,
        event=event,
        phase=phase,
        uses_docker=False,
        launches=1,
        exit_code=exit_code,
        error=error,
    )
    assert sign_of_type(ending, SYSTEM) is of_type
    assert sign_of_node(ending, SYSTEM) is of_node


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg2.OperationalError("no route"), Trouble.AWAY),
        (psycopg2.InterfaceError("connection already closed"), Trouble.AWAY),
        (psycopg2.ProgrammingError("no results to fetch"), Trouble.FAULT),
        (InterfaceError("connection already closed"), Trouble.AWAY),
        (caused(OperationalError(), psycopg2.OperationalError()), Trouble.AWAY),
        (caused(OperationalError(), psycopg2.DatabaseError("server closed")), Trouble.AWAY),
        (caused(IntegrityError(), psycopg2.IntegrityError()), Trouble.FAULT),
        (ProgrammingError("ours"), Trouble.FAULT),
    ],
)
def test_errors_without_a_code_are_judged_by_their_kind(error: Exception, kind: Trouble) -> None:
    assert trouble(error) is kind


def test_a_wait_for_the_database_grows_and_ends() -> None:
    clock, pauses = [0.0], []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    def fail() -> None:
        raise psycopg2.OperationalError("away")

    patience = Patience(pause=pause, monotonic=lambda: clock[0], away_s=10)
    with pytest.raises(psycopg2.OperationalError):
        patience.repeat(fail)
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert 10 <= clock[0] < 11
    assert patience.broke


def test_a_standby_that_waited_for_hours_has_its_whole_patience() -> None:
    clock, tries = [0.0], []

    def wait_and_fail() -> str:
        tries.append(clock[0])
        if len(tries) == 1:
            clock[0] += 7200
            raise psycopg2.OperationalError("terminated")
        return "leads"

    patience = Patience(pause=lambda _s: None, monotonic=lambda: clock[0], away_s=10)
    assert patience.repeat(wait_and_fail) == "leads"


def test_a_fault_is_not_repeated() -> None:
    tries: list[None] = []

    def fail() -> None:
        tries.append(None)
        raise ProgrammingError("ours")

    with pytest.raises(ProgrammingError):
        Patience(pause=lambda _s: None).repeat(fail)
    assert len(tries) == 1 < TRIES
