"""/nodes/: the machines."""

from typing import Any, Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers, bodies, shapes
from scale.api.base import View, created, key_of, no_parameters, some_fields_of, whole_body_of
from scale.api.errors import NotFound
from scale.api.paging import page_of
from scale.api.parameters import Query
from scale.api.schema import ID, example, listing, one, operation, paged
from scale.job.selectors import running_on, scheduled_on
from scale.node.models import Node as NodeRow
from scale.node.selectors import NODE_ORDER, nodes
from scale.node.services import NodeChange, change_node

_PARAMETERS: Final = [
    *listing(NODE_ORDER),
    one("include_inactive", OpenApiTypes.BOOL, "Also those that were retired.", default=False),
]


class Nodes(View):
    """The machines."""

    @operation(
        "list_nodes", "List nodes", paged(answers.NodeAnswer), parameters=_PARAMETERS, tag="nodes"
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.period()
        include_inactive = query.boolean("include_inactive", default=False)
        order = query.order(NODE_ORDER, ["last_modified"])
        page = query.page()
        query.done()
        rows = nodes(started=started, ended=ended, include_inactive=include_inactive)
        return page_of(request, rows.order_by(*order), page, shapes.NODE, shapes.plain(shapes.NODE))


class Node(View):
    """One machine, what runs there and what that takes."""

    needs = {"PATCH": "node.change_node", "PUT": "node.change_node"}

    @operation(
        "read_node",
        "Read a node",
        answers.NodeDetails,
        parameters=[ID],
        problems=(400, 401, 404),
        tag="nodes",
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "node")
        found = NodeRow.objects.filter(pk=key).first()
        if found is None:
            raise NotFound("node", key)
        return Response(_details(found))

    @operation(
        "change_node",
        "Pause or resume a node",
        answers.NodeAnswer,
        status=201,
        body=bodies.NodeChangeBody,
        parameters=[ID],
        problems=(400, 401, 403, 404, 413, 415),
        examples=[example({"is_paused": True, "pause_reason": "a new disk"})],
        tag="nodes",
    )
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "node")
        return _changed(request, key, some_fields_of(request, bodies.NodeChangeBody))

    @operation(
        "replace_node",
        "Set all of a node that people may set",
        answers.NodeAnswer,
        status=201,
        body=bodies.NodeBody,
        parameters=[ID],
        problems=(400, 401, 403, 404, 413, 415),
        examples=[example({"hostname": "n1", "port": 5051, "is_paused": False, "is_active": True})],
        tag="nodes",
    )
    def put(self, request: Request, id: str) -> Response:  # noqa: A002 - the name in the schema
        no_parameters(request)
        key = key_of(id, "node")
        return _changed(request, key, whole_body_of(request, bodies.NodeBody))


def _changed(request: Request, key: int, body: dict[str, Any]) -> Response:
    if "pause_reason" in body:
        body["pause_reason"] = body["pause_reason"] or ""
    try:
        found = change_node(key, NodeChange(**body), at=timezone.now())
    except NodeRow.DoesNotExist:
        raise NotFound("node", key) from None
    # 201 is what the interface has always answered here.
    return created(request, f"/nodes/{key}/", shapes.node(found))


def _details(found: NodeRow) -> dict[str, Any]:
    rows = running_on(found.pk).values_list(*shapes.EXECUTION_IN_NODE_COLUMNS)
    running = [shapes.execution_in_node(row) for row in rows]
    shape = {**shapes.node(found), "job_exes_running": running}
    if not found.is_online:
        return {**shape, "disconnected": True}
    scheduled = scheduled_on(found.pk)
    return {
        **shape,
        "resources": {
            "total": shapes.resources(
                found.millicpus_total, found.mem_mib_total, found.disk_mib_total
            ),
            "scheduled": shapes.resources(
                scheduled.millicpus, scheduled.mem_mib, scheduled.disk_mib
            ),
        },
    }


urlpatterns = [
    path("nodes/", Nodes.as_view()),
    path("nodes/<str:id>/", Node.as_view()),
]
