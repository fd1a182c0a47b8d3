"""Entry of local Mesos: takes over the work folder and keeps the parts until SIGTERM."""

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from scale.localmesos import options
from scale.localmesos.guard import lock
from scale.localmesos.http import Credentials
from scale.localmesos.supervisor import CannotStart, Supervisor


def credentials(path: Path) -> Credentials:
    """Return the principal and secret of `path`; make them up, for us alone to read, if absent."""
    if not path.exists():
        _make_up(path)
    principal, secret, *_ = [*path.read_text().split("\n"), ""]
    if not principal or not secret or ":" in principal:
        raise ValueError(f"{path} must hold a principal without colon and a secret, a line each")
    return Credentials(principal, secret)


def _make_up(path: Path) -> None:
    """Write credentials whole or not at all; those that another wrote meanwhile stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, made = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(f"local-{secrets.token_hex(4)}\n{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(fd)
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        Path(made).unlink()


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
        if given.announce_file is not None:
            given.announce_file.unlink(missing_ok=True)  # it tells of an earlier run
        Supervisor(given, credentials(given.credentials_file), locked).run()
    except (OSError, RuntimeError, ValueError, CannotStart) as error:
        sys.stderr.write(f"local Mesos cannot run: {error}\n")
        return 1
    os.close(locked)
    return 0
