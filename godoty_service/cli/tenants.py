"""`godoty tenant`: who pays, what they may do, and how their budgets stand."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from godoty.v1 import admin_service_pb2 as pb
from google.protobuf import json_format
from google.protobuf.message import Message

from godoty_service.cli.provider_keys import provider_key_app
from godoty_service.cli.session import out, print_table, user, with_rooms
from godoty_service.metering.money import format_usd

if TYPE_CHECKING:
    from godoty_service.rooms import Rooms

tenant_app = typer.Typer(help="Who pays.", no_args_is_help=True)
policy_app = typer.Typer(help="What a tenant may do.", no_args_is_help=True)
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


@tenant_app.command("show")
def show(tenant: Tenant) -> None:
    """Print a tenant, what it may do, and whether it has an OpenRouter key of its own."""
    from godoty_service.rpc.admin_messages import tenant_message  # noqa: PLC0415 - `godoty health` needs none of it

    async def work(rooms: "Rooms") -> None:
        found = pb.GetTenantResponse(tenant=tenant_message(await rooms.tenants.need(tenant)))
        has_key = await rooms.provider_keys.has(tenant)
        allowed = pb.GetPolicyResponse(policy=await _policy_of(rooms, tenant), has_provider_key=has_key)
        out.print_json(data={**_as_data(found), **_as_data(allowed)})

    with_rooms(work)


@tenant_app.command("budget")
def show_budgets(tenant: Tenant) -> None:
    """Print how a tenant's budgets stand: what is spent, and what open calls may still cost."""

    async def work(rooms: "Rooms") -> None:
        await rooms.tenants.need(tenant)
        print_table(
            ("budget", "since", "limit USD", "spent USD", "reserved USD", ""),
            [
                (
                    each.window.value,
                    each.window_start,
                    format_usd(each.limit),
                    format_usd(each.spent),
                    format_usd(each.reserved),
                    "hard" if each.hard else "",
                )
                for each in await rooms.spending.status(tenant)
            ],
        )

    with_rooms(work)


@policy_app.command("show")
def show_policy(tenant: Tenant) -> None:
    """Print what a tenant may do, as `policy set --file` takes it."""

    async def work(rooms: "Rooms") -> None:
        out.print_json(data=_as_data(await _policy_of(rooms, tenant)))

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
        _set(
            policy,
            max_output_tokens=max_output_tokens,
            turns_per_minute=turns_per_minute,
            concurrent_turns=concurrent_turns,
            default_model=model,
            provider_json=provider,
            zero_data_retention=zdr,
        )
        for each in budget or ():
            _set_budget(policy, each)
        request = pb.SetPolicyRequest(tenant_id=tenant, policy=policy)
        catalogue = await newest_catalogue(rooms.database.collection("catalogues"))
        await rooms.administration.set_policy(user(), *admin_requests.policy(request, catalogue=catalogue))
        out.print_json(data=_as_data(await _policy_of(rooms, tenant)))

    with_rooms(work)


async def _policy_of(rooms: "Rooms", tenant: str) -> pb.Policy:
    from godoty_service.rpc.admin_messages import policy_message  # noqa: PLC0415 - `godoty health` needs none of it

    await rooms.tenants.need(tenant)
    return policy_message(await rooms.policies.read(tenant))


def _as_data(message: Message) -> dict[str, Any]:
    """Give a message as JSON has it, under the names that the protos use."""
    data: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return data


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


def _set(policy: pb.Policy, **values: object) -> None:
    """Set what is given."""
    for name, value in values.items():
        if value is not None:
            setattr(policy, name, value)


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
