"""`godoty migrate`: bring the database to the schema of this build."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from godoty_service.cli.context import out, read_settings

if TYPE_CHECKING:
    from godoty_service.migrations.migrator import Migrator
    from godoty_service.migrations.schema import Schema

_print = partial(out.print, markup=False)


def migrate(
    *,
    check: Annotated[
        bool,
        typer.Option("--check", help="Print what is to be done, and change nothing. Exit status 1: there is some."),
    ] = False,
) -> None:
    """Bring the database to the schema version of this build. docs/migrations.md says when servers must be stopped.

    It may be killed and run again: it goes on where it was.
    """
    if not asyncio.run(_run(check=check)):
        raise typer.Exit(1)


async def _run(*, check: bool) -> bool:
    """Migrate, or print what a migration does; return whether the version is this build's or newer."""
    from godoty_service.migrations import registry  # noqa: PLC0415 - `godoty health` needs none of what it loads
    from godoty_service.migrations.migrator import Migrator  # noqa: PLC0415 - the same
    from godoty_service.migrations.schema import Schema  # noqa: PLC0415 - the same
    from godoty_service.mongo.client import open_database  # noqa: PLC0415 - the same
    from godoty_service.mongo.diagnosis import reach  # noqa: PLC0415 - the same

    settings = read_settings(level="WARNING")
    database = open_database(
        uri=settings.database_uri,
        name=settings.mongodb_database,
        driver=settings.mongodb_driver,
        timeout=settings.storage_timeout,
    )
    try:
        await reach(database, settings.database_uri)
        schema = Schema(database, registry.MIGRATIONS)
        migrator = Migrator(database, schema, server_lease=timedelta(seconds=settings.lease), report=_print)
        before = await schema.require_not_newer()
        _print(f"schema version {before.version}; this build writes version {schema.supported}")
        if before.version >= schema.supported:
            return True
        if check:
            await _print_steps(schema, migrator)
            return False
        await migrator.run()
        _print(f"migrated to schema version {(await schema.read()).version}")
    finally:
        await database.close()
    return True


async def _print_steps(schema: "Schema", migrator: "Migrator") -> None:
    """Print the steps to run.

    Raises:
        SchemaError: Servers are running that must be stopped before.
    """
    state = await schema.read()
    for migration in schema.migrations:
        if migration.version > state.version:
            for number, step in enumerate(migration.steps, 1):
                done = " (done)" if step.name in state.steps else ""
                _print(f"schema {migration.version}, step {number} of {len(migration.steps)}: {step.name}{done}")
            await migrator.require_servers_stopped(migration)
