"""`godoty key`: API keys."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import admin_service_pb2 as pb

from godoty_service.cli.session import out, print_table, user, with_rooms
from godoty_service.tenancy.principal import Scope

if TYPE_CHECKING:
    from godoty_service.rooms import Rooms

key_app = typer.Typer(help="API keys.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
Key = Annotated[str, typer.Argument(help="The key's id: the part between the first two underscores.")]


@key_app.command("issue")
def issue(
    tenant: Tenant,
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may be used for; may be repeated.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until it expires; unset: never.")] = None,
) -> None:
    """Make an API key and print it, this once. Without a scope: converse."""

    async def work(rooms: "Rooms") -> None:
        expire_time = rooms.clock() + timedelta(days=days) if days else None
        scopes = frozenset(scope or [Scope.CONVERSE])
        _, text = await rooms.administration.issue_key(user(), tenant, scopes=scopes, expire_time=expire_time)
        out.print(text)

    with_rooms(work)


@key_app.command("list")
def list_all(tenant: Tenant) -> None:
    """Print a tenant's keys, without their secrets."""

    async def work(rooms: "Rooms") -> None:
        await rooms.tenants.need(tenant)
        found = await rooms.keys.page(tenant, after=None, limit=0)
        print_table(
            ("key", "scopes", "made", "expires", "revoked", "last used"),
            [
                (
                    each.key_id,
                    " ".join(sorted(each.scopes)),
                    each.create_time,
                    each.expire_time,
                    each.revoke_time,
                    each.last_use_time,
                )
                for each in found
            ],
        )

    with_rooms(work)


@key_app.command("revoke")
def revoke(tenant: Tenant, key: Key) -> None:
    """Put a key out of force, on every server within seconds."""

    async def work(rooms: "Rooms") -> None:
        await rooms.administration.revoke_key(user(), tenant, key)
        out.print("revoked")

    with_rooms(work)


@key_app.command("rotate")
def rotate(
    tenant: Tenant,
    key: Key,
    overlap: Annotated[int, typer.Option(help="Seconds that the old key still serves.")] = 24 * 60 * 60,
) -> None:
    """Make a key like another and print it, this once; the old one expires after the overlap."""
    from godoty_service.rpc import admin_requests  # noqa: PLC0415 - `godoty health` needs none of it

    async def work(rooms: "Rooms") -> None:
        request = pb.RotateKeyRequest(tenant_id=tenant, key_id=key, overlap_seconds=overlap)
        _, text = await rooms.administration.rotate_key(user(), tenant, key, overlap=admin_requests.overlap(request))
        out.print(text)

    with_rooms(work)
