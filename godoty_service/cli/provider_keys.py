"""`godoty tenant provider-key`: tenants' own OpenRouter keys."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import admin_service_pb2 as pb

from godoty_service.cli.session import out, user, with_rooms

if TYPE_CHECKING:
    from godoty_service.rooms import Rooms

provider_key_app = typer.Typer(help="A tenant's own OpenRouter key.", no_args_is_help=True)


@provider_key_app.command("set")
def set_provider_key(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="It has none of its own any more.")] = False,
) -> None:
    """Give a tenant an OpenRouter key of its own: typed in, or the first line of stdin. It is kept encrypted."""
    from godoty_service.rpc import admin_requests  # noqa: PLC0415 - `godoty health` needs none of it

    secret = "" if remove else _typed_secret()
    if not remove and not secret:
        raise ValueError("no key was given; --remove takes the tenant's key away")

    async def work(rooms: "Rooms") -> None:
        request = pb.SetProviderKeyRequest(tenant_id=tenant, provider_key=secret)
        await rooms.administration.set_provider_key(user(), *admin_requests.provider_key(request))
        out.print("removed" if remove else "set")

    with_rooms(work)


@provider_key_app.command("reseal")
def reseal() -> None:
    """Encrypt all tenants' keys anew with the first of GODOTY_ENCRYPTION_KEYS; the others can then be dropped."""

    async def work(rooms: "Rooms") -> None:
        out.print(f"{await rooms.administration.reseal_provider_keys(user())} encrypted anew")

    with_rooms(work)


def _typed_secret() -> str:
    """Read a secret from where others cannot see it: not from the arguments, which `ps` shows."""
    if sys.stdin.isatty():
        return str(typer.prompt("OpenRouter key", hide_input=True)).strip()
    return sys.stdin.readline().strip()
