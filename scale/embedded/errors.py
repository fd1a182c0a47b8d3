"""Why `scale up` stops before it is ready."""

from typing import ClassVar

from scale.core.errors import ScaleError


class CannotStart(ScaleError):
    """Something outside this program keeps it from starting; the message is for its user."""

    code: ClassVar[str] = "cannot_start"
