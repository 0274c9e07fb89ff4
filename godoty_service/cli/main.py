"""The commands, each a few lines: the work is done in the rooms."""

import asyncio
from datetime import timedelta
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from godoty_service.cli.ledger import ledger_app
from godoty_service.cli.session import err, out, read_settings, with_rooms
from godoty_service.clock import utc_now
from godoty_service.errors import GodotyError
from godoty_service.rooms import Rooms
from godoty_service.settings import Settings
from godoty_service.tenancy.principal import Scope

app = typer.Typer(help="Godoty: agents on OpenRouter, accounted for to the last decimal.", no_args_is_help=True)
tenant_app = typer.Typer(help="Who pays.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(tenant_app, name="tenant")
app.add_typer(key_app, name="key")
app.add_typer(ledger_app, name="ledger")


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
    from godoty_service.server import serve as serve_forever  # noqa: PLC0415 - Strands takes a second to import

    settings = read_settings()
    asyncio.run(serve_forever(settings))


@app.command()
def dev() -> None:
    """Start all of it on this machine: MongoDB, a sandbox OpenRouter, and the service."""
    from godoty_service.dev import run  # noqa: PLC0415 - only here are the sandbox's packages needed

    asyncio.run(run(read_settings()))


@app.command()
def health() -> None:
    """Ask the service on GODOTY_LISTEN whether it serves; exit status 0 says yes."""
    from godoty_service.cli.probe import serving  # noqa: PLC0415 - the other commands need no grpc

    settings = Settings()
    if not asyncio.run(serving(settings.listen, settings.certificates)):
        err.print(f"godoty: not serving on {settings.listen}", style="red")
        raise typer.Exit(1)
    out.print("serving")


@tenant_app.command("create")
def create_tenant(name: Annotated[str, typer.Argument(help="What people call it.")]) -> None:
    """Make a tenant and print its id."""

    async def work(rooms: Rooms) -> None:
        tenant = await rooms.tenants.create(name)
        out.print(tenant.tenant_id)

    with_rooms(work)


@tenant_app.command("list")
def list_tenants() -> None:
    """Print all tenants."""

    async def work(rooms: Rooms) -> None:
        table = Table("tenant", "name", "made")
        for tenant in await rooms.tenants.list():
            table.add_row(tenant.tenant_id, tenant.name, tenant.create_time.isoformat())
        out.print(table)

    with_rooms(work)


@key_app.command("issue")
def issue_key(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may be used for; may be repeated.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; unset: never.")] = None,
) -> None:
    """Make an API key and print it, this once. Without a scope: converse."""

    async def work(rooms: Rooms) -> None:
        if await rooms.tenants.get(tenant) is None:
            raise ValueError(f"there is no tenant {tenant}")
        expire_time = utc_now() + timedelta(days=days) if days else None
        scopes = frozenset(scope or [Scope.CONVERSE])
        _, text = await rooms.keys.issue(tenant, scopes=scopes, expire_time=expire_time)
        out.print(text)

    with_rooms(work)


@key_app.command("list")
def list_keys(tenant: Annotated[str, typer.Argument(help="The tenant's id.")]) -> None:
    """Print a tenant's keys, without their secrets."""

    async def work(rooms: Rooms) -> None:
        table = Table("key", "scopes", "made", "expires", "revoked")
        for key in await rooms.keys.list(tenant):
            times = (key.create_time, key.expire_time, key.revoke_time)
            table.add_row(
                key.key_id, " ".join(sorted(key.scopes)), *(time.isoformat() if time else "" for time in times)
            )
        out.print(table)

    with_rooms(work)


@key_app.command("revoke")
def revoke_key(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    key: Annotated[str, typer.Argument(help="The key's id: the part between the first two underscores.")],
) -> None:
    """Put a key out of force, on every server within seconds."""

    async def work(rooms: Rooms) -> None:
        if not await rooms.keys.revoke(tenant, key):
            raise ValueError(f"tenant {tenant} has no key {key}")
        out.print("revoked")

    with_rooms(work)


def _said(error: Exception) -> str:
    """Say an error in one line; a wrong setting is named, its value is not shown."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return str(error)
