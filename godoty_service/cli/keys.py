"""`godoty key`: API keys."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import admin_service_pb2 as pb

from godoty_service.cli.context import out, print_table, user, with_components
from godoty_service.tenancy.auth import Scope

if TYPE_CHECKING:
    from godoty_service.bootstrap import Components

key_app = typer.Typer(help="Manage API keys.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
Key = Annotated[str, typer.Argument(help="The key's id: the part between the first two underscores.")]


@key_app.command("issue")
def issue(
    tenant: Tenant,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="A scope of the key; repeatable; default: converse.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until the key expires; default: never.")
    ] = None,
) -> None:
    """Issue an API key and print it; it is shown only this once."""

    async def work(components: "Components") -> None:
        expire_time = components.clock() + timedelta(days=days) if days else None
        scopes = frozenset(scope or [Scope.CONVERSE])
        _, text = await components.administration.issue_key(user(), tenant, scopes=scopes, expire_time=expire_time)
        out.print(text)

    with_components(work)


@key_app.command("list")
def list_all(tenant: Tenant) -> None:
    """Print a tenant's keys, without their secrets."""

    async def work(components: "Components") -> None:
        await components.tenancy.tenants.require(tenant)
        found = await components.tenancy.api_keys.page(tenant, after=None, limit=0)
        print_table(
            ("key", "scopes", "created", "expires", "revoked", "last used"),
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

    with_components(work)


@key_app.command("revoke")
def revoke(tenant: Tenant, key: Key) -> None:
    """Revoke a key, on every server within 5 seconds."""

    async def work(components: "Components") -> None:
        await components.administration.revoke_key(user(), tenant, key)
        out.print("revoked")

    with_components(work)


@key_app.command("rotate")
def rotate(
    tenant: Tenant,
    key: Key,
    overlap: Annotated[int, typer.Option(help="Seconds for which the old key remains valid.")] = 24 * 60 * 60,
) -> None:
    """Issue a successor of a key and print it; it is shown only this once. The old key expires after the overlap."""
    from godoty_service.rpc import admin_codec  # noqa: PLC0415 - `godoty health` does not need it

    async def work(components: "Components") -> None:
        request = pb.RotateKeyRequest(tenant_id=tenant, key_id=key, overlap_seconds=overlap)
        duration = admin_codec.parse_overlap(request)
        _, text = await components.administration.rotate_key(user(), tenant, key, overlap=duration)
        out.print(text)

    with_components(work)
