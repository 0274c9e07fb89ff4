"""`godoty admin`: what was changed."""

from typing import TYPE_CHECKING, Annotated

import typer

from godoty_service.cli.session import print_table, with_rooms

if TYPE_CHECKING:
    from godoty_service.rooms import Rooms

admin_app = typer.Typer(help="What administrators did.", no_args_is_help=True)


@admin_app.callback()
def _group() -> None:
    """Keep `changes` a command of its own: typer would make an only one the group."""


@admin_app.command("changes")
def changes(
    tenant: Annotated[str | None, typer.Option(help="Only those to this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
) -> None:
    """Print who changed what, the newest first."""

    async def work(rooms: "Rooms") -> None:
        found = await rooms.administration.changes.page(tenant_id=tenant, before=None, limit=limit)
        print_table(
            ("time", "by", "action", "tenant", "details"),
            [(each.time, each.by, each.action, each.tenant_id, each.details) for each in found],
        )

    with_rooms(work)
