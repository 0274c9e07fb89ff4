"""The commands, each a few lines: the work is done in the rooms."""

import asyncio

import typer
import uvloop

from godoty_service.cli.admin import admin_app
from godoty_service.cli.config import config_app, refuse_faults, warn_of_unknown
from godoty_service.cli.keys import key_app
from godoty_service.cli.ledger import ledger_app
from godoty_service.cli.prices import prices
from godoty_service.cli.session import err, out, read_settings
from godoty_service.cli.tenants import tenant_app
from godoty_service.cli.usage import usage
from godoty_service.cli.workers import serve_by_workers
from godoty_service.collector import importing
from godoty_service.environment import WrongSettings, read_environment
from godoty_service.errors import GodotyError

app = typer.Typer(help="Godoty: agents on OpenRouter, accounted for to the last decimal.", no_args_is_help=True)
app.add_typer(tenant_app, name="tenant")
app.add_typer(key_app, name="key")
app.add_typer(admin_app, name="admin")
app.add_typer(ledger_app, name="ledger")
app.add_typer(config_app, name="config")
app.command()(usage)
app.command()(prices)


def main() -> None:
    """Run the command line; what goes wrong is one line, not a traceback."""
    try:
        app()
    except (GodotyError, ValueError, OSError) as error:
        for line in _lines(error):
            err.print(f"godoty: {line}", style="red", markup=False)
        raise SystemExit(1) from None


@app.command()
def serve() -> None:
    """Serve until SIGINT or SIGTERM. Reads its settings from the environment; `godoty config check` checks them."""
    settings = read_settings()
    warn_of_unknown()
    refuse_faults(settings)
    if settings.workers > 1:
        serve_by_workers(settings)
        return
    with importing():
        from godoty_service.server import serve as serve_alone  # noqa: PLC0415 - Strands takes a second to import
    uvloop.run(serve_alone(settings))


@app.command()
def dev() -> None:
    """Start all of it on this machine: MongoDB, a sandbox OpenRouter, and the service."""
    from godoty_service.dev import run  # noqa: PLC0415 - only here are the sandbox's packages needed

    settings = read_settings()
    warn_of_unknown()
    uvloop.run(run(settings))


@app.command()
def health() -> None:
    """Ask the service on GODOTY_LISTEN whether it serves; exit status 0 says yes."""
    from godoty_service.cli.probe import serving  # noqa: PLC0415 - the other commands need no grpc

    settings = read_environment().settings
    if not asyncio.run(serving(settings.listen, settings.certificates)):
        err.print(f"godoty: not serving on {settings.listen}", style="red")
        raise typer.Exit(1)
    out.print("serving")


def _lines(error: Exception) -> list[str]:
    """Return what is printed of an error: a line for each wrong setting, one line for any other."""
    return str(error).splitlines() if isinstance(error, WrongSettings) else [str(error)]
