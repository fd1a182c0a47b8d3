"""Lists whose cost does not grow with their tables: exact counts, pages and walks.

Counts are kept ones where they answer (`tallies.py`). The ids of a page come from an index alone,
then its rows; nothing is skipped over that a kept count can jump, and a page near the end is
reached from there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import DateTimeField, Model, Q, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from scale.error.models import Error
from scale.job import tallies
from scale.job.models import Job, JobExecution, JobType
from scale.job.rows import execute_repeated, read_times_as_texts
from scale.job.selectors import Wanted, within
from scale.job.tallies import Scope

Order = Sequence[str]
_Query = tuple[str, Sequence[Any]]
_Column = str | Cast
#: From here on, asking the tallies where to begin is cheaper than passing over rows.
_FAR: Final = 1000


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk is: the values of what it is ordered by, in the row that came last."""

    values: tuple[Any, ...]


class Rows:
    """A list of what is few, or few of which fit.

    An order is one of Django's `order_by` that ends with the id, so that no two rows are equal.
    Rows are tuples of the columns that are asked for; times are texts (`read_times_as_texts`).
    """

    def __init__(self, rows: QuerySet[Any, Any]) -> None:
        self._rows = rows.order_by()

    @property
    def model(self) -> type[Model]:
        return self._rows.model

    def count(self) -> int:
        """Return how many there are; one query."""
        return self._rows.count()

    def page(
        self, columns: Sequence[str], order: Order, *, first: int, size: int, count: int
    ) -> list[tuple[Any, ...]]:
        """Return up to `size` rows, of `count`, from number `first` on, counted from 0.

        One query; two if a kept count says where to begin.
        """
        size = min(size, count - first)
        if size <= 0:
            return []
        rest = count - first - size
        if rest < first:
            ids = self._ids(Q(), reverse(order), rest, size)
        else:
            ids = self._ids(Q(), order, first, size)
        return self._read(columns, order, ids)

    def all(self, columns: Sequence[str], order: Order) -> list[tuple[Any, ...]]:
        """Return every row, of few; one query."""
        return self._read(columns, order, self._rows.values("pk").query.sql_with_params())

    def after(
        self, columns: Sequence[str], order: Order, position: Position | None, *, size: int
    ) -> tuple[list[tuple[Any, ...]], Position | None]:
        """Return up to `size` rows that come after a position, None the beginning; one query.

        With them comes the position of the last if more follow. All fields of the order go the
        same way and are never null.
        """
        later = Q() if position is None else _beyond(order, position)
        places = [_place(self.model, name.removeprefix("-")) for name in order]
        try:
            # One more than is wanted says whether there are more.
            ids = self._ids(later, order, 0, size + 1)
        except EmptyResultSet:  # Django knows that nothing fits
            return [], None
        found = self._read([*columns, *places], order, ids)
        width = len(columns)
        following = _position(places, found[size - 1][width:]) if len(found) > size else None
        return [row[:width] for row in found[:size]], following

    def _ids(self, condition: Q, order: Order, start: int, size: int) -> _Query:
        """Return a query of the ids of `size` rows, from number `start` on."""
        rows = self._rows.filter(condition).order_by(*order)
        return rows.values("pk")[start : start + size].query.sql_with_params()

    def _read(self, columns: Sequence[_Column], order: Order, ids: _Query) -> list[tuple[Any, ...]]:
        return _statement(self.model, tuple(columns), tuple(order)).rows(*ids)


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement that reads columns of the rows whose ids another one finds."""

    before: str
    after: str
    converters: Mapping[int, tuple[Sequence[Any], Any]]

    def rows(self, ids: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            read_times_as_texts(cursor)
            execute_repeated(cursor, f"{self.before}{ids}{self.after}", parameters)
            found = cursor.fetchall()
        return [self._converted(row) for row in found] if self.converters else found

    def _converted(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for place, (steps, expression) in self.converters.items():
            for step in steps:
                values[place] = step(values[place], expression, connection)
        return tuple(values)


_IDS: Final = "(ids)"


@lru_cache(maxsize=256)
def _statement(
    model: type[Model], columns: tuple[_Column, ...], order: tuple[str, ...]
) -> _Statement:
    """Return the statement as Django writes it, which takes it as long as PostgreSQL to run it."""
    rows = model._default_manager.filter(pk__in=RawSQL(_IDS, []))  # noqa: S611 - a constant
    compiler = rows.order_by(*order).values_list(*columns).query.get_compiler(connection=connection)
    text, parameters = compiler.as_sql()
    # An array is found first and once; IN would be planned as one more join.
    before, after = text.replace(f"IN ({_IDS})", f"= ANY(ARRAY({_IDS}))").split(_IDS)
    assert not parameters
    return _Statement(
        before, after, compiler.get_converters([each for each, *_ in compiler.select])
    )


@cache
def _place(model: type[Model], name: str) -> _Column:
    """Return what says to the microsecond where a row is in a walk by this field."""
    is_time = isinstance(model._meta.get_field(name), DateTimeField)
    return Cast(name, TextField()) if is_time else name


def _position(places: Sequence[_Column], values: Sequence[Any]) -> Position:
    return Position(
        tuple(
            datetime.fromisoformat(value) if isinstance(place, Cast) else value
            for place, value in zip(places, values, strict=True)
        )
    )


def reverse(order: Order) -> list[str]:
    """Return the opposite order; nulls, which PostgreSQL has last, are first then."""
    return [name.removeprefix("-") if name.startswith("-") else f"-{name}" for name in order]


def _beyond(order: Order, position: Position) -> Q:
    """Return the condition to come later; the first field alone bounds it for the index."""
    sign = "lt" if order[0].startswith("-") else "gt"
    names = [name.removeprefix("-") for name in order]
    later, equal = Q(), Q()
    for name, value in zip(names, position.values, strict=True):
        later |= equal & Q((f"{name}__{sign}", value))
        equal &= Q((name, value))
    return Q((f"{names[0]}__{sign}e", position.values[0])) & later


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a table: the columns that restrict, best first, and times by their hours."""

    model: type[Job | JobExecution]
    columns: Mapping[str, Scope]
    whole: Scope
    hours: Mapping[str, Scope]


_EXECUTIONS: Final = _Kept(
    JobExecution,
    {
        "error_id": Scope.EXECUTION_ERROR,
        "node_id": Scope.EXECUTION_NODE,
        "job_type_id": Scope.EXECUTION_JOB_TYPE,
    },
    Scope.EXECUTION_JOB_TYPE,
    {"last_modified": Scope.EXECUTION_HOUR},
)
_JOBS: Final = _Kept(
    Job,
    {"error_id": Scope.JOB_ERROR, "job_type_id": Scope.JOB_JOB_TYPE},
    Scope.JOB_JOB_TYPE,
    {"last_modified": Scope.JOB_HOUR, "last_status_change": Scope.JOB_STATUS_HOUR},
)


def execution_rows(wanted: Wanted) -> Rows:
    """Return the list of these executions; a query for names of job types, one for categories."""
    return _rows(_EXECUTIONS, wanted)


def job_rows(wanted: Wanted) -> Rows:
    """Return the list of these jobs; a query for names of job types, one for categories."""
    return _rows(_JOBS, wanted)


def _rows(kept: _Kept, wanted: Wanted) -> Rows:
    among = _among(wanted)
    if all(among.values()):
        return _KeptRows(kept, wanted, among)
    return Rows(kept.model._default_manager.none())


def _among(wanted: Wanted) -> dict[str, list[Any]]:
    """Return the values that each restricted column may have; no values if no names exist."""
    given: dict[str, Collection[Any]] = {
        "id": wanted.ids,
        "job_id": wanted.job_ids,
        "status": wanted.statuses,
        "job_type_id": wanted.job_type_ids,
        "node_id": wanted.node_ids,
        "error_id": wanted.error_ids,
    }
    among = {column: list(dict.fromkeys(values)) for column, values in given.items() if values}
    named = {"name": wanted.job_type_names, "category": wanted.job_type_categories}
    _resolve(among, "job_type_id", JobType, named)
    _resolve(among, "error_id", Error, {"category": wanted.error_categories})
    return among


def _resolve(
    among: dict[str, list[Any]],
    column: str,
    model: type[Model],
    named: Mapping[str, Collection[str]],
) -> None:
    """Restrict a column further, to the ids of what has these names."""
    restrictions: dict[str, Any] = {f"{name}__in": found for name, found in named.items() if found}
    if restrictions:
        if column in among:
            restrictions["pk__in"] = among[column]
        ids = model._default_manager.filter(**restrictions).order_by("pk")
        among[column] = list(ids.values_list("pk", flat=True))


_LATEST: Final = """
    SELECT latest.id FROM unnest(%s::bigint[]) AS wanted (job_id) CROSS JOIN LATERAL (
        SELECT id FROM job_execution AS attempt WHERE attempt.job_id = wanted.job_id
        ORDER BY exe_num DESC LIMIT 1
    ) AS latest
"""


def latest_executions(columns: Sequence[str], job_ids: Sequence[int]) -> list[tuple[Any, ...]]:
    """Return the last attempt of each of these jobs, in no order; one query."""
    return _statement(JobExecution, tuple(columns), ("id",)).rows(_LATEST, [list(job_ids)])


class _KeptRows(Rows):
    """A list of executions or jobs, of which there may be millions."""

    def __init__(self, kept: _Kept, wanted: Wanted, among: Mapping[str, Sequence[Any]]) -> None:
        self._kept = kept
        self._wanted = wanted
        self._among = among
        # Each value of this column has a part of an index to itself; few jobs need none.
        apart = () if {"id", "job_id"} & set(among) else (*kept.columns, "status")
        self._apart = next((name for name in apart if name in among), "")
        rest = {f"{name}__in": values for name, values in among.items() if name != self._apart}
        period = within(wanted.started, wanted.ended, wanted.when)
        self._rest = kept.model._default_manager.filter(period, wanted.also, **rest).order_by()
        own = {f"{self._apart}__in": among[self._apart]} if self._apart else {}
        super().__init__(self._rest.filter(**own))

    def count(self) -> int:
        wanted = self._wanted
        columns = set(self._among) - {"status"}
        statuses = self._among.get("status", ())
        in_period = wanted.started or wanted.ended
        if wanted.also_means and not columns and not in_period:
            return tallies.total(self._kept.whole, keys=wanted.also_means, statuses=statuses)
        if wanted.also or len(columns) > 1 or not columns <= set(self._kept.columns):
            return super().count()
        if in_period:
            return super().count() if columns else self._count_period(statuses)
        if not columns:
            return tallies.total(self._kept.whole, statuses=statuses)
        [column] = columns
        keys = self._among[column]
        return tallies.total(self._kept.columns[column], keys=keys, statuses=statuses)

    def _count_period(self, statuses: Sequence[str]) -> int:
        """Add the kept counts of the whole hours within to what is before and after; one query."""
        wanted, when = self._wanted, self._wanted.when
        hours = tallies.whole_hours(wanted.started, wanted.ended)
        if hours is None:
            return super().count()
        first, last = hours
        kept = tallies.of_hours(self._kept.hours[when], first, last, statuses=statuses)
        parts: list[tuple[str, QuerySet[Any, Any]]] = [("sum(count)", kept.values("count"))]
        if first is not None:
            before = self._rows.filter(Q((f"{when}__lt", tallies.beginning_of(first))))
            parts.append(("count(*)", before.values("pk")))
        if last is not None:
            after = self._rows.filter(Q((f"{when}__gte", tallies.beginning_of(last))))
            parts.append(("count(*)", after.values("pk")))
        # One statement, so that all parts see the same rows.
        terms: list[str] = []
        parameters: list[Any] = []
        for what, rows in parts:
            query, values = rows.query.sql_with_params()
            terms.append(f"coalesce((SELECT {what} FROM ({query}) AS part), 0)")  # noqa: S608 - Django's
            parameters.extend(values)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {' + '.join(terms)}", parameters)
            return int(cursor.fetchone()[0])

    def page(
        self, columns: Sequence[str], order: Order, *, first: int, size: int, count: int
    ) -> list[tuple[Any, ...]]:
        rest = count - first - size
        scope = self._kept.hours.get(order[0].removeprefix("-"))
        if scope is None or min(first, rest) < _FAR or not self._counted_by_hours():
            return super().page(columns, order, first=first, size=size, count=count)
        descends = order[0].startswith("-")
        start = rest if descends else first
        hour, before = tallies.hour_at(scope, start, statuses=self._among.get("status", ()))
        since = Q((f"{order[0].removeprefix('-')}__gte", tallies.beginning_of(hour)))
        ids = self._ids(since, reverse(order) if descends else order, start - before, size)
        return self._read(columns, order, ids)

    def _counted_by_hours(self) -> bool:
        """Return whether the rows are all of some statuses."""
        wanted = self._wanted
        return set(self._among) <= {"status"} and not (
            wanted.started or wanted.ended or wanted.also
        )

    def _ids(self, condition: Q, order: Order, start: int, size: int) -> _Query:
        """Return the ids as `Rows`, merged of those of each value: values times page, no more."""
        if not self._apart or list(order) not in (_BY_TIME, reverse(_BY_TIME)):
            return super()._ids(condition, order, start, size)
        value = RawSQL("chosen.value", [])
        one = self._rest.filter(condition, **{self._apart: value}).order_by(*order)
        inner, parameters = one.values("pk", "last_modified")[
            : start + size
        ].query.sql_with_params()
        way = "DESC" if order[0].startswith("-") else "ASC"
        values = self._among[self._apart]
        kind = "text" if self._apart == "status" else "bigint"
        # Listed, not as an array: of a prepared statement PostgreSQL knows how many they are.
        listed = ", ".join([f"(%s::{kind})"] * len(values))
        statement = (
            f"SELECT found.id FROM (VALUES {listed}) AS chosen(value)"  # noqa: S608 - Django's
            f" CROSS JOIN LATERAL ({inner}) AS found (id, at)"
            f" ORDER BY found.at {way}, found.id {way} OFFSET %s LIMIT %s"
        )
        return statement, [*values, *parameters, start, size]


_BY_TIME: Final = ["last_modified", "id"]
