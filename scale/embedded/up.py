"""`scale up`: start everything on this machine in order, keep it running, stop it in reverse."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scale.embedded import listener, parts
from scale.embedded.console import Console, boxed, wants_color
from scale.embedded.errors import CannotStart
from scale.embedded.home import Home, default_home
from scale.embedded.local_mesos import LocalMesos
from scale.embedded.postgres import PostgresServer
from scale.embedded.supervisor import Supervisor
from scale.embedded.surroundings import UNKNOWN_MESOS, Mesos, for_settings
from scale.embedded.valkey import Valkey

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Wish:
    """What the command line asked for; None leaves a resource to local Mesos."""

    host: str
    port: int
    cpus: float | None = None
    mem_mib: int | None = None
    disk_mib: int | None = None

    def options(self) -> list[str]:
        """Return the resources as local Mesos wants them."""
        given = {"--cpus": self.cpus, "--mem": self.mem_mib, "--disk": self.disk_mib}
        return [
            word
            for name, value in given.items()
            if value is not None
            for word in (name, f"{value:g}" if isinstance(value, float) else str(value))
        ]


def run(wish: Wish) -> int:
    """Run until asked to stop; return the exit code."""
    try:
        with ExitStack() as held:
            home = Home(default_home(os.environ))
            home.make()
            lock = held.enter_context(home.lock())
            sockets = held.enter_context(home.sockets())
            web = held.enter_context(listener.listen(wish.host, wish.port))
            return asyncio.run(_Run(wish, home, lock, sockets, web).main())
    except KeyboardInterrupt:
        return 130
    except CannotStart as error:
        print(f"scale up: {error}", file=sys.stderr)
        return 1


class _Run:
    """One run, with the lock held and the port open."""

    def __init__(
        self, wish: Wish, home: Home, lock: int, sockets: Path, web: socket.socket
    ) -> None:
        self._home, self._lock, self._web, self._host = home, lock, web, wish.host
        self._sockets = sockets
        self._url = listener.base_url(web)
        self._postgres = (
            None if _given("DATABASE_URL") else PostgresServer(home.path, sockets=sockets)
        )
        self._valkey = (
            None if _given("SCALE_BROKER_URL") else Valkey(home.path / "valkey", sockets=sockets)
        )
        if _given("SCALE_MESOS_MASTER") and wish.options():
            raise CannotStart("--cpus, --mem and --disk do not go with SCALE_MESOS_MASTER")
        self._mesos = None if _given("SCALE_MESOS_MASTER") else LocalMesos(home, wish.options())
        self._console = Console(
            sys.stdout.fileno(),
            color=wants_color(is_tty=sys.stdout.isatty(), environ=os.environ),
        )
        self._supervisor = Supervisor(self._console)
        self._asked_to_stop = asyncio.Event()

    async def main(self) -> int:
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._ask_to_stop)
        self._check_settings()
        work = asyncio.create_task(self._work())
        asked = asyncio.create_task(self._asked_to_stop.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            work.cancel()
            await asyncio.wait({work})
            await self._stop()
        if not work.cancelled():
            work.result()
        return 0

    def _ask_to_stop(self) -> None:
        if self._asked_to_stop.is_set():
            self._supervisor.hurry()
        self._asked_to_stop.set()

    async def _stop(self) -> None:
        # Nobody is to wait in the backlog for a server that will not come.
        self._web.close()
        await self._console.say("stopping; Ctrl-C once more stops at once")
        await self._supervisor.stop()
        await self._console.say("stopped")

    def _check_settings(self) -> None:
        """Raise CannotStart with every bad variable by name, before anything has started."""
        checked = subprocess.run(
            [*parts.PYTHON, "-c", "import scale.settings"],
            env=self._environment(UNKNOWN_MESOS),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if checked.returncode != 0:
            raise CannotStart(checked.stderr.strip())

    def _environment(self, mesos: Mesos) -> dict[str, str]:
        """Return the whole environment of a process that reads our settings."""
        ours = for_settings(
            os.environ,
            self._home,
            host=self._host,
            api_url=self._url,
            database_url=self._postgres.url if self._postgres else "",
            broker_url=self._valkey.url if self._valkey else "",
            mesos=mesos if self._mesos else None,
        )
        return {**os.environ, **ours, "PYTHONUNBUFFERED": "1"}

    async def _work(self) -> None:
        """Start all; then end only by raising what keeps a part from running."""
        await self._say_what_is_given()
        await self._start_stores()
        made = await self._first_start()
        mesos = await self._start_mesos()
        await self._start_servers(self._environment(mesos))
        await self._show(made)
        await self._console.say(f"ready: {self._url}  (API token: {self._home.token})")
        await self._supervisor.watch()

    async def _say_what_is_given(self) -> None:
        for name in ("DATABASE_URL", "SCALE_BROKER_URL", "SCALE_MESOS_MASTER"):
            if _given(name):
                await self._console.say(f"{name} is set: it is used, and none is started here")
        if not self._mesos and not _given("SCALE_API_URL"):
            await self._console.say(f"its agents must reach {self._url}, or set SCALE_API_URL")

    async def _start_stores(self) -> None:
        if self._postgres:
            self._supervisor.start(parts.postgres(self._postgres, self._lock))
            await self._supervisor.ready("postgres")
        if self._valkey:
            self._supervisor.start(parts.valkey(self._valkey, self._lock))
            await self._supervisor.ready("valkey")

    async def _first_start(self) -> dict[str, str]:
        """Migrate; return what a first start made (see first_start)."""
        reading, writing = os.pipe()
        with os.fdopen(reading) as report:
            try:
                environment = self._environment(UNKNOWN_MESOS)
                await self._supervisor.once(
                    parts.setup(environment, self._lock, writing, alone=bool(self._postgres))
                )
            finally:
                os.close(writing)
            made: dict[str, str] = json.loads(report.read())
        return made

    async def _start_mesos(self) -> Mesos:
        if not self._mesos:
            return UNKNOWN_MESOS
        self._supervisor.start(parts.mesos(self._mesos, self._lock))
        await self._supervisor.ready("mesos")
        return self._mesos.found()

    async def _start_servers(self, environment: dict[str, str]) -> None:
        self._home.write_environment(environment)
        at = listener.reachable(self._web)
        schedule = self._home.worker / "schedule"
        for part in (
            parts.scheduler(environment, self._lock, self._sockets),
            parts.worker(environment, self._lock, self._sockets, schedule),
            parts.web(environment, self._lock, self._web.fileno(), at),
        ):
            self._supervisor.start(part)
            await self._supervisor.ready(part.name)

    async def _show(self, made: dict[str, str]) -> None:
        """Show once what a first start made; until then the next start makes it anew."""
        if not made:
            return
        facts = [
            f"{name:<9}{made[name]}" for name in ("username", "password", "token") if name in made
        ]
        lines = ["Made for you, and shown only now:", "", f"{'URL':<9}{self._url}", *facts]
        await self._console.write(boxed(lines, color=self._console.color))
        self._home.write_token(made["token"])
        self._home.admin_pending.unlink(missing_ok=True)


def _given(name: str) -> bool:
    """Tell whether the user names a part of their own; to be used instead of ours."""
    return bool(os.environ.get(name))
