"""Write the pages that are made from code: `make docs`. A test fails when they are out of date."""

import sys
from pathlib import Path

from scale.core.lifecycle import MOVES, STATUS, TERMINAL, Event, State

DOCS = Path(__file__).parent

MEANING = {
    State.QUEUED: "waits for resources",
    State.STARTING: "the task of its phase was sent to Mesos and is not seen running yet",
    State.RUNNING: "the task of its phase runs",
    State.HOLDING: "a phase ended well; the next one waits for resources on the same node",
    State.COMPLETED: "every phase ended well",
    State.FAILED: "a phase failed; the error says why",
    State.CANCELED: "a user canceled the job, and its task is gone",
}
CAUSE = {
    Event.LAUNCH: "the task of the phase is stored, then sent to Mesos",
    Event.START: "Mesos reports TASK_RUNNING",
    Event.HOLD: "Mesos reports TASK_FINISHED, and another phase follows",
    Event.FINISH: "Mesos reports TASK_FINISHED for the last phase",
    Event.FAIL: "the task failed, was lost or ran out of time",
    Event.CANCEL: "a user canceled the job; a live task is killed first",
    Event.BOUNCE: "the launch of the first phase never reached an agent; it costs no attempt",
    Event.BOUNCE_TO_HOLD: "the launch of a later phase never reached its agent",
}


def lifecycle() -> str:
    """Return the page about the life of an execution, in Markdown."""
    lines = [
        "# The life of an execution",
        "",
        "Made from `scale/core/lifecycle.py` by `make docs`. An execution is one attempt to run a",
        "job. It never leaves a terminal state: another attempt is another execution.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> queued",
        *[f"    {source} --> {target}: {event}" for (source, event), target in MOVES.items()],
        *[f"    {state} --> [*]" for state in State if state in TERMINAL],
        "```",
        "",
        "| state | `status` in REST | meaning |",
        "|---|---|---|",
        *[f"| {state} | {STATUS[state]} | {MEANING[state]} |" for state in State],
        "",
        "| event | what happened | leads from | to |",
        "|---|---|---|---|",
    ]
    for event in Event:
        moves = [(source, target) for (source, moved), target in MOVES.items() if moved is event]
        sources = ", ".join(source for source, _ in moves)
        (target,) = {target for _, target in moves}
        lines.append(f"| {event} | {CAUSE[event]} | {sources} | {target} |")
    return "\n".join(lines) + "\n"


PAGES = {"lifecycle.md": lifecycle}


def stale() -> list[str]:
    """Return the names of pages that are not what the code says now."""
    return [
        name
        for name, page in PAGES.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text() != page()
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"run make docs: {', '.join(stale())}" if stale() else 0)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
