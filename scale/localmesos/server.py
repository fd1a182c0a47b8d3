"""Entry of local Mesos: takes over the work folder and keeps the parts until SIGTERM."""

import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from scale.localmesos import options
from scale.localmesos.guard import lock
from scale.localmesos.http import Credentials
from scale.localmesos.supervisor import CannotStart, Supervisor


def credentials(path: Path) -> Credentials:
    """Return the principal and secret of `path`; make them up, for us alone to read, if absent."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"local-{secrets.token_hex(4)}\n{secrets.token_urlsafe(32)}\n"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
    principal, secret = path.read_text().split("\n")[:2]
    if not principal or not secret or ":" in principal:
        raise ValueError(f"{path} must hold a principal without colon and a secret, a line each")
    return Credentials(principal, secret)


def take_over(work_dir: Path) -> int:
    """Keep a second keeper out of the work folder; return the lock, which ends with this process.

    Raises:
        RuntimeError: another process uses the folder.
    """
    try:
        return lock(work_dir / "lock")
    except BlockingIOError:
        raise RuntimeError(f"another local Mesos uses {work_dir}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run local Mesos; return the exit status."""
    given = options.parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        # Tasks of other users pass through it; they cannot list it.
        given.work_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        locked = take_over(given.work_dir)
        Supervisor(given, credentials(given.credentials_file), locked).run()
    except (OSError, RuntimeError, ValueError, CannotStart) as error:
        sys.stderr.write(f"local Mesos cannot run: {error}\n")
        return 1
    os.close(locked)
    return 0
