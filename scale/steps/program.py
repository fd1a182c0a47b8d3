"""`python steps.pyz pre | post | cleanup DIR...`: reads its environment, runs one step.

Environment of pre and post: SCALE_API_URL, SCALE_EXECUTION_TOKEN, SCALE_EXECUTION_UUID, and
MESOS_DIRECTORY or MESOS_SANDBOX from the agent. Of cleanup: SCALE_AGENT_WORK_DIR. Exit codes are
those of `errors`; 143 after SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Mapping, NoReturn, Sequence

from .api import Api
from .errors import BadUsage, StepError
from .folders import clean_up
from .limits import Limits
from .orders import parse_orders
from .post import run_post
from .pre import run_pre
from .say import prepare_streams, say

USAGE = "usage: steps.pyz pre | post | cleanup DIR..."
MAX_MESSAGE = 2000
_STOPS = (signal.SIGTERM, signal.SIGINT)


def run() -> NoReturn:
    """Be the program."""
    prepare_streams()
    exit_on_signals()
    sys.exit(main(sys.argv[1:], os.environ))


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a step and return its exit code; a failure is one sentence on stderr."""
    try:
        limits = Limits.from_environment(environ)
        if arguments[:1] == ["cleanup"] and len(arguments) > 1:
            clean_up(arguments[1:], environ)
            return 0
        if list(arguments) not in (["pre"], ["post"]):
            raise BadUsage(USAGE)
        api = Api.from_environment(environ, limits)
    except StepError as error:
        return _fail(error)
    return _phase(arguments[0], api, limits, environ)


def _phase(phase: str, api: Api, limits: Limits, environ: Mapping[str, str]) -> int:
    last_words = Api.from_environment(environ, limits.last_words())
    try:
        orders = parse_orders(api.orders(), api.execution)
        if phase == "pre":
            run_pre(api, orders, limits)
        else:
            run_post(api, orders, environ)
    except StepError as error:
        return _fail(error, phase, last_words)
    except Exception as error:
        # A fault of ours: its traceback and exit code 1 go to the log, its kind to the user.
        _tell(last_words, phase, f"the {phase} step broke: {type(error).__name__}")
        raise
    return 0


def _fail(error: StepError, phase: str = "", api: Api | None = None) -> int:
    message = str(error)[:MAX_MESSAGE]
    if api is not None:
        message = api.without_token(message)
        _tell(api, phase, message)
    say(f"steps: {message}", sys.stderr)
    return error.exit_code


def _tell(api: Api, phase: str, message: str) -> None:
    with contextlib.suppress(StepError):  # the exit code tells the same, less exactly
        api.failure(phase, message)


def exit_on_signals() -> None:
    """End at once on SIGTERM and SIGINT, with 128 + their number.

    A thread waits for them, because a handler would only run when the call at hand returns, and
    looking up a name or removing a folder on a dead disk may take minutes.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)

    def wait() -> None:
        number = signal.sigwait(_STOPS)
        os._exit(128 + number)

    threading.Thread(target=wait, daemon=True).start()
