"""/timeline/job-types/: how much ended on each day, by job type."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api.answers_operators import TimelineAnswer
from scale.api.base import View
from scale.api.paging import page_of_all
from scale.api.parameters import Query
from scale.api.schema import PAGING, many, operation, paged, since
from scale.api.shapes import Shape
from scale.core.errors import InvalidInput
from scale.queue.selectors import OfJobTypes, ended_by_day

_MONTH: Final = "P30D"
# The second is for the clock, which goes on between reading the start and the end.
_LONGEST: Final = timedelta(days=366, seconds=1)
#: Values that one answer may have.
_MOST_VALUES: Final = 100_000
_COLUMNS: Final = ("id", "name", "version", "title", "revision_num")


class JobTypeTimeline(View):
    """Job types, by name and version, with how many executions ended on each day."""

    needs = {"GET": "queue.view_measuredday"}

    @operation(
        "list_job_type_timeline",
        "List how many executions of each job type ended on each day",
        paged(TimelineAnswer),
        parameters=[
            *PAGING,
            *since(_MONTH, "Whole days, in UTC; at most 366 before `ended`."),
            many("id", OpenApiTypes.INT, "Only this job type."),
            many("name", OpenApiTypes.STR, "Only job types with this name."),
            many("category", OpenApiTypes.STR, "Only job types of this category."),
        ],
        tag="timeline",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.recently(_MONTH)
        wanted = OfJobTypes(
            ids=query.integers("id"),
            names=query.texts("name"),
            categories=query.texts("category"),
        )
        page = query.page()
        query.done()
        until = ended or timezone.now()
        if until - started > _LONGEST:
            raise InvalidInput("started", "must be at most 366 days before ended")
        if page.size * ((until - started).days + 1) > _MOST_VALUES:
            raise InvalidInput("page_size", f"must be smaller: {_MOST_VALUES} values are the most")

        def shape(rows: Sequence[tuple[Any, ...]]) -> list[Shape]:
            ids = [row[0] for row in rows]
            counts = ended_by_day(ids, started=started.date(), ended=until.date()) if ids else {}
            return [_shape(row, counts.get(row[0], [])) for row in rows]

        rows = wanted.rows().order_by("name", "version", "id")
        return page_of_all(request, rows, page, _COLUMNS, shape)


def _shape(row: Sequence[Any], counts: Sequence[tuple[Any, int]]) -> Shape:
    key, *rest = row
    return {
        "job_type_id": key,
        **dict(zip(_COLUMNS[1:], rest, strict=True)),
        "results": [{"date": day, "count": count} for day, count in counts],
    }


urlpatterns = [path("timeline/job-types/", JobTypeTimeline.as_view())]
