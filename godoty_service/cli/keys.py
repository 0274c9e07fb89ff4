"""`godoty key`: API keys."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import admin_service_pb2 as pb

from godoty_service.cli.context import actor, out, print_table, with_components
from godoty_service.tenancy.auth import Scope

if TYPE_CHECKING:
    from godoty_service.bootstrap.components import Components

key_app = typer.Typer(help="Manage API keys.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
Key = Annotated[str, typer.Argument(help="The key's id: the part between the first two underscores.")]
RequestId = Annotated[str, typer.Option(help="The id of this request: one key is created per id.")]


@key_app.command("create")
def create(
    tenant: Tenant,
    *,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="A scope of the key; repeatable; default: converse. admin: the operator's, for all tenants;"
            " tenant_admin: manages the API keys of its own tenant."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The display name.")] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="A model that it may request, or a pattern such as openai/*; repeatable.")
    ] = None,
    turns_per_minute: Annotated[
        int | None, typer.Option(help="Turns that it may start in a minute; default: as many as the tenant.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until the key expires; default: never.")
    ] = None,
    request_id: RequestId = "",
) -> None:
    """Create an API key and print it; it is shown only this once."""
    from godoty_service.rpc.admin import key_codec  # noqa: PLC0415 - `godoty health` does not need it
    from godoty_service.rpc.admin.codec import admin_request  # noqa: PLC0415 - the same

    async def work(components: "Components") -> None:
        now = components.clock()
        scopes = frozenset(scope or [Scope.CONVERSE])
        request = pb.CreateApiKeyRequest(
            tenant_id=tenant,
            display_name=name,
            scopes=key_codec.scope_names(scopes),
            operator=Scope.ADMIN in scopes,
            models=model or (),
            turns_per_minute=turns_per_minute,
            expire_time=now + timedelta(days=days) if days else None,
            request_id=request_id,
        )
        parsed = key_codec.parse_new_key(request, now=now)
        request.ClearField("expire_time")  # it differs with each repetition
        _, text = await components.administration.create_api_key(
            actor(), *parsed, request=admin_request(request, actor())
        )
        out.print(text)

    with_components(work)


@key_app.command("list")
def list_all(tenant: Tenant) -> None:
    """Print a tenant's keys, without their secrets."""

    async def work(components: "Components") -> None:
        await components.tenancy.tenants.require(tenant)
        found = await components.tenancy.api_keys.page(tenant, after=None, limit=0)
        print_table(
            ("key", "name", "scopes", "models", "turns/min", "created", "expires", "revoked", "last used"),
            [
                (
                    each.key_id,
                    each.display_name,
                    " ".join(sorted(each.scopes)),
                    " ".join(each.limits.models),
                    each.limits.turns_per_minute,
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
        await components.administration.revoke_api_key(actor(), tenant, key)
        out.print("revoked")

    with_components(work)


@key_app.command("rotate")
def rotate(
    tenant: Tenant,
    key: Key,
    overlap: Annotated[int, typer.Option(help="Seconds for which the old key remains valid.")] = 24 * 60 * 60,
    request_id: RequestId = "",
) -> None:
    """Create a successor of a key and print it; it is shown only this once. The old key expires after the overlap."""
    from godoty_service.rpc.admin import key_codec  # noqa: PLC0415 - `godoty health` does not need it
    from godoty_service.rpc.admin.codec import admin_request  # noqa: PLC0415 - the same

    async def work(components: "Components") -> None:
        request = pb.RotateApiKeyRequest(
            tenant_id=tenant, api_key_id=key, overlap={"seconds": overlap}, request_id=request_id
        )
        tenant_id, key_id, duration = key_codec.parse_rotation(request)
        _, text = await components.administration.rotate_api_key(
            actor(), tenant_id, key_id, overlap=duration, request=admin_request(request, actor())
        )
        out.print(text)

    with_components(work)
