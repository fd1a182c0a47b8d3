"""/errors/: what jobs fail with."""

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies, shapes
from scale.api.base import View, body_of, created, key_of, no_parameters
from scale.api.errors import NotFound
from scale.api.paging import page_of
from scale.api.parameters import Query
from scale.api.schema import ID, example, listing, operation, paged
from scale.error.models import Error as ErrorRow
from scale.error.selectors import ERROR_ORDER, errors
from scale.error.services import ErrorChange, change_error, create_error


class Errors(View):
    """The catalogue of what jobs fail with."""

    needs = {"POST": "error.add_error"}

    @operation(
        "list_errors",
        "List errors",
        paged(answers.ErrorAnswer),
        parameters=listing(ERROR_ORDER),
        tag="errors",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.period()
        order = query.order(ERROR_ORDER, ["last_modified"])
        page = query.page()
        query.done()
        rows = errors(started=started, ended=ended).order_by(*order)
        return page_of(request, rows, page, shapes.ERROR, shapes.plain(shapes.ERROR))

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

    needs = {"PATCH": "error.change_error"}

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
