"""The real gateway, made easy to wait for, and what a master may say to it."""

import select
import time
from typing import Any, TypeVar

from scale.core.cluster import (
    ClusterEvent,
    Subscribed,
)
from scale.mesos.gateway import MesosGateway
from scale.mesos.subscription import Timing

DEADLINE_S = 10
SECRET = "do-not-tell"
FAST = Timing(first_pause_s=0.001, longest_pause_s=0.005)

RESCIND = {"type": "RESCIND", "rescind": {"offer_id": {"value": "o1"}}}
OFFERS = {
    "type": "OFFERS",
    "offers": {
        "offers": [{"id": {"value": "o1"}, "agent_id": {"value": "a1"}, "hostname": "h"}],
    },
}
Event = TypeVar("Event", bound=ClusterEvent)


class Gateway(MesosGateway):
    """The real one, with its events easy to wait for."""

    def __init__(self, master: str, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "principal": "scale",
            "secret": SECRET,
            "user": "root",
            "name": "scale",
            "failover_timeout_s": 604800,
            "hostname": "h",
            "webui_url": "",
            "timing": FAST,
        }
        super().__init__(master, **{**defaults, **options})
        self.seen: list[ClusterEvent] = []
        self.deadline_s = DEADLINE_S

    def until(self, kind: type[ClusterEvent]) -> list[ClusterEvent]:
        """Return the next events up to the first of this kind."""
        deadline = time.monotonic() + self.deadline_s
        while True:
            self.seen += self.drain()
            for count, event in enumerate(self.seen, 1):
                if isinstance(event, kind):
                    events, self.seen = self.seen[:count], self.seen[count:]
                    return events
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind.__name__} among {self.seen}"
            select.select([self], [], [], left)

    def expect(self, kind: type[Event]) -> Event:
        """Return the next event of this kind; forget those before it."""
        last = self.until(kind)[-1]
        assert isinstance(last, kind)
        return last

    def subscribe(self, framework_id: str | None = None) -> "Gateway":
        self.start(framework_id)
        self.expect(Subscribed)
        return self
