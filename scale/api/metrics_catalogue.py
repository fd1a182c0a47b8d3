"""/metrics/: what was measured day by day, for plots. Without the slash it is Prometheus'."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any, Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers_operators as answers
from scale.api.base import View, no_parameters
from scale.api.errors import NotFound
from scale.api.paging import page_of_list
from scale.api.parameters import Query
from scale.api.schema import PAGING, many, operation, paged, since
from scale.api.shapes import ERROR, Shape
from scale.core.errors import InvalidInput
from scale.job.models import JobType
from scale.job.selectors import JOB_TYPE_BASE
from scale.queue.catalogue import METRICS, Column, Metric
from scale.queue.selectors import PlotValue, plot

NAME: Final = OpenApiParameter(
    "name", OpenApiTypes.STR, OpenApiParameter.PATH, enum=sorted(METRICS), description="Which."
)
_MONTH: Final = "P30D"
#: Values that one answer may have.
_MOST_VALUES: Final = 100_000


class MetricTypes(View):
    """The kinds of metrics."""

    needs = {"GET": "queue.view_measuredday"}

    @operation(
        "list_metrics",
        "List the kinds of metrics",
        paged(answers.MetricType),
        parameters=PAGING,
        tag="metrics",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        page = query.page()
        query.done()
        found = [METRICS[name] for name in sorted(METRICS)]
        return page_of_list(request, found, page, lambda rows: [_shape(each) for each in rows])


class MetricType(View):
    """One kind of metrics, with all that it can be asked for."""

    needs = {"GET": "queue.view_measuredday"}

    @operation(
        "read_metric",
        "Read a kind of metrics",
        answers.MetricDetails,
        parameters=[NAME],
        problems=(400, 401, 404),
        tag="metrics",
    )
    def get(self, request: Request, name: str) -> Response:
        no_parameters(request)
        metric = _metric(name)
        fields = JOB_TYPE_BASE if metric.choices is JobType else ERROR
        rows = metric.choices._default_manager.order_by("name", "id").values(*fields)
        return Response({**_shape(metric), "choices": list(rows)})


class PlotData(View):
    """The values of columns by day."""

    needs = {"GET": "queue.view_measuredday"}

    @operation(
        "read_plot_data",
        "Read metrics by day",
        paged(answers.PlotAnswer),
        parameters=[
            NAME,
            *PAGING,
            *since(_MONTH, "Whole days, in UTC."),
            many("choice_id", OpenApiTypes.INT, "Only of this choice; each has values then."),
            many("column", OpenApiTypes.STR, "This column; all, if neither is given."),
            many("group", OpenApiTypes.STR, "All columns of this group."),
        ],
        problems=(400, 401, 404),
        tag="metrics",
    )
    def get(self, request: Request, name: str) -> Response:
        metric = _metric(name)
        query = Query(request)
        started, ended = query.recently(_MONTH)
        first, last = started.date(), (ended or timezone.now()).date()
        choice_ids = sorted(set(query.integers("choice_id")))
        columns = _columns(metric, query)
        page = query.page()
        query.done()

        def shape(rows: Sequence[Column]) -> list[Shape]:
            if not rows:
                return []
            most = len(rows) * max(1, len(choice_ids)) * ((last - first).days + 1)
            if most > _MOST_VALUES:
                raise InvalidInput(
                    "started",
                    f"these days, columns and choices may have {most} values; "
                    f"{_MOST_VALUES} can be asked for",
                )
            found = plot(metric, rows, started=first, ended=last, choice_ids=choice_ids)
            return [_plot(column, found[column.name]) for column in rows]

        return page_of_list(request, columns, page, shape)


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise NotFound("metric", name[:40], field="name")
    return METRICS[name]


def _columns(metric: Metric, query: Query) -> list[Column]:
    names = query.choices("column", [each.name for each in metric.columns])
    groups = query.choices("group", [each.name for each in metric.groups])
    if not names and not groups:
        return list(metric.columns)
    return [each for each in metric.columns if each.name in names or each.group in groups]


def _shape(metric: Metric) -> Shape:
    return {
        "name": metric.name,
        "title": metric.title,
        "description": metric.description,
        "filters": [{"param": name, "type": kind} for name, kind in metric.filters.items()],
        "groups": [asdict(each) for each in metric.groups],
        "columns": [asdict(each) for each in metric.columns],
    }


def _plot(column: Column, found: Sequence[PlotValue]) -> Shape:
    days: list[date] = [each.date for each in found]
    amounts = [each.value for each in found]
    return {
        "column": asdict(column),
        "min_x": min(days, default=None),
        "max_x": max(days, default=None),
        "min_y": min(amounts, default=None),
        "max_y": max(amounts, default=None),
        "values": [_value(each) for each in found],
    }


def _value(each: PlotValue) -> dict[str, Any]:
    key = {} if each.choice_id is None else {"id": each.choice_id}
    return {**key, "date": each.date, "value": each.value}


urlpatterns = [
    path("metrics/", MetricTypes.as_view()),
    path("metrics/<str:name>/", MetricType.as_view()),
    path("metrics/<str:name>/plot-data/", PlotData.as_view()),
]
