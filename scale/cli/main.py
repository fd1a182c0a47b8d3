"""The words of the `scale` command; everything heavy is imported by the command that needs it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="scale",
    help="A cluster job scheduler for Apache Mesos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on; 0 lets the system choose one.")
]
_MACHINE = "that jobs may use on this machine; all of it if not given."


@app.command()
def up(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    cpus: Annotated[float | None, typer.Option(min=0.01, help=f"Cores {_MACHINE}")] = None,
    mem: Annotated[int | None, typer.Option(min=1, help=f"Memory in MiB {_MACHINE}")] = None,
    disk: Annotated[int | None, typer.Option(min=1, help=f"Disk in MiB {_MACHINE}")] = None,
) -> None:
    """Start everything on this machine and keep it running until Ctrl-C.

    That is PostgreSQL, Valkey, a local Mesos, the scheduler, a worker and the web server. Data is
    kept in SCALE_HOME (~/.local/share/scale). DATABASE_URL, SCALE_BROKER_URL or
    SCALE_MESOS_MASTER, where set, stand for the part of their own.
    """
    from scale.embedded.up import Wish, run

    sys.exit(run(Wish(host=host, port=port, cpus=cpus, mem_mib=mem, disk_mib=disk)))


@app.command()
def web(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    access_log: Annotated[bool, typer.Option(help="Write a line for each request.")] = False,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the REST API, the admin and the live streams."""
    from scale.cli.commands.web import run

    run(host=host, port=port, access_log=access_log, descriptor=fd)


@app.command()
def scheduler() -> None:
    """Run the Mesos framework; of several, one leads and the others wait."""
    from scale.cli.commands.scheduler import run

    run()


@app.command()
def worker(
    concurrency: Annotated[int, typer.Option(min=1, help="Tasks at a time.")] = 2,
    beat: Annotated[
        bool, typer.Option(help="Also start the periodic tasks; one worker must.")
    ] = True,
    schedule: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep when periodic tasks ran; else it is forgotten at the end."
        ),
    ] = None,
) -> None:
    """Run the background work that may be late or happen twice."""
    from scale.cli.commands.worker import run

    run(concurrency=concurrency, beat=beat, schedule=schedule)


@app.command(context_settings=_PASS_ON)
def localmesos(context: typer.Context) -> None:
    """Run a Mesos master and agent for this one machine; --help shows its options."""
    from scale.localmesos.server import main as run

    sys.exit(run(context.args))


@app.command(context_settings=_PASS_ON)
def migrate(context: typer.Context) -> None:
    """Bring the database's tables up to date."""
    from scale.cli.commands.manage import run

    run(["migrate", *context.args])


@app.command(context_settings=_PASS_ON)
def manage(context: typer.Context) -> None:
    """Run a management command of Django, such as `changepassword admin`."""
    from scale.cli.commands.manage import run

    run(context.args)


@app.command()
def user(
    name: Annotated[str, typer.Argument(help="Made if it is not there.")],
    role: Annotated[str, typer.Option(help="viewer, operator or admin; takes away all else.")],
    staff: Annotated[bool, typer.Option("--staff", help="Also open the admin site.")] = False,
    token: Annotated[bool, typer.Option("--token", help="Make and show an API token.")] = False,
    password: Annotated[
        bool, typer.Option("--password", help="Make and show a new password.")
    ] = False,
) -> None:
    """Give a user a role, e.g. `scale user ci --role operator --token`."""
    from scale.cli.commands.user import run

    run(name, role=role, is_staff=staff, wants_token=token, wants_password=password)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
