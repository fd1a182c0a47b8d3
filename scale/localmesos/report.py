"""What an agent that registers says of itself: its resources, its tasks, and whose they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from scale.localmesos.messages import BadFrame
from scale.localmesos.resources import InvalidResource, Resources, parse
from scale.localmesos.tasks import Launch, launch_from, launch_record


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A task whose end is not acknowledged yet."""

    launch: Launch
    status: Mapping[str, Any]  # state, timestamp, uuid and container of the last that was told


@dataclass(frozen=True, slots=True)
class Report:
    """An agent's view of itself; `holders` have processes and thus resources."""

    resources: Resources
    frameworks: Mapping[str, Mapping[str, Any]]  # framework id -> FrameworkInfo
    tasks: Sequence[TaskReport]
    holders: Sequence[Launch]


def encode_report(report: Report) -> bytes:
    return orjson.dumps(
        {
            "resources": report.resources.as_json(),
            "frameworks": report.frameworks,
            "tasks": [[launch_record(each.launch), each.status] for each in report.tasks],
            "holders": [launch_record(each) for each in report.holders],
        }
    )


def decode_report(encoded: bytes) -> Report:
    """Read what `encode_report` wrote.

    Raises:
        BadFrame: it is something else.
    """
    try:
        read = orjson.loads(encoded)
        return Report(
            parse(read["resources"], "*"),
            {str(name): dict(info) for name, info in read["frameworks"].items()},
            [TaskReport(launch_from(launch), _status(status)) for launch, status in read["tasks"]],
            [launch_from(each) for each in read["holders"]],
        )
    except (ValueError, LookupError, TypeError, AttributeError, InvalidResource) as error:
        raise BadFrame(f"a report that cannot be read: {error!r}") from None


def _status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"state": str(status["state"]), "timestamp": float(status["timestamp"]), **status}
