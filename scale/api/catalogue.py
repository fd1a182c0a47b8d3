"""/errors/: what jobs fail with."""

from typing import Final

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies, outlines, shapes
from scale.api.base import View, body_of, created, key_of, no_parameters
from scale.api.errors import NotFound
from scale.api.list_schema import parts_of, walking
from scale.api.paging import list_of
from scale.api.parameters import Query
from scale.api.schema import ID, example, many, one, operation
from scale.error.models import Error as ErrorRow
from scale.error.selectors import ERROR_ORDER, errors
from scale.error.services import ErrorChange, change_error, create_error
from scale.job.lists import Rows

_PARAMETERS: Final = [
    *walking(outlines.ERROR, ERROR_ORDER),
    many("name", OpenApiTypes.STR, "Only with this name."),
    many("category", OpenApiTypes.STR, "Only of this category.", ErrorRow.Category.values),
    one("is_builtin", OpenApiTypes.BOOL, "Only those that Scale brings, or only the others."),
]


class Errors(View):
    """The catalogue of what jobs fail with."""

    needs = {"GET": "error.view_error", "POST": "error.add_error"}

    @operation(
        "list_errors",
        "List errors",
        parts_of(answers.ErrorAnswer),
        parameters=_PARAMETERS,
        tag="errors",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.period()
        names = query.texts("name")
        categories = query.choices("category", ErrorRow.Category.values)
        is_builtin = query.maybe_boolean("is_builtin")
        asked = query.asked(ERROR_ORDER, ["last_modified"], outlines.ERROR.names)
        query.done()
        rows = errors(
            started=started,
            ended=ended,
            names=names,
            categories=categories,
            is_builtin=is_builtin,
        )
        return list_of(request, Rows(rows), outlines.ERROR, asked)

    @operation(
        "create_error",
        "Create an error",
        answers.ErrorAnswer,
        status=201,
        body=bodies.ErrorBody,
        problems=(400, 401, 403, 409, 413, 415),
        examples=[
            example(
                {
                    "name": "bad-data",
                    "title": "Bad data",
                    "description": "The input cannot be read.",
                    "category": "DATA",
                }
            )
        ],
        tag="errors",
    )
    def post(self, request: Request) -> Response:
        no_parameters(request)
        error = create_error(**body_of(request, bodies.ErrorBody))
        return created(request, f"/errors/{error.pk}/", shapes.error(error))


class Error(View):
    """One error of the catalogue."""

    needs = {"GET": "error.view_error", "PATCH": "error.change_error"}

    @operation(
        "read_error",
        "Read an error",
        answers.ErrorAnswer,
        parameters=[ID],
        problems=(400, 401, 404),
        tag="errors",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "error")
        found = ErrorRow.objects.filter(pk=key).first()
        if found is None:
            raise NotFound("error", key)
        return Response(shapes.error(found))

    @operation(
        "change_error",
        "Change an error",
        answers.ErrorAnswer,
        body=bodies.ErrorChangeBody,
        parameters=[ID],
        problems=(400, 401, 403, 404, 413, 415),
        examples=[example({"title": "Bad data", "category": "DATA"})],
        tag="errors",
    )
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "error")
        change = ErrorChange(**body_of(request, bodies.ErrorChangeBody))
        try:
            return Response(shapes.error(change_error(key, change)))
        except ErrorRow.DoesNotExist:
            raise NotFound("error", key) from None


urlpatterns = [
    path("errors/", Errors.as_view()),
    path("errors/<str:id>/", Error.as_view()),
]
