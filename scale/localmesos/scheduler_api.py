"""POST /api/v1/scheduler: the checks in Mesos' order, then the call (src/master/http.cpp:468)."""

import base64
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from scale.localmesos.accept import accept
from scale.localmesos.framework import Framework
from scale.localmesos.http import Refused, Request, Response, accepts_json, parse_call
from scale.localmesos.master import Master
from scale.localmesos.reconcile import answer, reconcile
from scale.localmesos.schema import Malformed, convert
from scale.localmesos.stream import EventStream

Call = Mapping[str, Any]

# The message that must be there, by type; the others have none or are dropped unread.
_PAYLOADS: Final = {
    kind: kind.lower()
    for kind in (
        "SUBSCRIBE", "ACCEPT", "DECLINE", "KILL", "ACKNOWLEDGE", "RECONCILE", "MESSAGE",
        "REQUEST", "SHUTDOWN", "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS",
        "ACKNOWLEDGE_OPERATION_STATUS", "RECONCILE_OPERATIONS", "UPDATE_FRAMEWORK",
    )
}  # fmt: skip


class SchedulerApi:
    """Serves frameworks."""

    def __init__(self, master: Master) -> None:
        self._master = master

    async def __call__(self, request: Request) -> Response | None:
        call = _checked(request, await request.body())
        if call["type"] == "SUBSCRIBE":
            await self._subscribe(request, call)
            return None
        framework = self._connected(request, call)
        carry_out = _CALLS.get(call["type"])
        if carry_out is not None:
            carry_out(self._master, framework, call)
        if call["type"] in ("UNKNOWN", "UPDATE_FRAMEWORK"):
            raise Refused(HTTPStatus.NOT_IMPLEMENTED, f"{call['type']} is not supported")
        return Response(HTTPStatus.ACCEPTED)

    async def _subscribe(self, request: Request, call: Call) -> None:
        info = call["subscribe"]["framework_info"]
        _check_principal(request.principal, info)
        if not accepts_json(request):
            raise Refused(
                HTTPStatus.NOT_ACCEPTABLE,
                "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'",
            )
        if b"mesos-stream-id" in request.headers:
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                "Subscribe calls should not include the 'Mesos-Stream-Id' header",
            )
        stream = EventStream(str(uuid.uuid4()))
        suppressed = call["subscribe"].get("suppressed_roles", ())
        framework = self._master.subscribe(info, suppressed, stream)
        try:
            await stream.serve(request.receive, request.send)
        finally:
            if framework is not None:
                self._master.disconnected(framework, stream)

    def _connected(self, request: Request, call: Call) -> Framework:
        framework_id = call["framework_id"]["value"]
        framework = self._master.frameworks.get(framework_id)
        if framework is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "Framework cannot be found")
        if framework.principal is not None and framework.principal != request.principal:
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"Authenticated principal '{request.principal}' does not match principal "
                f"'{framework.principal}' set in `FrameworkInfo`",
            )
        if framework.stream is None:
            raise Refused(HTTPStatus.FORBIDDEN, "Framework is not subscribed")
        _check_stream(request, framework_id, framework.stream.stream_id)
        return framework


def _check_stream(request: Request, framework_id: str, current: str) -> None:
    given = request.headers.get(b"mesos-stream-id")
    if given is None:
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            "All non-subscribe calls should include the 'Mesos-Stream-Id' header",
        )
    if given != current.encode():
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"The stream ID '{given.decode('latin-1')}' included in this request didn't match the "
            f"stream ID currently associated with framework ID {framework_id}",
        )


def _check_principal(principal: str, info: Mapping[str, Any]) -> None:
    if info.get("principal", principal) != principal:
        raise _invalid(
            f"Authenticated principal '{principal}' does not match principal "
            f"'{info['principal']}' set in `FrameworkInfo`"
        )


def _checked(request: Request, body: bytes) -> dict[str, Any]:
    """Return the call, or refuse it with what is wrong first."""
    parsed = parse_call(request, body)
    try:
        call = convert("Call", parsed)
    except Malformed as error:
        text = f"Failed to convert JSON into Call protobuf: {error}"
        raise Refused(HTTPStatus.BAD_REQUEST, text) from None
    if "type" not in call:
        raise _invalid("Expecting 'type' to be present")
    payload = _PAYLOADS.get(call["type"])
    if payload is not None and payload not in call:
        raise _invalid(f"Expecting '{payload}' to be present")
    if call["type"] == "SUBSCRIBE":
        _check_ids(call)
    elif not call.get("framework_id", {}).get("value"):
        raise _invalid("Expecting 'framework_id' to be present")
    if call["type"] == "ACKNOWLEDGE" and len(base64.b64decode(call["acknowledge"]["uuid"])) != 16:
        raise _invalid("Not a valid UUID")
    return call


def _check_ids(call: dict[str, Any]) -> None:
    info = call["subscribe"]["framework_info"]
    if call.get("framework_id", {}).get("value", "") != info.get("id", {}).get("value", ""):
        raise _invalid("'framework_id' differs from 'subscribe.framework_info.id'")


def _invalid(text: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, f"Failed to validate scheduler::Call: {text}")


def _decline(master: Master, framework: Framework, call: Call) -> None:
    declined = call["decline"]
    offer_ids = [each["value"] for each in declined.get("offer_ids", ())]
    master.offers.decline(framework, offer_ids, declined.get("filters", {}).get("refuse_seconds"))


def _roles(framework: Framework, call: Call, payload: str) -> list[str] | None:
    """Return the roles that a call names; None if one of them is not the framework's."""
    roles = list(call.get(payload, {}).get("roles", ()))
    return roles if set(roles) <= set(framework.roles) else None


def _revive(master: Master, framework: Framework, call: Call) -> None:
    roles = _roles(framework, call, "revive")
    if roles is not None:
        master.allocator.revive(framework.framework_id, roles)
        master.offers.request_allocation()


def _suppress(master: Master, framework: Framework, call: Call) -> None:
    roles = _roles(framework, call, "suppress")
    if roles is not None:
        master.allocator.suppress(framework.framework_id, roles)


def _kill(master: Master, framework: Framework, call: Call) -> None:
    killed = call["kill"]
    task_id, agent_id = killed["task_id"]["value"], killed.get("agent_id", {}).get("value")
    task = framework.tasks.get(task_id)
    if task is None:
        answer(master, framework, task_id, agent_id)
    elif agent_id in (None, task.launch.agent_id):
        agent = master.agents.get(task.launch.agent_id)
        if agent is not None:
            agent.kill(task.launch.key, killed.get("kill_policy"))


def _acknowledge(master: Master, framework: Framework, call: Call) -> None:
    told = call["acknowledge"]
    master.acknowledge(framework, told["agent_id"]["value"], told["task_id"]["value"], told["uuid"])


_CALLS: Final[Mapping[str, Callable[[Master, Framework, Call], None]]] = {
    "ACCEPT": lambda master, framework, call: accept(master, framework, call["accept"]),
    "DECLINE": _decline,
    "REVIVE": _revive,
    "SUPPRESS": _suppress,
    "KILL": _kill,
    "ACKNOWLEDGE": _acknowledge,
    "RECONCILE": lambda master, framework, call: reconcile(
        master, framework, call["reconcile"].get("tasks", ())
    ),
    "TEARDOWN": lambda master, framework, _: master.remove(framework),
}
