"""The seam between the scheduler and a cluster: `scale.mesos` implements it, unit tests fake it."""

from collections.abc import Sequence
from typing import Protocol

from scale.core.cluster import Agent, ClusterEvent, TaskRef, TaskSpec, TaskUpdate


class Gateway(Protocol):
    """A cluster that offers resources and runs tasks.

    Calls are sent before they return and may be made from one thread. A call raises GatewayError
    when the cluster could not be told; it may have heard all the same, so the caller relies on
    reconciliation and not on the error. Nothing here touches the database.
    """

    def start(self, framework_id: str | None) -> None:
        """Subscribe and keep subscribed; `framework_id` is the stored one, or None."""

    def stop(self) -> None:
        """Leave; the framework stays registered and its tasks run on."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait."""

    def drain(self) -> list[ClusterEvent]:
        """Return the events that arrived since the last call, oldest first; never blocks."""

    def launch(
        self, offer_ids: Sequence[str], tasks: Sequence[TaskSpec], *, refuse_s: float
    ) -> None:
        """Use these offers, all of one agent, for these tasks; decline what is left of them."""

    def decline(self, offer_ids: Sequence[str], *, refuse_s: float) -> None:
        """Give offers back; the same resources come again after `refuse_s` at the earliest."""

    def revive(self) -> None:
        """Forget every decline and ask for offers now."""

    def kill(self, task: TaskRef, *, grace_s: float) -> None:
        """Ask for the end of a task; repeatable, and answered for unknown tasks too."""

    def acknowledge(self, updates: Sequence[TaskUpdate]) -> None:
        """Confirm updates that are stored; those without uuid are passed over."""

    def reconcile(self, tasks: Sequence[TaskRef]) -> None:
        """Ask for the state of tasks; an empty sequence asks for all that the cluster knows."""

    def agents(self) -> list[Agent]:
        """Return the machines of the cluster with their total resources."""
