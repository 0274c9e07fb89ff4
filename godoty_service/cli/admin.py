"""`godoty admin`: the audit log."""

from typing import TYPE_CHECKING, Annotated

import typer

from godoty_service.cli.context import print_table, with_components

if TYPE_CHECKING:
    from godoty_service.bootstrap import Components

admin_app = typer.Typer(help="Read the audit log.", no_args_is_help=True)


@admin_app.callback()
def _group() -> None:
    """Make `changes` a subcommand: typer would turn an only command into the group itself."""


@admin_app.command("changes")
def changes(
    tenant: Annotated[str | None, typer.Option(help="Only changes to this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of changes.")] = 50,
) -> None:
    """Print administrators' changes, newest first."""

    async def work(components: "Components") -> None:
        found = await components.administration.changes.page(tenant_id=tenant, before=None, limit=limit)
        print_table(
            ("time", "by", "action", "tenant", "details"),
            [(each.time, each.by, each.action, each.tenant_id, each.details) for each in found],
        )

    with_components(work)
