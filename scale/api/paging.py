"""The envelope of every list: count, next, previous, results."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api.parameters import Page

T = TypeVar("T")


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
    shape: Callable[[Sequence[tuple[Any, ...]]], list[dict[str, Any]]],
) -> Response:
    """Answer as `page_of`; `shape` gets all rows of the page, so that it may ask for more."""
    count = rows.count()
    first = (page.number - 1) * page.size
    found = list(rows.values_list(*columns)[first : first + page.size]) if first < count else []
    return _envelope(request, page, count, shape(found))


def page_of_list(
    request: Request,
    rows: Sequence[T],
    page: Page,
    shape: Callable[[Sequence[T]], list[dict[str, Any]]],
) -> Response:
    """Answer one page of what is few and at hand already; `shape` gets the rows of the page."""
    first = (page.number - 1) * page.size
    return _envelope(request, page, len(rows), shape(rows[first : first + page.size]))


def _envelope(request: Request, page: Page, count: int, results: list[Any]) -> Response:
    return Response(
        {
            "count": count,
            "next": _url(request, page.number + 1) if page.number * page.size < count else None,
            "previous": _url(request, page.number - 1) if page.number > 1 else None,
            "results": results,
        }
    )


def _url(request: Request, number: int) -> str:
    parameters = [
        (name, value)
        for name, values in request.query_params.lists()
        if name != "page"
        for value in values
    ]
    query = urlencode([*parameters, ("page", number)])
    return str(request.build_absolute_uri(f"{request.path}?{query}"))
