"""The commands, each a few lines: the work is done in the rooms."""

import asyncio

import typer
import uvloop
from pydantic import ValidationError

from godoty_service.cli.admin import admin_app
from godoty_service.cli.keys import key_app
from godoty_service.cli.ledger import ledger_app
from godoty_service.cli.prices import prices
from godoty_service.cli.session import err, out, read_settings
from godoty_service.cli.tenants import tenant_app
from godoty_service.cli.usage import usage
from godoty_service.cli.workers import serve_by_workers
from godoty_service.collector import importing
from godoty_service.errors import GodotyError
from godoty_service.settings import Settings

app = typer.Typer(help="Godoty: agents on OpenRouter, accounted for to the last decimal.", no_args_is_help=True)
app.add_typer(tenant_app, name="tenant")
app.add_typer(key_app, name="key")
app.add_typer(admin_app, name="admin")
app.add_typer(ledger_app, name="ledger")
app.command()(usage)
app.command()(prices)


def main() -> None:
    """Run the command line; what goes wrong is one line, not a traceback."""
    try:
        app()
    except (GodotyError, ValueError, OSError) as error:
        err.print(f"godoty: {_said(error)}", style="red", markup=False)
        raise SystemExit(1) from None


@app.command()
def serve() -> None:
    """Serve until SIGINT or SIGTERM. Reads its settings from the environment."""
    settings = read_settings()
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

    uvloop.run(run(read_settings()))


@app.command()
def health() -> None:
    """Ask the service on GODOTY_LISTEN whether it serves; exit status 0 says yes."""
    from godoty_service.cli.probe import serving  # noqa: PLC0415 - the other commands need no grpc

    settings = Settings()
    if not asyncio.run(serving(settings.listen, settings.certificates)):
        err.print(f"godoty: not serving on {settings.listen}", style="red")
        raise typer.Exit(1)
    out.print("serving")


def _said(error: Exception) -> str:
    """Say an error in one line; a wrong setting is named, its value is not shown."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return str(error)
