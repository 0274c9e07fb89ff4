"""`godoty admin`: the audit log. `godoty user`: the erasure of end users."""

from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from godoty_service.cli.context import actor, out, print_table, with_components
from godoty_service.cli.formats import parse_time

if TYPE_CHECKING:
    from godoty_service.bootstrap.components import Components

admin_app = typer.Typer(help="Read the audit log.", no_args_is_help=True)
user_app = typer.Typer(help="Erase end users.", no_args_is_help=True)


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


@user_app.callback()
def _user_group() -> None:
    """Make `erase` a subcommand, likewise."""


@user_app.command("erase")
def erase(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    user: Annotated[str, typer.Argument(help="The end user's name.")],
    request_id: Annotated[str, typer.Option(help="The id of this request: it erases once.")] = "",
) -> None:
    """Erase an end user's conversations and name, and print what was erased. Ledger entries keep a reference."""
    from godoty.v1 import admin_service_pb2 as pb  # noqa: PLC0415 - `godoty health` does not need it

    from godoty_service.reporting import background  # noqa: PLC0415 - the same
    from godoty_service.rpc.admin.codec import parse_erasure  # noqa: PLC0415 - the same

    tenant_id, name = parse_erasure(pb.EraseUserRequest(tenant_id=tenant, user=user, request_id=request_id))

    async def work(components: "Components") -> None:
        replicas = components.replicas
        async with AsyncExitStack() as stack:  # servers leave the erasure to this process while it is alive
            stack.push_async_callback(replicas.stop)
            await replicas.heartbeat()
            background(stack, replicas.run(replicas.lease.total_seconds() / 4))
            stack.push_async_callback(components.user_erasure.stop)
            order = await components.user_erasure.erase(actor(), tenant_id, name, request_id=request_id or None)
        contents = order.contents
        out.print(
            f"{order.reference}: erased {contents.sessions} sessions, {contents.messages} messages and "
            f"{contents.turns} turns"
        )

    with_components(work)


def _time(text: str | None) -> datetime | None:
    return None if text is None else parse_time(text)
