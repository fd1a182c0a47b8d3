"""Which path leads where, on the master's port and on an agent's."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from scale.localmesos import agent_views, operator_api, views
from scale.localmesos.agent import Agent
from scale.localmesos.files import Files, FilesApi
from scale.localmesos.http import Handler, Refused, Request, Response, Route, json_response
from scale.localmesos.master import Master
from scale.localmesos.members import Members
from scale.localmesos.scheduler_api import SchedulerApi

READ: Final = "mesos-master-readonly"
WRITE: Final = "mesos-master-readwrite"
AGENT_READ: Final = "mesos-agent-readonly"
AGENT_WRITE: Final = "mesos-agent-readwrite"
MASTER_UNSUPPORTED: Final = (
    "/state-summary", "/tasks", "/frameworks", "/roles", "/flags", "/quota", "/weights",
    "/maintenance", "/machine", "/reserve", "/unreserve", "/create-volumes", "/destroy-volumes",
    "/files", "/logging/toggle",
)  # fmt: skip
AGENT_UNSUPPORTED: Final = ("/flags", "/logging/toggle", "/api/v1/executor", "/profiler")
ANY: Final = ("GET", "POST", "PUT", "DELETE")


def _view(make: Callable[[Request], object]) -> Handler:
    async def handler(request: Request) -> Response:
        return json_response(make(request))

    return handler


async def _health(_: Request) -> Response:
    return Response()


async def _unsupported(request: Request) -> Response:
    raise Refused(HTTPStatus.NOT_IMPLEMENTED, f"{request.path} is not supported by local Mesos")


def _open_routes() -> dict[str, Route]:
    return {
        "/version": Route(_view(lambda _: views.VERSION_INFO), None),
        "/health": Route(_health, None),
    }


def of_master(master: Master, members: Members) -> Mapping[str, Route]:
    """Return the master's routes."""
    leader = f"//{master.address.ip}:{master.address.port}".encode()

    async def redirect(_: Request) -> Response:
        return Response(HTTPStatus.TEMPORARY_REDIRECT, b"", None, ((b"Location", leader),))

    async def teardown(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        ids = form.get("frameworkId")
        if not ids:
            raise Refused(HTTPStatus.BAD_REQUEST, "Missing 'frameworkId' query parameter")
        operator_api.teardown(master, ids[0])
        return Response()

    return {
        **_open_routes(),
        "/api/v1/scheduler": Route(SchedulerApi(master), "mesos-master-scheduler", ("POST",)),
        "/api/v1": Route(operator_api.of_master(master, members), WRITE, ("POST",)),
        "/state": Route(_view(lambda _: views.master_state(master)), READ),
        "/slaves": Route(
            _view(lambda request: views.slaves_view(master, request.query.get("slave_id"))), READ
        ),
        "/metrics/snapshot": Route(_view(lambda _: views.master_metrics(master)), READ),
        "/redirect": Route(redirect, READ),
        "/teardown": Route(teardown, WRITE, ("POST",)),
        **{path: Route(_unsupported, READ, ANY) for path in MASTER_UNSUPPORTED},
    }


def of_agent(agent: Agent) -> Mapping[str, Route]:
    """Return the routes of one agent."""
    files = Files(agent.place.root)
    api = FilesApi(files)
    both = ("GET", "POST")
    return {
        **_open_routes(),
        "/api/v1": Route(operator_api.of_agent(agent, files), AGENT_WRITE, ("POST",)),
        "/state": Route(_view(lambda _: agent_views.agent_state(agent)), AGENT_READ),
        "/containers": Route(
            _view(lambda request: agent_views.containers_view(agent, request.query)),
            AGENT_READ,
            both,
        ),
        "/monitor/statistics": Route(
            _view(lambda _: agent_views.monitor_view(agent)), AGENT_READ, both
        ),
        "/metrics/snapshot": Route(_view(lambda _: agent_views.agent_metrics(agent)), AGENT_READ),
        "/files/browse": Route(api.browse, AGENT_READ),
        "/files/read": Route(api.read, AGENT_READ),
        "/files/download": Route(api.download, AGENT_READ),
        "/files/debug": Route(api.debug, AGENT_READ),
        **{path: Route(_unsupported, AGENT_READ, ANY) for path in AGENT_UNSUPPORTED},
    }
