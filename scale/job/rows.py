"""Rows by statements of our own, where Django takes longer to write one than to run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeVar

from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Field, Model
from psycopg2.extensions import new_type, register_type

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
    names = _prepared().names
    if statement not in names:
        names[statement] = _prepare(cursor, statement, constants)
    _execute(cursor, names[statement], parameters)


#: How many statements that came again stay prepared on a connection; a page of rows takes 0.3 MB.
_REPEATED: Final = 16


def execute_repeated(cursor: CursorWrapper, statement: str, parameters: Sequence[Any]) -> None:
    """Execute a statement of which there are many kinds; what comes again is prepared.

    It has %s for each parameter, whose types follow from where they stand. Those that were not
    used for longest are forgotten.
    """
    repeated = _prepared().repeated
    name = repeated.pop(statement, None)
    if len(repeated) == _REPEATED and (oldest := repeated.pop(next(iter(repeated)))):
        with connection.wrap_database_errors:
            cursor.cursor.execute(f"DEALLOCATE {oldest}")
    if name is None:
        repeated[statement] = ""
        cursor.execute(statement, parameters)
        return
    places = tuple(f"${n}" for n, _ in enumerate(parameters, 1))
    repeated[statement] = name = name or _prepare(cursor, statement % places)
    _execute(cursor, name, parameters)


def _prepare(
    cursor: CursorWrapper, statement: str, constants: Mapping[str, Any] | None = None
) -> str:
    """Return the name by which the statement is prepared now."""
    prepared = _prepared()
    name = f"scale_{prepared.made}"
    # psycopg2's own cursor: this is part of connecting, not of what a request costs.
    with connection.wrap_database_errors:
        cursor.cursor.execute(f"PREPARE {name} AS {statement}", constants)
    prepared.made += 1
    return name


def _execute(cursor: CursorWrapper, name: str, parameters: Sequence[Any]) -> None:
    places = ", ".join(["%s"] * len(parameters))
    cursor.execute(f"EXECUTE {name} ({places})" if places else f"EXECUTE {name}", parameters)


@dataclass(slots=True)
class _Prepared:
    """What is prepared on a connection: statement -> name, "" for what came once only.

    `repeated` begins with what was not used for longest; `made` were prepared so far.
    """

    session: object
    names: dict[str, str] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)
    made: int = 0


def _prepared() -> _Prepared:
    """Return what is prepared on this connection; a new one knows nothing."""
    kept: _Prepared | None = getattr(connection, "scale_prepared", None)
    if kept is None or kept.session is not connection.connection:
        kept = _Prepared(connection.connection)
        connection.scale_prepared = kept  # type: ignore[attr-defined]
    return kept


def read_times_as_texts(cursor: CursorWrapper) -> None:
    """Let a cursor return times as the REST contract has them: UTC, milliseconds, Z.

    For what goes out as it comes: PostgreSQL's text is nearly that already. Making datetimes of it
    and writing those takes half of what a page of rows costs here.
    """
    register_type(_TIME_AS_TEXT, cursor.cursor)


def _as_in_the_contract(text: Any, _cursor: object) -> str | None:
    """Change PostgreSQL's `2026-01-31 12:00:00.5+00`; the session is in UTC."""
    if text is None:
        return None
    time = text[11:-3]
    return f"{text[:10]}T{time[:12].ljust(12, '0') if len(time) > 8 else time + '.000'}Z"


_TIMESTAMPTZ: Final = 1184  # pg_type.dat
_TIME_AS_TEXT: Final = new_type((_TIMESTAMPTZ,), "TIME_AS_TEXT", _as_in_the_contract)


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
