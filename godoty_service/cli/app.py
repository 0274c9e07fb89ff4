"""The `godoty` command: its subcommands, and those that start or check a server."""

import asyncio

import typer
import uvloop

from godoty_service.aio.gc import pause_gc_for_imports
from godoty_service.cli.admin import admin_app, user_app
from godoty_service.cli.agents.commands import agent_app
from godoty_service.cli.agents.mcp_commands import mcp_app
from godoty_service.cli.config import config_app, refuse_faults, warn_of_unknown
from godoty_service.cli.context import err, out, read_settings
from godoty_service.cli.keys import key_app
from godoty_service.cli.ledger import ledger_app
from godoty_service.cli.migrate import migrate
from godoty_service.cli.models import models
from godoty_service.cli.prices import prices
from godoty_service.cli.serve import serve_by_workers
from godoty_service.cli.tenants import tenant_app
from godoty_service.cli.usage import usage
from godoty_service.cli.webhooks.commands import webhook_app
from godoty_service.errors import GodotyError
from godoty_service.settings.environment import WrongSettings, read_environment

app = typer.Typer(help="Godoty: agents on OpenRouter, with exact accounting.", no_args_is_help=True)
app.add_typer(tenant_app, name="tenant")
app.add_typer(key_app, name="key")
app.add_typer(agent_app, name="agent")
app.add_typer(mcp_app, name="mcp")
app.add_typer(webhook_app, name="webhook")
app.add_typer(admin_app, name="admin")
app.add_typer(user_app, name="user")
app.add_typer(ledger_app, name="ledger")
app.add_typer(config_app, name="config")
app.command()(migrate)
app.command()(usage)
app.command()(prices)
app.command()(models)


def main() -> None:
    """Run the command line; print an error as one line, without a traceback."""
    try:
        app()
    except (GodotyError, ValueError, OSError) as error:
        for line in _lines(error):
            err.print(f"godoty: {line}", style="red", markup=False)
        raise SystemExit(1) from None


@app.command()
def serve() -> None:
    """Serve until SIGINT or SIGTERM. Settings come from the environment; `godoty config check` checks them."""
    settings = read_settings()
    warn_of_unknown()
    refuse_faults(settings)
    if settings.workers > 1:
        serve_by_workers(settings)
        return
    with pause_gc_for_imports():
        from godoty_service.server import serve as serve_alone  # noqa: PLC0415 - Strands takes a second to import
    uvloop.run(serve_alone(settings))


@app.command()
def dev() -> None:
    """Start the service on this machine with its own MongoDB and a sandbox OpenRouter, for development."""
    from godoty_service.dev import run  # noqa: PLC0415 - only this command needs the sandbox's packages

    settings = read_settings()
    warn_of_unknown()
    uvloop.run(run(settings))


@app.command()
def health() -> None:
    """Check whether the service on GODOTY_LISTEN serves. Exit status 0: it does."""
    from godoty_service.cli.health import serving  # noqa: PLC0415 - the other commands do not need grpc

    settings = read_environment().settings
    if not asyncio.run(serving(settings.listen, settings.certificates)):
        err.print(f"godoty: not serving on {settings.listen}", style="red")
        raise typer.Exit(1)
    out.print("serving")


def _lines(error: Exception) -> list[str]:
    """Return the lines to print for an error: one per wrong setting, one for any other."""
    return str(error).splitlines() if isinstance(error, WrongSettings) else [str(error)]
