"""What people may change about nodes."""

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from scale.core.errors import InvalidInput
from scale.node.models import Node
from scale.wake import wake_scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """What to change; None leaves it as it is, an empty reason takes the reason away.

    `hostname` and `port` cannot change: the cluster says them. They may be given as they are.
    """

    hostname: str | None = None
    port: int | None = None

    is_paused: bool | None = None
    pause_reason: str | None = None
    is_active: bool | None = None


@transaction.atomic
def change_node(node_id: int, change: NodeChange, *, at: datetime) -> Node:
    """Pause, resume, retire or bring back a node; what runs there goes on.

    A node that is not paused has no reason for it; one that comes with the end of a pause is
    dropped.

    Raises:
        Node.DoesNotExist: no such node.
        InvalidInput: a reason alone for a node that is not paused, or another hostname or port;
            nothing was written.
    """
    node = Node.objects.select_for_update(no_key=True).get(pk=node_id)
    for name in ("hostname", "port"):
        if getattr(change, name) not in {None, getattr(node, name)}:
            raise InvalidInput(name, "is what the cluster says, and cannot be changed")
    if change.is_paused is not None:
        node.is_paused = change.is_paused
        node.is_paused_errors = False
    if change.pause_reason and change.is_paused is None and not node.is_paused:
        raise InvalidInput("pause_reason", "is only for a node that is paused")
    if change.pause_reason is not None:
        node.pause_reason = change.pause_reason or None
    if not node.is_paused and not node.is_paused_errors:
        node.pause_reason = None
    if change.is_active is not None and change.is_active != node.is_active:
        node.is_active = change.is_active
        node.archived = None if change.is_active else at
    node.save(
        update_fields=[
            "is_paused",
            "is_paused_errors",
            "pause_reason",
            "is_active",
            "archived",
            "last_modified",
        ]
    )
    wake_scheduler()
    return node
