"""What ends a step; the exit code is what the scheduler maps to an error of the catalogue.

StepError                       1   unknown
├── BadUsage                    2   arguments or environment
├── PullFailed                 10   an input could not be brought
├── MissingFile                11   an input is not there (404, 410, no such file)
├── ForbiddenInput             12   an input from where none may come, or to where none may go
├── FilesystemFailure          13   the agent's disk: full, not permitted, broken
├── ApiUnreachable             14   Scale itself did not answer, or refused
├── MissingRequiredOutput      20   the job did not make it
├── InvalidOutputs             21   results_manifest.json or a file for an output is unusable
└── UnexpectedMultipleOutputs  22   several files where one was declared
"""

from __future__ import annotations

from typing import ClassVar


class StepError(Exception):
    """Its message is one sentence for the person whose job it is, without secrets."""

    exit_code: ClassVar[int] = 1


class BadUsage(StepError):
    exit_code = 2


class PullFailed(StepError):
    exit_code = 10


class MissingFile(StepError):
    exit_code = 11


class ForbiddenInput(StepError):
    exit_code = 12


class FilesystemFailure(StepError):
    exit_code = 13


class ApiUnreachable(StepError):
    exit_code = 14


class MissingRequiredOutput(StepError):
    exit_code = 20


class InvalidOutputs(StepError):
    exit_code = 21


class UnexpectedMultipleOutputs(StepError):
    exit_code = 22


def shown(text: str, limit: int = 120) -> str:
    """Return `text` quoted for a sentence: one line, control characters escaped, bounded."""
    quoted = repr(text[: limit + 1])
    return quoted if len(text) <= limit else f"{quoted[: limit + 1]}…' ({len(text)} characters)"


def reason(error: OSError) -> str:
    """Return what the system said, without the path, which may be long or strange."""
    return error.strerror or str(error) or type(error).__name__
