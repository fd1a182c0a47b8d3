"""How lists that can be walked and trimmed are described in the OpenAPI document."""

from collections.abc import Collection
from functools import cache
from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter
from rest_framework import serializers

from scale.api.outlines import Item
from scale.api.schema import PAGING, listing, paged

_Serializer = type[serializers.Serializer[Any]]

CURSOR: Final = OpenApiParameter(
    "cursor",
    OpenApiTypes.STR,
    description="Walks through the list instead of paging: empty to begin, then what `next` has. "
    "Each part costs the same however far it is. Nothing is missed or comes twice that did not "
    "change in the meantime. Only in the default order, by `id`, or the reverse of either; not "
    "with `page`.",
    examples=[OpenApiExample("begin", value="")],
)


def fields_of(item: Item) -> OpenApiParameter:
    """Declare the parameter that trims items."""
    return OpenApiParameter(
        "fields",
        {"type": "array", "items": {"type": "string", "enum": list(item.names)}},
        description="Only these fields of each item. May be repeated, or separated by commas.",
        examples=[OpenApiExample("two", value=list(item.names[:2]))],
    )


def walking(
    item: Item, order: Collection[str], what: str = "last change"
) -> list[OpenApiParameter]:
    """Return the parameters of lists in time, as `listing`, that can be walked and trimmed."""
    return [*listing(order, what), CURSOR, fields_of(item)]


def walking_all(item: Item) -> list[OpenApiParameter]:
    """Return the parameters of lists in one order that can be walked and trimmed."""
    return [*PAGING, CURSOR, fields_of(item)]


@cache
def parts_of(item: _Serializer) -> serializers.Serializer[Any]:
    """Return the envelope of a list of `item` whose fields are those that were asked for."""
    name = f"{item.__name__}Item"
    return paged(type(name, (_Trimmed, item), {"__doc__": item.__doc__}))


class _Trimmed(serializers.Serializer[Any]):
    """An item without the fields that nobody asked for."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        for field in fields.values():
            field.required = False
        return fields
