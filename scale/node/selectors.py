"""What people ask about nodes."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from django.db.models import Q, QuerySet

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


_GOING: Final = Q(is_online=True, is_paused_errors=False)
#: The same as `Node.health_of`, for the database.
WITH_HEALTH: Final[Mapping[str, Q]] = {
    Node.Health.READY.value: _GOING & Q(is_active=True, is_paused=False),
    Node.Health.PAUSED.value: _GOING & (Q(is_active=False) | Q(is_paused=True)),
    Node.Health.DEGRADED.value: Q(is_online=True, is_paused_errors=True),
    Node.Health.OFFLINE.value: Q(is_online=False),
}


def nodes(
    *,
    started: datetime | None = None,
    ended: datetime | None = None,
    include_inactive: bool = False,
    healths: Collection[str] = (),
) -> QuerySet[Node]:
    """Return nodes that were last changed in a period, both ends included; in no order."""
    wanted = Q()
    for health in healths:
        wanted |= WITH_HEALTH[health]
    rows = Node.objects.filter(wanted)
    if not include_inactive:
        rows = rows.filter(is_active=True)
    if started is not None:
        rows = rows.filter(last_modified__gte=started)
    if ended is not None:
        rows = rows.filter(last_modified__lte=ended)
    return rows
