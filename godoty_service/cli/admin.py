"""`godoty admin`: the audit log."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from godoty_service.cli.context import print_table, with_components
from godoty_service.cli.formats import parse_time

if TYPE_CHECKING:
    from godoty_service.bootstrap import Components

admin_app = typer.Typer(help="Read the audit log.", no_args_is_help=True)


@admin_app.callback()
def _group() -> None:
    """Make `changes` a subcommand: typer would turn an only command into the group itself."""


@admin_app.command("changes")
def changes(
    tenant: Annotated[str | None, typer.Option(help="Only changes to this tenant.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Only changes on this day, or at this time, or later.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Only changes before this day or time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of changes.")] = 50,
) -> None:
    """Print administrators' changes, newest first."""
    from godoty_service.tenancy.audit import ChangeFilter  # noqa: PLC0415 - `godoty health` does not need it

    async def work(components: "Components") -> None:
        wanted = ChangeFilter(tenant_id=tenant, start=_time(start), end=_time(end))
        found = await components.administration.changes.page(wanted, before=None, limit=limit)
        print_table(
            ("time", "actor", "peer", "method", "tenant", "old value", "new value"),
            [
                (
                    each.time,
                    f"{each.actor.kind} {each.actor.id}",
                    each.actor.peer,
                    each.method,
                    each.tenant_id,
                    each.old_value,
                    each.new_value,
                )
                for each in found
            ],
        )

    with_components(work)


def _time(text: str | None) -> datetime | None:
    return None if text is None else parse_time(text)
