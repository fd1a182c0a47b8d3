"""Settings come from the environment, are checked whole, and a bad one stops the start by name."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload
from urllib.parse import SplitResult, unquote, urlsplit

T = TypeVar("T")
D = TypeVar("D")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


class BadSettings(SystemExit):
    """The environment cannot be used; the message has a line for each bad variable."""


class Environment:
    """Read variables, collect what is wrong with them, and report all of it at once."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = variables
        self._problems: list[str] = []

    @overload
    def __call__(self, name: str, cast: Callable[[str], T], default: D, /) -> T | D: ...
    @overload
    def __call__(self, name: str, cast: Callable[[str], T], /) -> T: ...
    def __call__(self, name: str, cast: Callable[[str], Any], /, *default: Any) -> Any:
        """Return the variable through `cast`; without a default it must be set and not empty.

        A `cast` refuses with ValueError, whose message must not repeat a secret.
        """
        text = self._variables.get(name, "")
        if not text:
            if not default:
                self._problems.append(f"{name} must be set")
            return default[0] if default else ""
        try:
            return cast(text)
        except ValueError as error:
            self._problems.append(f"{name}: {error}")
            return default[0] if default else ""

    def refuse(self, name: str, reason: str) -> None:
        """Note a problem that only shows when variables are seen together."""
        self._problems.append(f"{name}: {reason}")

    def check(self) -> None:
        """Stop the process if anything was wrong."""
        if self._problems:
            raise BadSettings("Scale cannot start:\n  " + "\n  ".join(self._problems))


def boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("must be true or false")


def words(text: str) -> list[str]:
    """Split at commas; empty parts fall away."""
    return [word.strip() for word in text.split(",") if word.strip()]


def number(*, least: float, most: float) -> Callable[[str], float]:
    """Make a cast that wants a number in a range, ends included."""

    def cast(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("must be a number") from None
        if not least <= value <= most:
            raise ValueError(f"must be from {least:g} to {most:g}")
        return value

    return cast


def integer(*, least: int, most: int) -> Callable[[str], int]:
    """Make a cast that wants a whole number in a range, ends included."""

    def cast(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}")
        return value

    return cast


def one_of(*choices: str) -> Callable[[str], str]:
    def cast(text: str) -> str:
        if text not in choices:
            raise ValueError("must be one of " + ", ".join(choices))
        return text

    return cast


def url(*schemes: str) -> Callable[[str], str]:
    """Make a cast that wants a URL with a host and one of these schemes; drops a last slash."""
    form = " or ".join(f"{scheme}://host" for scheme in schemes)

    def cast(text: str) -> str:
        parts = _split(text, form)
        somewhere = parts.netloc or (parts.scheme.endswith("+socket") and parts.path)
        if parts.scheme not in schemes or not somewhere:
            raise ValueError(f"must be a URL like {form}")
        return text.rstrip("/")

    return cast


def _split(text: str, form: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        # Its words may repeat the password.
        raise ValueError(f"must be a URL like {form}") from None


def database_url(text: str) -> dict[str, object]:
    """Turn `postgresql://user:password@host:port/name` into a Django database entry.

    A socket folder is given as `postgresql:///name?host=/folder`.
    """
    form = "postgresql://user:password@host:port/name"
    parts = _split(text, form)
    name = unquote(parts.path.lstrip("/"))
    if parts.scheme not in {"postgresql", "postgres"} or not name:
        raise ValueError(f"must be {form}")
    query = dict(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
    host = unquote(query.pop("host", parts.hostname or ""))
    try:
        port = parts.port or query.pop("port", "")
    except ValueError:
        raise ValueError("has a port that is not a number") from None
    return {
        "ENGINE": "scale.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or query.pop("user", "")),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(port),
        "OPTIONS": {key: unquote(value) for key, value in query.items()},
    }


def mesos_master(text: str) -> str:
    """Accept `host:port`, or `zk://host:port,host:port/path` for pymesos' detector."""
    if text.startswith("zk://"):
        if "/" not in text.removeprefix("zk://"):
            raise ValueError("must be zk://host:port,host:port/path")
        return text
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or "/" in host:
        raise ValueError("must be host:port or zk://host:port/path")
    return text
