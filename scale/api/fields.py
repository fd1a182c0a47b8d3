"""Fields of answers whose choices have a name of their own in the schema."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
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


class OneOrManyExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Tells the schema generator that a list may be left out around its one thing."""

    target_class = "scale.api.bodies.OneOrMany"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        item = auto_schema._map_serializer_field(self.target.child, direction)
        many = {"type": "array", "items": item, "minItems": 1, "maxItems": self.target.max_length}
        return {"oneOf": [many, item]}


class _AsTextToo(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Tells the schema generator that a value may come as text."""

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        value = auto_schema._map_serializer_field(self.target, direction, bypass_extensions=True)
        return {"anyOf": [value, {"type": "string", "pattern": self.target.TEXT}]}


class WholeExtension(_AsTextToo):  # type: ignore[no-untyped-call]
    target_class = "scale.api.bodies.Whole"


class NumberExtension(_AsTextToo):  # type: ignore[no-untyped-call]
    target_class = "scale.api.bodies.Number"


class FlagExtension(_AsTextToo):  # type: ignore[no-untyped-call]
    target_class = "scale.api.bodies.Flag"


class JobTypeBodyExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Tells the schema generator that other fields are ignored, unlike in all other bodies."""

    target_class = "scale.api.bodies.JobTypeBody"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return {**schema, "additionalProperties": True}
