"""What writing rows takes besides Django.

Many rows are one statement here: Django's bulk_update builds a CASE per column and row.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connection, models
from psycopg2.extras import execute_values

_PAGE_ROWS = 1000


def storable(text: str) -> str:
    """Return a text from elsewhere without what PostgreSQL refuses: NUL and half surrogates."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def update_rows(rows: Sequence[models.Model], fields: Sequence[str]) -> None:
    """Store these fields of these rows, all of one model, by primary key.

    One statement per thousand rows. The caller holds the rows' locks: rows that are not locked in
    order can deadlock here.
    """
    if not rows:
        return
    meta = rows[0]._meta
    key = meta.pk
    columns = [meta.get_field(name) for name in fields]
    assert key is not None
    concrete = [field for field in (key, *columns) if isinstance(field, models.Field)]
    quote = connection.ops.quote_name
    # The first row of VALUES decides the types, and it may hold nulls. Without a length: a cast
    # to varchar(50) cuts what is longer, where the column refuses it.
    types = [str(field.rel_db_type(connection)).partition("(")[0] for field in concrete]
    template = ", ".join(f"%s::{name}" for name in types)
    names = [quote(str(field.column)) for field in concrete[1:]]
    statement = (
        f"UPDATE {quote(meta.db_table)} AS stored "  # noqa: S608 - names come from the model
        f"SET {', '.join(f'{name} = new.{name}' for name in names)} "
        f"FROM (VALUES %s) AS new (key, {', '.join(names)}) "
        f"WHERE stored.{quote(str(key.column))} = new.key"
    )

    def stored(row: models.Model) -> list[Any]:
        return [
            field.get_db_prep_save(getattr(row, field.attname), connection) for field in concrete
        ]

    # psycopg2's own function: Django's cursor, which would do that, is not asked.
    with connection.wrap_database_errors, connection.cursor() as cursor:
        execute_values(
            cursor.cursor,
            statement,
            [stored(row) for row in rows],
            template=f"({template})",
            page_size=_PAGE_ROWS,
        )
