"""Rows by statements of our own, where Django takes longer to write one than to run it."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Field, Model

M = TypeVar("M", bound=Model)


@cache
def fields_of(model: type[Model]) -> "tuple[Field[Any, Any], ...]":
    """Return the fields of a model that have a column, in the order that `row_of` expects."""
    return tuple(model._meta.concrete_fields)


def columns_of(model: type[Model], alias: str) -> str:
    """Return all columns of a model for a SELECT."""
    quote = connection.ops.quote_name
    return ", ".join(f"{alias}.{quote(str(field.column))}" for field in fields_of(model))


def row_of(model: type[M], values: Sequence[Any]) -> M:
    """Return the row that came as the columns of `columns_of`."""
    names, converters = _reading(model)
    read = list(values)
    for index, convert in converters:
        read[index] = convert(read[index], None, connection)
    return model.from_db(connection.alias, names, read)


def read_row(model: type[M], **wanted: Any) -> M | None:
    """Return the row whose columns have these values, which are unique; None if there is none."""
    with connection.cursor() as cursor:
        execute_prepared(cursor, _select(model, tuple(wanted)), tuple(wanted.values()))
        found = cursor.fetchone()
    return None if found is None else row_of(model, found)


@cache
def _select(model: type[Model], columns: tuple[str, ...]) -> str:
    table = connection.ops.quote_name(model._meta.db_table)
    condition = " AND ".join(f"it.{column} = ${n}" for n, column in enumerate(columns, 1))
    return f"SELECT {columns_of(model, 'it')} FROM {table} AS it WHERE {condition}"  # noqa: S608 - all names are ours


def execute_prepared(
    cursor: CursorWrapper,
    statement: str,
    parameters: Sequence[Any],
    constants: Mapping[str, Any] | None = None,
) -> None:
    """Execute a statement that the server has parsed and planned once for this connection.

    Args:
        parameters: for $1, $2 and so on; their types follow from where they stand.
        constants: for %(name)s, put in before it is prepared; always the same.
    """
    known = _prepared()
    name = known.get(statement)
    if name is None:
        name = f"scale_{len(known)}"
        # psycopg2's own cursor: this is part of connecting, not of what a request costs.
        with connection.wrap_database_errors:
            cursor.cursor.execute(f"PREPARE {name} AS {statement}", constants)
        known[statement] = name
    places = ", ".join(["%s"] * len(parameters))
    cursor.execute(f"EXECUTE {name} ({places})", parameters)


def _prepared() -> dict[str, str]:
    """Return the names of what is prepared on this connection; a new one knows nothing."""
    kept = getattr(connection, "scale_prepared", None)
    if kept is None or kept[0] is not connection.connection:
        kept = (connection.connection, {})
        connection.scale_prepared = kept  # type: ignore[attr-defined]
    return kept[1]


@cache
def _reading(model: type[Model]) -> tuple[list[str], list[tuple[int, Any]]]:
    """Return the names of the fields, and what makes Python's values of the database's."""
    fields = fields_of(model)
    converters = [
        (index, convert)
        for index, field in enumerate(fields)
        for convert in field.get_db_converters(connection)
    ]
    return [field.attname for field in fields], converters
