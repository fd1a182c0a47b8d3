"""When to ask the cluster about which tasks: until each has been heard of, with back-off."""

from collections.abc import Iterable, Sequence
from typing import Final

from scale.core.cluster import TaskRef

FIRST_RETRY_S: Final = 5.0
LONGEST_RETRY_S: Final = 300.0
#: Everything is asked about again this often, whatever was heard.
FULL_EVERY_S: Final = 900.0


class Reconciler:
    """Keeps the tasks that were asked about and not heard of; pure but for its own memory.

    Times are seconds of a monotonic clock. An agent that is being recovered answers nothing
    (contract, 5.4), so questions are repeated.
    """

    def __init__(self) -> None:
        self._open: dict[str, TaskRef] = {}
        self._retry_s = FIRST_RETRY_S
        self._next: float | None = None
        self._next_full: float | None = None

    def ask(self, tasks: Iterable[TaskRef], *, now_s: float) -> None:
        """Note that nothing is known of these tasks; they are due at once."""
        self._open.update((task.task_id, task) for task in tasks)
        self._retry_s = FIRST_RETRY_S
        self._next = now_s if self._open else None

    def begin(self, *, now_s: float) -> None:
        """Have a full reconciliation begun now; it stays due until it was."""
        self._next_full = now_s

    def began(self, *, now_s: float) -> None:
        """Note that a full reconciliation was begun."""
        self._next_full = now_s + FULL_EVERY_S

    def heard_of(self, task_id: str) -> None:
        self._open.pop(task_id, None)

    def pause(self) -> None:
        """Ask nothing until the next full reconciliation is begun: there is no connection."""
        self._open.clear()
        self._next = self._next_full = None

    def full_due(self, *, now_s: float) -> bool:
        return self._next_full is not None and now_s >= self._next_full

    def due(self, *, now_s: float) -> Sequence[TaskRef]:
        """Return what to ask about now, and plan to repeat it later and later."""
        if self._next is None or now_s < self._next:
            return ()
        if not self._open:
            self._next = None
            return ()
        self._next = now_s + self._retry_s
        self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
        return tuple(self._open.values())

    def next_s(self) -> float | None:
        """Return when `due` or `full_due` has something to say; None is never."""
        times = [at for at in (self._next, self._next_full) if at is not None]
        return min(times, default=None)
