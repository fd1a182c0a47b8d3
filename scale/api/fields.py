"""Fields of answers whose choices have a name of their own in the schema."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.plumbing import ResolvedComponent
from rest_framework import serializers


class Choice(serializers.ChoiceField):
    """One of some texts; `named` is the name of their component."""

    def __init__(self, named: str, texts: Iterable[str], **options: Any) -> None:
        self.named = named
        super().__init__([str(text) for text in texts], **options)


class ChoiceExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Tells the schema generator, which would number sets of the same field name."""

    target_class = "scale.api.fields.Choice"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        component = ResolvedComponent(  # type: ignore[no-untyped-call]
            name=self.target.named,
            type=ResolvedComponent.SCHEMA,
            object=self.target.named,
            schema={"type": "string", "enum": list(self.target.choices)},
        )
        auto_schema.registry.register_on_missing(component)
        return dict(component.ref)
