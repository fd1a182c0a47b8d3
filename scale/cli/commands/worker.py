"""`scale worker`: Celery's worker and its beat in one process, which has no children to lose."""

import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path

from celery import Celery
from celery.beat import Service
from celery.signals import worker_ready

from scale.embedded.ready import announce

logger = logging.getLogger(__name__)

# How long beat sleeps at most, and so how long it takes to stop.
_BEAT_WAKES_EVERY_S = 1


def run(*, concurrency: int, beat: bool, schedule: Path | None) -> None:
    """Work until SIGTERM or SIGINT. `schedule` keeps when periodic tasks ran last."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scale.settings")
    import django

    django.setup()
    from scale.celery import app

    # The embedded default may run as root; messages are JSON, so that nobody gains by it.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    worker_ready.connect(lambda **_: announce(), weak=False)
    with ExitStack() as held:
        if beat:
            if schedule is None:
                schedule = Path(held.enter_context(tempfile.TemporaryDirectory())) / "schedule"
            thread = Beat(app, schedule)
            # Not before: two threads that import kombu's transport at once see half of it.
            worker_ready.connect(lambda **_: thread.start(), weak=False)
        worker = app.Worker(
            pool="threads",
            concurrency=concurrency,
            quiet=True,
            without_gossip=True,
            without_mingle=True,
        )
        worker.start()
    sys.exit(worker.exitcode)


class Beat(threading.Thread):
    """Celery's beat as a thread. If it fails the process stops, so that somebody notices."""

    def __init__(self, app: Celery, schedule: Path) -> None:
        super().__init__(name="beat", daemon=True)
        self._service = Service(
            app, max_interval=_BEAT_WAKES_EVERY_S, schedule_filename=str(schedule)
        )

    def run(self) -> None:
        try:
            self._service.start()
        except BaseException:
            logger.exception("beat failed; the worker stops")
            os.kill(os.getpid(), signal.SIGTERM)
            raise
