"""The one import of pymesos, kept from changing the process that imports it.

pymesos replaces the SIGINT handler (process.py, module level) and gives its logger a handler and
a level. Both are undone here. Because of the first, this module can only be imported in the main
thread. The types are those of pymesos 0.3.15, as far as `scale.mesos.driver` builds on them.
"""

import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scale.mesos.document import JsonObject

if TYPE_CHECKING:
    from threading import RLock, Thread

    class Scheduler:
        """Callbacks of pymesos that do nothing."""

    class MesosSchedulerDriver:
        _framework: JsonObject
        _io_thread: Thread | None
        _lock: RLock
        _master: str | None
        _started: bool
        _wakeup_fds: tuple[int, int] | None
        framework_id: str | None

        def __init__(
            self,
            sched: Scheduler,
            framework: JsonObject,
            master_uri: str,
            *,
            implicit_acknowledgements: bool,
            failover: bool,
        ) -> None: ...
        def start(self) -> None: ...
        def stop(self, failover: bool = False) -> None: ...
        def change_master(self, new_master: str | None) -> None: ...
        def gen_request(self) -> bytes: ...
        def on_event(self, event: JsonObject) -> None: ...
        def declineOffer(  # noqa: N802 - pymesos' name
            self, offer_ids: Sequence[JsonObject], filters: Mapping[str, float]
        ) -> None: ...
        def launchTasks(  # noqa: N802 - pymesos' name
            self,
            offer_ids: Sequence[JsonObject],
            tasks: Sequence[JsonObject],
            filters: Mapping[str, float],
        ) -> None: ...
        def reviveOffers(self) -> None: ...  # noqa: N802 - pymesos' name
        def _notify(self) -> None: ...

else:
    _sigint = signal.getsignal(signal.SIGINT)
    try:
        import pymesos
        from pymesos import MesosSchedulerDriver, Scheduler
    finally:
        if _sigint is not None:  # None: set outside Python, and cannot be set back from here
            signal.signal(signal.SIGINT, _sigint)
    pymesos.logger.removeHandler(pymesos.handler)
    pymesos.logger.setLevel("NOTSET")

__all__ = ["MesosSchedulerDriver", "Scheduler"]
