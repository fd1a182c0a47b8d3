"""What people may change about nodes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection, transaction

from scale.node.models import Node

#: The channel of `job.services.wake_scheduler`, which is above us; a test holds them together.
_WORK_CHANNEL: Final = "scale_work"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """What to change; None leaves it as it is, an empty reason takes the reason away."""

    is_paused: bool | None = None
    pause_reason: str | None = None
    is_active: bool | None = None


@transaction.atomic
def change_node(node_id: int, change: NodeChange, *, at: datetime) -> Node:
    """Pause, resume, retire or bring back a node; what runs there goes on.

    A node that is not paused has no reason for it, whatever is given. Raises Node.DoesNotExist.
    """
    node = Node.objects.select_for_update(no_key=True).get(pk=node_id)
    if change.is_paused is not None:
        node.is_paused = change.is_paused
        node.is_paused_errors = False
    if change.pause_reason is not None:
        node.pause_reason = change.pause_reason or None
    if not node.is_paused:
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
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [_WORK_CHANNEL])
    return node
