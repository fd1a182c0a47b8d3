"""How long to wait and how often to try; tests shorten these through the environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Mapping

from .errors import BadUsage


@dataclass(frozen=True)
class Limits:
    """Seconds, except `tries` and `api_tries`, which count attempts.

    SCALE_STEPS_CONNECT_S   to open a connection, TLS handshake included
    SCALE_STEPS_STALL_S     without a byte sent or received
    SCALE_STEPS_TRIES       attempts to bring one input
    SCALE_STEPS_API_TRIES   attempts of one call to Scale: long enough for web to be restarted
    SCALE_STEPS_BACKOFF_S   first pause between attempts; each next one is twice as long, up to 15
    SCALE_STEPS_PROGRESS_S  between two progress lines of one file
    """

    connect_s: float = 10
    stall_s: float = 60
    tries: int = 4
    api_tries: int = 7
    backoff_s: float = 0.5
    progress_s: float = 2

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Limits:
        return cls(
            connect_s=_positive(environ, "SCALE_STEPS_CONNECT_S", cls.connect_s),
            stall_s=_positive(environ, "SCALE_STEPS_STALL_S", cls.stall_s),
            tries=int(_positive(environ, "SCALE_STEPS_TRIES", cls.tries)),
            api_tries=int(_positive(environ, "SCALE_STEPS_API_TRIES", cls.api_tries)),
            backoff_s=_positive(environ, "SCALE_STEPS_BACKOFF_S", cls.backoff_s),
            progress_s=_positive(environ, "SCALE_STEPS_PROGRESS_S", cls.progress_s),
        )

    def last_words(self) -> Limits:
        """Return what holds for reporting a failure: once, and not for long."""
        return replace(
            self, connect_s=min(self.connect_s, 5), stall_s=min(self.stall_s, 5), api_tries=1
        )


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e6:
        raise BadUsage(f"{name} must be a number above 0")
    return value
