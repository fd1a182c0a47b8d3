"""What people ask about the catalogue of errors."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from django.db.models import QuerySet

from scale.error.models import Error

#: What the list can be ordered by: the name in the interface -> the name in the model.
ERROR_ORDER: Final[Mapping[str, str]] = {
    name: name
    for name in (
        "id",
        "name",
        "title",
        "description",
        "category",
        "is_builtin",
        "should_be_retried",
        "created",
        "last_modified",
    )
}


def errors(
    *,
    started: datetime | None = None,
    ended: datetime | None = None,
    names: Collection[str] = (),
    categories: Collection[str] = (),
    is_builtin: bool | None = None,
) -> QuerySet[Error]:
    """Return errors that were last changed in a period, both ends included; in no order.

    An empty collection does not restrict.
    """
    rows = Error.objects.all()
    if names:
        rows = rows.filter(name__in=names)
    if categories:
        rows = rows.filter(category__in=categories)
    if is_builtin is not None:
        rows = rows.filter(is_builtin=is_builtin)
    if started is not None:
        rows = rows.filter(last_modified__gte=started)
    if ended is not None:
        rows = rows.filter(last_modified__lte=ended)
    return rows
