"""`godoty tenant`: tenants, their policies, budgets and own OpenRouter keys."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import budget_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from godoty_service.cli.context import out, print_table, user, with_components
from godoty_service.pricing.money import format_usd

if TYPE_CHECKING:
    from godoty_service.bootstrap import Components

tenant_app = typer.Typer(help="Manage tenants.", no_args_is_help=True)
provider_key_app = typer.Typer(help="Manage a tenant's own OpenRouter key.", no_args_is_help=True)
policy_app = typer.Typer(help="Manage a tenant's policy.", no_args_is_help=True)
tenant_app.add_typer(policy_app, name="policy")
tenant_app.add_typer(provider_key_app, name="provider-key")

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]


@tenant_app.command("create")
def create(name: Annotated[str, typer.Argument(help="The tenant's display name.")]) -> None:
    """Create a tenant and print its id."""
    from godoty_service.rpc import admin_codec  # noqa: PLC0415 - `godoty health` does not need it

    async def work(components: "Components") -> None:
        tenant = await components.administration.create_tenant(user(), name=admin_codec.parse_tenant_name(name))
        out.print(tenant.tenant_id)

    with_components(work)


@tenant_app.command("list")
def list_all() -> None:
    """Print all tenants."""

    async def work(components: "Components") -> None:
        found = await components.tenancy.tenants.page(after=None, limit=0)
        print_table(("tenant", "name", "created"), [(each.tenant_id, each.name, each.create_time) for each in found])

    with_components(work)


@tenant_app.command("show")
def show(tenant: Tenant) -> None:
    """Print a tenant, its policy, and whether it has its own OpenRouter key."""
    from godoty_service.rpc.admin_codec import tenant_message  # noqa: PLC0415 - `godoty health` does not need it

    async def work(components: "Components") -> None:
        found = pb.GetTenantResponse(tenant=tenant_message(await components.tenancy.tenants.require(tenant)))
        has_key = await components.tenancy.provider_keys.has(tenant)
        allowed = pb.GetPolicyResponse(policy=await _policy_of(components, tenant), has_provider_key=has_key)
        out.print_json(data={**_as_data(found), **_as_data(allowed)})

    with_components(work)


@tenant_app.command("budget")
def show_budgets(tenant: Tenant) -> None:
    """Print a tenant's budgets: the amounts spent, and those reserved by open calls."""

    async def work(components: "Components") -> None:
        await components.tenancy.tenants.require(tenant)
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
                for each in await components.budgets.service.status(tenant)
            ],
        )

    with_components(work)


@policy_app.command("show")
def show_policy(tenant: Tenant) -> None:
    """Print a tenant's policy as JSON, as `policy set --file` accepts it."""

    async def work(components: "Components") -> None:
        out.print_json(data=_as_data(await _policy_of(components, tenant)))

    with_components(work)


@policy_app.command("set")
def set_policy(
    tenant: Tenant,
    *,
    file: Annotated[Path | None, typer.Option(help="The whole policy as JSON, as `show` prints it; -: stdin.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="An allowed model, or a pattern such as openai/*; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The default model.")] = None,
    fallback: Annotated[list[str] | None, typer.Option(help="A default fallback model; repeatable.")] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(help="Maximum output tokens of one turn; 0: no limit.")
    ] = None,
    turns_per_minute: Annotated[
        int | None, typer.Option(help="Turns that may start in a minute; 0: the default.")
    ] = None,
    concurrent_turns: Annotated[int | None, typer.Option(help="Turns that may run at once; 0: the default.")] = None,
    provider: Annotated[str | None, typer.Option(help="OpenRouter's routing preferences: a JSON object.")] = None,
    zdr: Annotated[bool | None, typer.Option("--zdr/--no-zdr", help="Use only providers that retain no data.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="As day=12.50 or month=9:hard; total=: none; repeatable.")
    ] = None,
) -> None:
    """Set a tenant's policy. Options change single fields; a file replaces the whole policy."""
    from godoty_service.pricing.oracle import newest_catalogue  # noqa: PLC0415 - `godoty health` does not need it
    from godoty_service.rpc import admin_codec  # noqa: PLC0415 - the same

    async def work(components: "Components") -> None:
        policy = _read_policy(file) if file is not None else await _policy_of(components, tenant)
        _replace_lists(policy, allowed_models=allow, default_fallback_models=fallback)
        _set(policy, default_model=model, provider_json=provider, zero_data_retention=zdr)
        _set(policy, max_output_tokens=max_output_tokens)
        _set(policy, turns_per_minute=turns_per_minute, concurrent_turns=concurrent_turns)
        for each in budget or ():
            _set_budget(policy, each)
        request = pb.SetPolicyRequest(tenant_id=tenant, policy=policy)
        catalogue = await newest_catalogue(components.database.collection("catalogues"))
        await components.administration.set_policy(user(), *admin_codec.parse_policy(request, catalogue=catalogue))
        out.print_json(data=_as_data(await _policy_of(components, tenant)))

    with_components(work)


@provider_key_app.command("set")
def set_provider_key(
    tenant: Tenant,
    *,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the key, so that the tenant uses the service's.")
    ] = False,
) -> None:
    """Set a tenant's own OpenRouter key from a prompt, or from the first line of stdin. It is stored encrypted."""
    from godoty_service.rpc import admin_codec  # noqa: PLC0415 - `godoty health` does not need it

    secret = "" if remove else _typed_secret()
    if not remove and not secret:
        raise ValueError("no key was given; to remove the tenant's key, use --remove")

    async def work(components: "Components") -> None:
        request = pb.SetProviderKeyRequest(tenant_id=tenant, provider_key=secret)
        await components.administration.set_provider_key(user(), *admin_codec.parse_provider_key(request))
        out.print("removed" if remove else "set")

    with_components(work)


@provider_key_app.command("reseal")
def reseal() -> None:
    """Re-encrypt all tenants' keys with the first of GODOTY_ENCRYPTION_KEYS, so that the others can be removed."""

    async def work(components: "Components") -> None:
        out.print(f"{await components.administration.reseal_provider_keys(user())} keys re-encrypted")

    with_components(work)


async def _policy_of(components: "Components", tenant: str) -> pb.Policy:
    from godoty_service.rpc.admin_codec import policy_message  # noqa: PLC0415 - `godoty health` does not need it

    await components.tenancy.tenants.require(tenant)
    return policy_message(await components.tenancy.policies.read(tenant))


def _as_data(message: Message) -> dict[str, Any]:
    """Convert a message to JSON data, with the field names of the protos."""
    data: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return data


def _read_policy(file: Path) -> pb.Policy:
    """Read a policy from a file; `-` is stdin.

    Raises:
        ValueError: The file is not a policy in JSON.
    """
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    try:
        return json_format.Parse(text, pb.Policy())
    except json_format.ParseError as error:
        raise ValueError(f"{file}: {error}") from error


def _set(policy: pb.Policy, **values: object) -> None:
    """Set the fields that are not None."""
    for name, value in values.items():
        if value is not None:
            setattr(policy, name, value)


def _replace_lists(policy: pb.Policy, **fields: list[str] | None) -> None:
    """Replace the repeated fields that are not None; one empty value clears a field."""
    for name, values in fields.items():
        if values is not None:
            policy.ClearField(name)
            getattr(policy, name).extend(value for value in values if value)


def _set_budget(policy: pb.Policy, text: str) -> None:
    """Replace a window's budget by one such as "day=12.50:hard"; without an amount, remove it.

    Raises:
        ValueError: The text is malformed.
    """
    window, equals, amount = text.partition("=")
    limit, _, kind = amount.partition(":")
    name = f"BUDGET_WINDOW_{window.upper()}"
    if not equals or window.lower() not in ("day", "month", "total") or kind not in ("", "hard"):
        raise ValueError(f"--budget {text}: must be like day=12.50, month=100:hard or total=")
    new = budget_pb2.Budget(window=name, limit_usd=limit, hard=kind == "hard")
    others = [each for each in policy.budgets if each.window != new.window]
    del policy.budgets[:]
    policy.budgets.extend([*others, new] if limit else others)


def _typed_secret() -> str:
    """Read a secret from a prompt or stdin: `ps` would show it among the arguments."""
    if sys.stdin.isatty():
        return str(typer.prompt("OpenRouter key", hide_input=True)).strip()
    return sys.stdin.readline().strip()
