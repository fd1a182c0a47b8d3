"""What people ask about nodes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from django.db.models import QuerySet

from scale.node.models import Node

#: What the list can be ordered by: the name in the interface -> the name in the model.
NODE_ORDER: Final[Mapping[str, str]] = {
    name: name
    for name in (
        "id",
        "hostname",
        "port",
        "slave_id",
        "pause_reason",
        "is_paused",
        "is_paused_errors",
        "is_active",
        "is_online",
        "archived",
        "created",
        "last_offer",
        "last_modified",
    )
}


def nodes(
    *,
    started: datetime | None = None,
    ended: datetime | None = None,
    include_inactive: bool = False,
) -> QuerySet[Node]:
    """Return nodes that were last changed in a period, both ends included; in no order."""
    rows = Node.objects.all()
    if not include_inactive:
        rows = rows.filter(is_active=True)
    if started is not None:
        rows = rows.filter(last_modified__gte=started)
    if ended is not None:
        rows = rows.filter(last_modified__lte=ended)
    return rows
