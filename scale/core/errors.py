"""What Scale itself raises; failures of the users' jobs are rows of the error app instead.

ScaleError
├── InvalidInput            what was sent does not fit; names the field
│   └── TooLarge            there is more of it than is taken (job.files)
├── IllegalTransition       the lifecycle has no such move
├── NotAllowedNow           well formed, but the state of the thing forbids it
├── NotEnoughResources      more was taken than there is
├── GatewayError            the cluster did not take a call; whether it acted on it is unknown
└── LeadershipLost          another scheduler leads; nothing was written
"""

from typing import ClassVar


class ScaleError(Exception):
    """Something went wrong that the caller can be told about."""

    code: ClassVar[str] = "error"


class InvalidInput(ScaleError):
    """A value does not fit.

    `field` is the path of the value in what was sent, such as `interface.input_data[0].name`.
    """

    code = "invalid"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class IllegalTransition(ScaleError):
    """The move is not allowed in this state."""

    code = "illegal_transition"


class NotAllowedNow(ScaleError):
    """The state of the thing does not allow this."""

    code = "conflict"


class NotEnoughResources(ScaleError):
    """More was asked for than there is."""

    code = "not_enough_resources"


class GatewayError(ScaleError):
    """The cluster could not be told; whether it heard is unknown."""

    code = "cluster_unavailable"


class LeadershipLost(ScaleError):
    """Another scheduler leads now."""

    code = "leadership_lost"
