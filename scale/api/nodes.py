"""/nodes/: the machines."""

from collections.abc import Sequence
from typing import Any, Final

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from scale.api import answers_operators as answers
from scale.api import bodies, shapes
from scale.api.base import View, created, key_of, no_parameters, some_fields_of, whole_body_of
from scale.api.errors import NotFound
from scale.api.list_schema import parts_of, walking
from scale.api.outlines import item_by_shape
from scale.api.paging import list_of
from scale.api.parameters import Query
from scale.api.schema import ID, example, many, one, operation
from scale.job.lists import Rows
from scale.job.selectors import running_on, scheduled_on
from scale.node.models import Node as NodeRow
from scale.node.selectors import NODE_ORDER, nodes
from scale.node.services import NodeChange, change_node

_HEALTHS: Final = [each.value for each in NodeRow.Health]


def node_row(row: Sequence[Any]) -> shapes.Shape:
    """Shape one row of shapes.NODE with the health that follows from it."""
    return _with_health(dict(zip(shapes.NODE, row, strict=True)))


def _with_health(node: shapes.Shape) -> shapes.Shape:
    health, reason = NodeRow.health_of(node)
    return {**node, "health": health.value, "health_reason": reason}


_ITEM: Final = item_by_shape((*shapes.NODE, "health", "health_reason"), shapes.NODE, node_row)
_PARAMETERS: Final = [
    *walking(_ITEM, NODE_ORDER),
    one("include_inactive", OpenApiTypes.BOOL, "Also those that were retired.", default=False),
    many("health", OpenApiTypes.STR, "Only nodes of which this is the worst.", _HEALTHS),
]


class Nodes(View):
    """The machines."""

    needs = {"GET": "node.view_node"}

    @operation(
        "list_nodes",
        "List nodes",
        parts_of(answers.NodeWithHealth),
        parameters=_PARAMETERS,
        tag="nodes",
    )
    def get(self, request: Request) -> Response:
        query = Query(request)
        started, ended = query.period()
        include_inactive = query.boolean("include_inactive", default=False)
        healths = query.choices("health", _HEALTHS)
        asked = query.asked(NODE_ORDER, ["last_modified"], _ITEM.names)
        query.done()
        rows = nodes(
            started=started, ended=ended, include_inactive=include_inactive, healths=healths
        )
        return list_of(request, Rows(rows), _ITEM, asked)


class Node(View):
    """One machine, what runs there and what that takes."""

    needs = {"GET": "node.view_node", "PATCH": "node.change_node", "PUT": "node.delete_node"}
    # To retire one is to give it up.
    field_needs = {"is_active": "node.delete_node"}

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
        answers.NodeWithHealth,
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
        answers.NodeWithHealth,
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
    return created(request, f"/nodes/{key}/", _with_health(shapes.node(found)))


def _details(found: NodeRow) -> shapes.Shape:
    rows = running_on(found.pk).values_list(*shapes.EXECUTION_IN_NODE_COLUMNS)
    running = [shapes.execution_in_node(row) for row in rows]
    shape = {**_with_health(shapes.node(found)), "job_exes_running": running}
    if not found.is_online:
        return {**shape, "disconnected": True}
    return {**shape, "resources": _resources(found)}


def _resources(found: NodeRow) -> shapes.Shape:
    taken = scheduled_on(found.pk)
    total = _rounded(found.millicpus_total, found.mem_mib_total, found.disk_mib_total)
    scheduled = _rounded(taken.millicpus, taken.mem_mib, taken.disk_mib)
    flat = total or dict.fromkeys(("cpus", "mem", "disk"))
    return {"total": total, "scheduled": scheduled, "used": scheduled, **flat}


def _rounded(*amounts: int | None) -> dict[str, float] | None:
    shape = shapes.resources(*amounts)
    return shape and {kind: round(amount, 1) for kind, amount in shape.items()}


urlpatterns = [
    path("nodes/", Nodes.as_view()),
    path("nodes/<str:id>/", Node.as_view()),
]
