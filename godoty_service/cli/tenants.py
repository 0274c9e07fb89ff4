"""`godoty tenant`: who pays, what they may do, and their own provider keys."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import admin_service_pb2 as pb
from google.protobuf import json_format

from godoty_service.cli.session import out, print_table, user, with_rooms

if TYPE_CHECKING:
    from godoty_service.rooms import Rooms

tenant_app = typer.Typer(help="Who pays.", no_args_is_help=True)
policy_app = typer.Typer(help="What a tenant may do.", no_args_is_help=True)
provider_key_app = typer.Typer(help="A tenant's own OpenRouter key.", no_args_is_help=True)
tenant_app.add_typer(policy_app, name="policy")
tenant_app.add_typer(provider_key_app, name="provider-key")

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]


@tenant_app.command("create")
def create(name: Annotated[str, typer.Argument(help="What people call it.")]) -> None:
    """Make a tenant and print its id."""
    from godoty_service.rpc import admin_requests  # noqa: PLC0415 - `godoty health` needs none of it

    async def work(rooms: "Rooms") -> None:
        tenant = await rooms.administration.create_tenant(user(), name=admin_requests.tenant_name(name))
        out.print(tenant.tenant_id)

    with_rooms(work)


@tenant_app.command("list")
def list_all() -> None:
    """Print all tenants."""

    async def work(rooms: "Rooms") -> None:
        found = await rooms.tenants.page(after=None, limit=0)
        print_table(("tenant", "name", "made"), [(each.tenant_id, each.name, each.create_time) for each in found])

    with_rooms(work)


@policy_app.command("show")
def show_policy(tenant: Tenant) -> None:
    """Print what a tenant may do, as `policy set --file` takes it."""

    async def work(rooms: "Rooms") -> None:
        out.print_json(_as_json(await _policy_of(rooms, tenant)))

    with_rooms(work)


@policy_app.command("set")
def set_policy(
    tenant: Tenant,
    *,
    file: Annotated[
        Path | None, typer.Option(help="A JSON file with all of it, as `policy show` prints it; - reads stdin.")
    ] = None,
    allow: Annotated[list[str] | None, typer.Option(help="A model, or a pattern such as openai/*; repeatable.")] = None,
    model: Annotated[str | None, typer.Option(help="The default model.")] = None,
    fallback: Annotated[list[str] | None, typer.Option(help="A default fallback model; repeatable.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(help="Of one turn; 0: no bound.")] = None,
    turns_per_minute: Annotated[int | None, typer.Option(help="0: no bound.")] = None,
    concurrent_turns: Annotated[int | None, typer.Option(help="0: no bound.")] = None,
    provider: Annotated[str | None, typer.Option(help="OpenRouter's routing preferences: a JSON object.")] = None,
    zdr: Annotated[bool | None, typer.Option("--zdr/--no-zdr", help="Only providers that keep nothing.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="day=12.50, month=100:hard, total= (none); repeatable.")
    ] = None,
) -> None:
    """Set what a tenant may do. Options change what they name; what a file leaves out is no bound any more."""
    from godoty_service.metering.oracle import newest_catalogue  # noqa: PLC0415 - `godoty health` needs none of it
    from godoty_service.rpc import admin_requests  # noqa: PLC0415 - the same

    async def work(rooms: "Rooms") -> None:
        policy = _parsed(file) if file is not None else await _policy_of(rooms, tenant)
        _put(policy, "allowed_models", allow)
        _put(policy, "default_fallback_models", fallback)
        numbers = {
            "max_output_tokens": max_output_tokens,
            "turns_per_minute": turns_per_minute,
            "concurrent_turns": concurrent_turns,
        }
        chosen = {**numbers, "default_model": model, "provider_json": provider, "zero_data_retention": zdr}
        for name, value in chosen.items():
            if value is not None:
                setattr(policy, name, value)
        for each in budget or ():
            _set_budget(policy, each)
        request = pb.SetPolicyRequest(tenant_id=tenant, policy=policy)
        catalogue = await newest_catalogue(rooms.database.collection("catalogues"))
        await rooms.administration.set_policy(user(), *admin_requests.policy(request, catalogue=catalogue))
        out.print_json(_as_json(await _policy_of(rooms, tenant)))

    with_rooms(work)


@provider_key_app.command("set")
def set_provider_key(
    tenant: Tenant,
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
        out.print(f"{await rooms.provider_keys.reseal()} encrypted anew")

    with_rooms(work)


def _typed_secret() -> str:
    """Read a secret from where others cannot see it: not from the arguments, which `ps` shows."""
    if sys.stdin.isatty():
        return str(typer.prompt("OpenRouter key", hide_input=True)).strip()
    return sys.stdin.readline().strip()


async def _policy_of(rooms: "Rooms", tenant: str) -> pb.Policy:
    from godoty_service.rpc.admin_messages import policy_message  # noqa: PLC0415 - `godoty health` needs none of it

    await rooms.tenants.need(tenant)
    return policy_message(await rooms.policies.read(tenant))


def _as_json(policy: pb.Policy) -> str:
    return str(json_format.MessageToJson(policy, preserving_proto_field_name=True))


def _parsed(file: Path) -> pb.Policy:
    """Read a policy.

    Raises:
        ValueError: The file has none.
    """
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    try:
        return json_format.Parse(text, pb.Policy())
    except json_format.ParseError as error:
        raise ValueError(f"{file}: {error}") from error


def _put(policy: pb.Policy, field: str, values: list[str] | None) -> None:
    """Replace a list; one empty value empties it."""
    if values is not None:
        policy.ClearField(field)
        getattr(policy, field).extend(value for value in values if value)


def _set_budget(policy: pb.Policy, text: str) -> None:
    """Take in a budget such as "day=12.50:hard"; without an amount it is taken away.

    Raises:
        ValueError: It is none.
    """
    window, equals, amount = text.partition("=")
    limit, _, kind = amount.partition(":")
    name = f"BUDGET_WINDOW_{window.upper()}"
    if not equals or window.lower() not in ("day", "month", "total") or kind not in ("", "hard"):
        raise ValueError(f"--budget {text}: must be like day=12.50, month=100:hard or total=")
    wanted = pb.Budget(window=name, limit_usd=limit, hard=kind == "hard")
    others = [each for each in policy.budgets if each.window != wanted.window]
    del policy.budgets[:]
    policy.budgets.extend([*others, wanted] if limit else others)
