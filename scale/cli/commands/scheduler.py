"""`scale scheduler`: the one place where the scheduler's loop and the Mesos gateway meet."""

import getpass
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scale.mesos.gateway import MesosGateway

logger = logging.getLogger(__name__)


def run() -> None:
    """Run the framework until SIGTERM or SIGINT; exits with 1 when it may not lead any more."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scale.settings")
    import django

    django.setup()
    # In the main thread: pymesos sets a signal handler when it is imported.
    gateway = _gateway()
    from django.db.utils import OperationalError
    from django.utils import timezone

    from scale.core.errors import LeadershipLost
    from scale.embedded.ready import announce
    from scale.scheduler.leader import Leadership
    from scale.scheduler.loop import SchedulerLoop

    try:
        leadership = Leadership(f"{socket.gethostname()}:{os.getpid()}")
        leadership.acquire(now=timezone.now(), standing_by=announce)
        loop = SchedulerLoop(gateway, leadership)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        loop.run()
    except (LeadershipLost, OperationalError) as error:
        logger.error("this scheduler stops: %s", error)  # noqa: TRY400 - the message says it all
        sys.exit(1)
    leadership.release()


def _gateway() -> "MesosGateway":
    """Make the way to the cluster that the settings name; it connects to nothing yet."""
    from django.conf import settings

    from scale.core.cluster import ClusterEvent, Subscribed
    from scale.embedded.ready import announce
    from scale.mesos.gateway import MesosGateway

    class Gateway(MesosGateway):
        """Says that this process is ready as soon as it is subscribed."""

        def drain(self) -> list[ClusterEvent]:
            events = super().drain()
            if any(isinstance(event, Subscribed) for event in events):
                announce()
            return events

    if not settings.SCALE_MESOS_MASTER:
        sys.exit("Scale cannot start:\n  SCALE_MESOS_MASTER must be set for the scheduler")
    return Gateway(
        settings.SCALE_MESOS_MASTER,
        principal=settings.SCALE_MESOS_PRINCIPAL or None,
        secret=settings.SCALE_MESOS_SECRET or None,
        user=settings.SCALE_FRAMEWORK_USER or getpass.getuser(),
        name=settings.SCALE_FRAMEWORK_NAME,
        role=settings.SCALE_FRAMEWORK_ROLE,
        failover_timeout_s=settings.SCALE_FAILOVER_TIMEOUT_S,
        hostname=socket.gethostname(),
        webui_url=settings.SCALE_API_URL,
        # A call that hangs must not make a living leader look dead.
        call_timeout_s=settings.SCALE_LEASE_S / 2,
    )
