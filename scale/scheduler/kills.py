"""Kills are sent again and again until their tasks are gone."""

from collections.abc import Iterable

from django.conf import settings

from scale.core.cluster import TaskRef
from scale.core.errors import GatewayError
from scale.scheduler.means import Means
from scale.scheduler.stops import KILL_AGAIN_S, tasks_to_kill


class Kills:
    """Remembers when each kill was sent; whoever forgets sends it once more."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._sent: dict[str, float] = {}

    def forget(self) -> None:
        self._sent.clear()

    def send(self) -> None:
        """Kill what is to stop and was not told so for a while; raises GatewayError."""
        means = self._means
        tasks = means.stored(tasks_to_kill)
        sent = {task.task_id: self._sent.get(task.task_id) for task in tasks}
        self._sent = {task_id: at for task_id, at in sent.items() if at is not None}
        for task in tasks:
            at = sent[task.task_id]
            if at is None or means.monotonic() - at >= KILL_AGAIN_S:
                self.kill(task)
                self._sent[task.task_id] = means.monotonic()

    def send_now(self, tasks: Iterable[TaskRef]) -> None:
        """Kill tasks that no row knows any more; what is not heard is a stray, and killed so."""
        try:
            for task in tasks:
                self.kill(task)
        except GatewayError as error:
            self._means.failed("late tasks were not killed", error)

    def kill(self, task: TaskRef) -> None:
        """Kill one task, whoever wants that; raises GatewayError."""
        self._means.beat()
        self._means.gateway.kill(task, grace_s=settings.SCALE_KILL_GRACE_S)
        self._means.count("kills", 1)

    def next_s(self) -> float | None:
        """Return when the next kill is due on the monotonic clock; None is never."""
        return min((at + KILL_AGAIN_S for at in self._sent.values()), default=None)
