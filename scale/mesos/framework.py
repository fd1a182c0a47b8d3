"""How the scheduler introduces itself to a master: FrameworkInfo (mesos.proto)."""

from typing import Final

from scale.mesos.document import JsonObject

#: PARTITION_AWARE tells unreachable tasks from dead ones. TASK_KILLING_STATE is left out: it
#: costs one more update to acknowledge per kill, and nothing is decided by it.
CAPABILITIES: Final = ("PARTITION_AWARE",)


def framework_info(
    *,
    user: str,
    name: str,
    role: str,
    principal: str | None,
    failover_timeout_s: float,
    hostname: str,
    webui_url: str,
) -> JsonObject:
    """Return FrameworkInfo without an id.

    `checkpoint` lets tasks survive a restart of their agent. The master kills all tasks when the
    scheduler is away for longer than `failover_timeout_s`.
    """
    info: JsonObject = {
        "user": user,
        "name": name,
        "role": role,
        "checkpoint": True,
        "failover_timeout": float(failover_timeout_s),
        "hostname": hostname,
        "webui_url": webui_url,
        "capabilities": [{"type": capability} for capability in CAPABILITIES],
    }
    if principal is not None:
        info["principal"] = principal
    return info
