"""The checks after a run of faults see what they are there for."""

from collections import Counter

import pytest
from fault_checks import LOST, Attempt, disagreements, doubled, raised
from fault_mesos import Loss

WELL = [("create", "queued"), ("launch", "starting"), ("start", "running"), ("finish", "completed")]
TRACEBACK = """\
Traceback (most recent call last):
  File "scale/scheduler/loop.py", line 7, in run
    assert self.is_well()
           ^^^^^^^^^^^^^^
"""


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        ("AssertionError\n", "AssertionError"),
        ("KeyError: 'x'\n", "KeyError"),
        ("scale.core.errors.IllegalTransition: finish\n", "scale.core.errors.IllegalTransition"),
        ("StopIteration", "StopIteration"),
    ],
)
def test_every_exception_of_a_log_is_counted_with_or_without_words(ending: str, name: str) -> None:
    log = f"started\nOSError: in passing\na round failed\n{TRACEBACK}{ending}"
    assert raised(log) == Counter([name])
    assert raised(f"{log}\n{log}") == Counter([name] * 2)


def test_of_exceptions_in_a_chain_the_last_one_counts() -> None:
    handled = f"{TRACEBACK}DoesNotExist: none\n\n"
    led_on = "During handling of the above exception, another exception occurred:\n\n"
    assert raised(f"{handled}{led_on}{TRACEBACK}KeyError\n") == Counter(["KeyError"])
    caused = "The above exception was the direct cause of the following exception:\n\n"
    assert raised(f"{handled}{caused}{TRACEBACK}KeyError\n") == Counter(["KeyError"])


def test_a_history_that_the_table_of_moves_allows_agrees() -> None:
    assert list(disagreements("completed", WELL)) == []


@pytest.mark.parametrize(
    ("state", "entries"),
    [
        ("running", WELL),
        ("completed", WELL[1:]),
        ("completed", [WELL[0], *WELL[2:]]),
        ("completed", [*WELL, ("finish", "completed")]),
        ("completed", []),
    ],
    ids=["other state", "no beginning", "a move left out", "a move after the end", "empty"],
)
def test_a_history_that_cannot_be_disagrees(state: str, entries: list[tuple[str, str]]) -> None:
    assert list(disagreements(state, entries))


@pytest.mark.parametrize("error", LOST)
def test_a_command_may_end_well_once_more_only_after_a_loss(error: str) -> None:
    last = Attempt(2, "completed", None)
    said = Counter({1: 1, 2: 1})
    assert not list(doubled(7, [Attempt(1, "failed", error), last], said))
    assert list(doubled(7, [Attempt(1, "failed", "api-unreachable"), last], said))
    assert list(doubled(7, [Attempt(1, "canceled", None), last], said))


def test_a_command_never_ends_well_twice_in_one_attempt() -> None:
    assert list(doubled(7, [Attempt(1, "failed", "node-lost")], Counter({1: 2})))


@pytest.mark.parametrize(
    ("started", "ended", "agent_id", "explained"),
    [
        (90, 110, "a", True),
        (150, 300, "a", True),
        (90, 99, "a", False),
        (201, 300, "a", False),
        (90, 110, "b", False),
    ],
    ids=["across its beginning", "across its end", "before", "after", "elsewhere"],
)
def test_a_loss_explains_what_ran_there_then(
    started: float, ended: float, agent_id: str, explained: bool
) -> None:
    assert Loss(100, 200, "a").explains(started, ended, agent_id) is explained
