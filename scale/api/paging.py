"""The envelope of every list: count, next, previous, results."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api.outlines import Item
from scale.api.parameters import Asked, Page
from scale.api.walks import read_cursor, write_cursor
from scale.core.errors import InvalidInput
from scale.job.lists import Position, Rows

T = TypeVar("T")
_Shapes = list[dict[str, Any]]


def _as_they_are(items: _Shapes) -> _Shapes:
    return items


def list_of(
    request: Request,
    rows: Rows,
    item: Item,
    asked: Asked,
    finish: Callable[[_Shapes], _Shapes] = _as_they_are,
) -> Response:
    """Answer a page of a list, or the next part of a walk through it; only what was asked for.

    A query for the count and one for the rows; a page far from both ends may take one more, one
    after the end none but the count. `finish` gets all items, so that it may add to them.
    """
    if asked.cursor is not None:
        return _part_of_walk(request, rows, item, asked, asked.cursor, finish)
    outline = item.outline(asked.fields)
    page, count = asked.page, rows.count()
    first = (page.number - 1) * page.size
    found = rows.page(outline.columns, asked.order, first=first, size=page.size, count=count)
    return _envelope(request, page, count, finish([outline.shape(row) for row in found]))


def _part_of_walk(
    request: Request,
    rows: Rows,
    item: Item,
    asked: Asked,
    cursor: str,
    finish: Callable[[_Shapes], _Shapes],
) -> Response:
    if not asked.walk:
        raise InvalidInput("cursor", "walks in the default order of the list, or by id, only")
    order, size = asked.order, asked.page.size
    place = request.path.removeprefix("/v3")
    position = Position(read_cursor(cursor, place, order, rows.model)) if cursor else None
    outline = item.outline(asked.fields)
    found, end = rows.after(outline.columns, order, position, size=size)
    following = _url(request, "cursor", write_cursor(place, order, end.values)) if end else None
    return _answer(rows.count(), following, None, finish([outline.shape(row) for row in found]))


def page_of(
    request: Request,
    rows: QuerySet[Any, Any],
    page: Page,
    columns: Sequence[str],
    shape: Callable[[tuple[Any, ...]], dict[str, Any]],
) -> Response:
    """Answer one page of ordered rows; two queries, one if there is nothing.

    A page after the last is empty, not an error: lists get shorter while they are read.
    """
    return page_of_all(request, rows, page, columns, lambda found: [shape(row) for row in found])


def page_of_all(
    request: Request,
    rows: QuerySet[Any, Any],
    page: Page,
    columns: Sequence[str],
    shape: Callable[[Sequence[tuple[Any, ...]]], _Shapes],
) -> Response:
    """Answer as `page_of`; `shape` gets all rows of the page, so that it may ask for more."""
    count = rows.count()
    first = (page.number - 1) * page.size
    found = list(rows.values_list(*columns)[first : first + page.size]) if first < count else []
    return _envelope(request, page, count, shape(found))


def page_of_list(
    request: Request, rows: Sequence[T], page: Page, shape: Callable[[Sequence[T]], _Shapes]
) -> Response:
    """Answer one page of what is few and at hand already; `shape` gets the rows of the page."""
    first = (page.number - 1) * page.size
    return _envelope(request, page, len(rows), shape(rows[first : first + page.size]))


def _envelope(request: Request, page: Page, count: int, results: list[Any]) -> Response:
    more = page.number * page.size < count
    following = _url(request, "page", page.number + 1) if more else None
    previous = _url(request, "page", page.number - 1) if page.number > 1 else None
    return _answer(count, following, previous, results)


def _answer(
    count: int, following: str | None, previous: str | None, results: list[Any]
) -> Response:
    return Response({"count": count, "next": following, "previous": previous, "results": results})


def _url(request: Request, parameter: str, value: object) -> str:
    """Return the URL of this request with another page, or another place of its walk."""
    parameters = [
        (name, each)
        for name, values in request.query_params.lists()
        if name not in {"page", "cursor"}
        for each in values
    ]
    query = urlencode([*parameters, (parameter, value)])
    return str(request.build_absolute_uri(f"{request.path}?{query}"))
