"""POST /api/v1 of the master and of an agent: a few operator calls, 501 for the rest."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from scale.localmesos import agent_views, views
from scale.localmesos.agent import Agent
from scale.localmesos.files import Files, FilesApi
from scale.localmesos.http import Refused, Request, Response, json_response, parse_call
from scale.localmesos.master import VERSION, Master
from scale.localmesos.members import Members
from scale.localmesos.place import Place
from scale.localmesos.remote import Remote
from scale.localmesos.schema import Malformed, convert

Call = Mapping[str, Any]
Answer = Callable[[Call], dict[str, Any] | None]

PAYLOADS: Final = ("LIST_FILES", "READ_FILE", "TEARDOWN", "MARK_AGENT_GONE")


class OperatorApi:
    """One endpoint; `answers` maps a call's type to what fills its response message."""

    def __init__(self, who: str, answers: Mapping[str, Answer]) -> None:
        self._who = who
        self._answers = answers

    async def __call__(self, request: Request) -> Response:
        call = self._checked(request, await request.body())
        answer = self._answers.get(call["type"])
        if answer is None:
            text = f"{call['type']} is not supported by local Mesos"
            raise Refused(HTTPStatus.NOT_IMPLEMENTED, text)
        payload = answer(call.get(call["type"].lower(), {}))
        if payload is None:
            return Response()
        return json_response({"type": call["type"], call["type"].lower(): payload})

    def _checked(self, request: Request, body: bytes) -> dict[str, Any]:
        parsed = parse_call(request, body)
        try:
            call = convert("OperatorCall", parsed)
        except Malformed as error:
            text = f"Failed to convert JSON into Call protobuf: {error}"
            raise Refused(HTTPStatus.BAD_REQUEST, text) from None
        problem = None
        if "type" not in call:
            problem = "'type'"
        elif call["type"] in PAYLOADS:
            payload = call["type"].lower()
            problem = None if payload in call else f"'{payload}'"
        if problem is not None:
            text = f"Failed to validate {self._who}::Call: Expecting {problem} to be present"
            raise Refused(HTTPStatus.BAD_REQUEST, text)
        return call


def _common(metrics: Callable[[], Mapping[str, float]]) -> dict[str, Answer]:
    return {
        "GET_HEALTH": lambda _: {"healthy": True},
        "GET_VERSION": lambda _: {"version_info": views.VERSION_INFO},
        "GET_METRICS": lambda _: {
            "metrics": [{"name": name, "value": value} for name, value in metrics().items()]
        },
        "GET_FLAGS": lambda _: {},  # none; an empty list is left out
    }


def teardown(master: Master, framework_id: str) -> None:
    """Remove a framework for an operator.

    Raises:
        Refused: there is no such framework.
    """
    framework = master.frameworks.get(framework_id)
    if framework is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "No framework found with specified ID")
    master.remove(framework)


def of_master(master: Master, members: Members) -> OperatorApi:
    def tear_down(call: Call) -> None:
        teardown(master, call["framework_id"]["value"])

    def mark_gone(call: Call) -> None:
        agent_id = call["agent_id"]["value"]
        if not members.mark_gone(agent_id):
            raise Refused(HTTPStatus.NOT_FOUND, f"Agent '{agent_id}' not found")

    return OperatorApi(
        "master",
        {
            **_common(lambda: views.master_metrics(master)),
            "GET_MASTER": lambda _: {
                "master_info": master.info(),
                "start_time": master.started,
                "elected_time": master.started,
            },
            "GET_AGENTS": lambda _: {
                "agents": [_agent(master, agent) for agent in master.agents.values()],
                "recovered_agents": [
                    {"id": {"value": agent_id}} for agent_id in sorted(master.absent.recovered)
                ],
            },
            "TEARDOWN": tear_down,
            "MARK_AGENT_GONE": mark_gone,
        },
    )


def _agent(master: Master, agent: Remote) -> dict[str, Any]:
    shown = {
        "agent_info": {**_agent_info(agent.place), "checkpoint": True},
        "active": agent.link is not None,
        "deactivated": False,
        "version": VERSION,
        "pid": f"slave(1)@{agent.place.address}",
        "registered_time": {"nanoseconds": int(agent.registered * 1e9)},
        "total_resources": agent.place.resources.as_json(),
        "allocated_resources": views.used_full(agent),
        "offered_resources": views.offered_full(master, agent.place.agent_id),
        "capabilities": [{"type": name} for name in views.AGENT_CAPABILITIES],
    }
    if agent.reregistered is not None:
        shown["reregistered_time"] = {"nanoseconds": int(agent.reregistered * 1e9)}
    return shown


def _agent_info(place: Place) -> dict[str, Any]:
    """Return AgentInfo: its resources are those of --resources, which name no role."""
    listed = place.resources.as_json()
    return {
        "hostname": place.hostname,
        "port": place.port,
        "resources": [
            {name: value for name, value in each.items() if name != "role"} for each in listed
        ],
        "id": {"value": place.agent_id},
    }


def of_agent(agent: Agent, files: Files) -> OperatorApi:
    api = FilesApi(files)
    return OperatorApi(
        "agent",
        {
            **_common(lambda: agent_views.agent_metrics(agent)),
            "GET_AGENT": lambda _: {"agent_info": _agent_info(agent.place)},
            "GET_CONTAINERS": lambda _: agent_views.v1_containers(agent),
            "LIST_FILES": api.list_files,
            "READ_FILE": api.read_file,
        },
    )
