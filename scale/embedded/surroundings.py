"""What each process of an embedded installation is told through its environment."""

import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from scale.embedded.home import Home

#: What a child would be changed by without our wish, or must not know.
_OURS = ("SCALE_", "DATABASE_URL", "PG", "LC_")


@dataclass(frozen=True)
class Mesos:
    """Where the master is (`host:port`), and who may call it."""

    master: str
    principal: str
    secret: str


_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")

#: Fits the checks of the settings while the real one is not known yet.
UNKNOWN_MESOS = Mesos("127.0.0.1:5050", "unknown", "unknown")


def plain(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` for programs that are not Django: no secret of ours is in it."""
    return {name: text for name, text in environ.items() if not name.startswith(_OURS)}


def for_settings(
    environ: Mapping[str, str],
    home: Home,
    *,
    host: str,
    api_url: str,
    database_url: str,
    broker_url: str,
    mesos: Mesos | None,
) -> dict[str, str]:
    """Return the variables that complete `environ`; what its user set wins.

    Web listens on `host`. `mesos` is None where the user names a cluster: its agents are other
    machines, about whose folders and Python we know nothing.
    """
    ours = {
        "SCALE_HOME": str(home.path),
        "SCALE_SECRET_KEY": home.secret_key(),
        "SCALE_API_URL": api_url,
        "SCALE_STORAGE_DIR": str(home.path / "files"),
        "DATABASE_URL": database_url,
        "SCALE_BROKER_URL": broker_url,
    }
    if host not in _LOOPBACK:
        ours["SCALE_ALLOWED_HOSTS"] = ",".join((*_LOOPBACK, _name_of(host)))
    if mesos:
        ours |= {
            "SCALE_MESOS_MASTER": mesos.master,
            "SCALE_AGENT_WORK_DIR": str(home.path / "work"),
            "SCALE_AGENT_PYTHON": sys.executable,
        }
    theirs = {name: text for name, text in environ.items() if name.startswith("SCALE_") and text}
    if environ.get("DATABASE_URL"):
        theirs["DATABASE_URL"] = environ["DATABASE_URL"]
    whole = ours | theirs
    if mesos:
        whole |= {"SCALE_MESOS_PRINCIPAL": mesos.principal, "SCALE_MESOS_SECRET": mesos.secret}
    return whole


def _name_of(host: str) -> str:
    """Return what callers write in their Host header when web listens on `host`."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104  compared only
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
