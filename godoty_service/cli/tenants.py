"""`godoty tenant`: tenants, their policies, budgets and own OpenRouter keys."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import budget_pb2, tenant_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from godoty_service.cli.context import actor, out, print_table, with_components
from godoty_service.pricing.money import format_usd

if TYPE_CHECKING:
    from godoty_service.bootstrap.components import Components
    from godoty_service.tenancy.tenants import Tenant as StoredTenant

tenant_app = typer.Typer(help="Manage tenants.", no_args_is_help=True)
provider_key_app = typer.Typer(help="Manage a tenant's own OpenRouter key.", no_args_is_help=True)
policy_app = typer.Typer(help="Manage a tenant's policy.", no_args_is_help=True)
tenant_app.add_typer(policy_app, name="policy")
tenant_app.add_typer(provider_key_app, name="provider-key")

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
Etag = Annotated[str, typer.Option(help="Only if the tenant still has this etag; default: any.")]


@tenant_app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="The tenant's display name.")],
    *,
    tenant_id: Annotated[
        str, typer.Option("--id", help="The tenant's id: lower-case letters, digits, hyphens; default: generated.")
    ] = "",
    time_zone: Annotated[str, typer.Option(help="The time zone of its budgets, such as Europe/Berlin.")] = "UTC",
    request_id: Annotated[str, typer.Option(help="The id of this request: one tenant is created per id.")] = "",
) -> None:
    """Create a tenant and print its id."""
    from godoty_service.rpc.admin import codec, tenant_codec  # noqa: PLC0415 - `godoty health` does not need it

    async def work(components: "Components") -> None:
        message = pb.CreateTenantRequest(
            tenant_id=tenant_id, display_name=name, time_zone=time_zone, request_id=request_id
        )
        request = codec.admin_request(message, actor())
        new = tenant_codec.parse_new_tenant(message)
        out.print((await components.administration.lifecycle.create(actor(), new, request=request)).tenant_id)

    with_components(work)


@tenant_app.command("list")
def list_all(
    *,
    deleted: Annotated[bool, typer.Option("--deleted", help="Also print the deleted tenants.")] = False,
) -> None:
    """Print all tenants, oldest first."""

    async def work(components: "Components") -> None:
        print_table(
            ("tenant", "name", "state", "time zone", "created", "erased"),
            [
                (
                    each.tenant_id,
                    each.display_name,
                    each.state.value,
                    each.time_zone,
                    each.create_time,
                    each.erase_time,
                )
                for each in await components.tenancy.tenants.page(after=None, limit=0, deleted=deleted)
            ],
        )

    with_components(work)


@tenant_app.command("show")
def show(tenant: Tenant) -> None:
    """Print a tenant, its policy, and whether it has its own OpenRouter key."""
    from godoty_service.rpc.admin.tenant_codec import tenant_message  # noqa: PLC0415 - `godoty health` does not need it

    async def work(components: "Components") -> None:
        found = pb.GetTenantResponse(tenant=tenant_message(await components.tenancy.tenants.require(tenant)))
        has_key = await components.tenancy.provider_keys.has(tenant)
        allowed = pb.GetPolicyResponse(policy=await _policy_of(components, tenant), has_provider_key=has_key)
        out.print_json(data={**_as_data(found), **_as_data(allowed)})

    with_components(work)


@tenant_app.command("update")
def update(
    tenant: Tenant,
    *,
    name: Annotated[str | None, typer.Option(help="The display name.")] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="The time zone of its budgets, from its next month on, such as Europe/Berlin.")
    ] = None,
    etag: Etag = "",
) -> None:
    """Change a tenant's display name or time zone, and print the tenant."""
    from godoty_service.rpc.admin import tenant_codec  # noqa: PLC0415 - `godoty health` does not need it

    message = tenant_pb2.Tenant(display_name=name or "", time_zone=time_zone or "")
    fields = [field for field, value in (("display_name", name), ("time_zone", time_zone)) if value is not None]
    if not fields:
        raise ValueError("set --name or --time-zone")

    async def work(components: "Components") -> None:
        request = pb.UpdateTenantRequest(tenant_id=tenant, tenant=message, update_mask={"paths": fields}, etag=etag)
        tenant_id, change = tenant_codec.parse_tenant_change(request)
        _print_tenant(await components.administration.lifecycle.update(actor(), tenant_id, change))

    with_components(work)


@tenant_app.command("suspend")
def suspend(tenant: Tenant, etag: Etag = "") -> None:
    """Suspend a tenant: within 5 seconds, its calls are refused and its turns make no further model call."""

    async def work(components: "Components") -> None:
        _print_tenant(await components.administration.lifecycle.suspend(actor(), tenant, etag=etag))

    with_components(work)


@tenant_app.command("resume")
def resume(tenant: Tenant, etag: Etag = "") -> None:
    """End a tenant's suspension."""

    async def work(components: "Components") -> None:
        _print_tenant(await components.administration.lifecycle.resume(actor(), tenant, etag=etag))

    with_components(work)


@tenant_app.command("delete")
def delete(
    tenant: Tenant,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    etag: Etag = "",
) -> None:
    """Delete a tenant for good; servers erase its data, except for its ledger. `show` prints when that is complete."""
    if not yes:
        typer.confirm(f"Delete {tenant} and erase its data, except for its ledger?", abort=True)

    async def work(components: "Components") -> None:
        _print_tenant(await components.administration.lifecycle.delete(actor(), tenant, etag=etag))

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
    allow_agent: Annotated[
        list[str] | None, typer.Option(help="An allowed agent, or a pattern such as support-*; repeatable.")
    ] = None,
    allow_tool: Annotated[
        list[str] | None, typer.Option(help="A tool that agents may have, or a pattern with *; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The default model.")] = None,
    fallback: Annotated[list[str] | None, typer.Option(help="A default fallback model; repeatable.")] = None,
    max_output_tokens: Annotated[
        str | None, typer.Option(help="Maximum output tokens of one turn; none: no bound; 0: no turn is allowed.")
    ] = None,
    turns_per_minute: Annotated[
        str | None, typer.Option(help="Turns that may start in a minute; none: the default; 0: no turn is allowed.")
    ] = None,
    concurrent_turns: Annotated[
        str | None, typer.Option(help="Turns that may run at once; none: the default; 0: no turn is allowed.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="OpenRouter's routing preferences: a JSON object.")] = None,
    zdr: Annotated[bool | None, typer.Option("--zdr/--no-zdr", help="Use only providers that retain no data.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="As day=12.50 or month=9:hard; total=: none; repeatable.")
    ] = None,
    etag: Annotated[str, typer.Option(help="Only if the policy still has this etag; default: any.")] = "",
) -> None:
    """Change a tenant's policy. Options change single fields; a file replaces the whole policy, with options on top."""
    from godoty_service.pricing.stored_catalogues import newest_catalogue  # noqa: PLC0415 - `godoty health` does not need it
    from godoty_service.rpc.admin import policy_codec  # noqa: PLC0415 - the same

    async def work(components: "Components") -> None:
        read = await _policy_of(components, tenant)
        policy = _read_policy(file) if file is not None else tenant_pb2.Policy(budgets=read.budgets)
        fields = ["*"] if file is not None else []
        fields += _replace_lists(policy, allowed_models=allow, default_fallback_models=fallback)
        fields += _replace_lists(policy, allowed_agents=allow_agent, allowed_tools=allow_tool)
        fields += _set(policy, default_model=model, provider_json=provider, zero_data_retention=zdr)
        fields += _set_limits(
            policy,
            max_output_tokens=max_output_tokens,
            turns_per_minute=turns_per_minute,
            concurrent_turns=concurrent_turns,
        )
        for each in budget or ():
            _set_budget(policy, each)
        if budget:
            fields.append("budgets")
        # One window's budget is changed in the list that was read, so the list must be that one still.
        base = etag or (read.etag if budget and file is None else "")
        request = pb.UpdatePolicyRequest(tenant_id=tenant, policy=policy, update_mask={"paths": fields}, etag=base)
        catalogue = await newest_catalogue(components.database.collection("catalogues"))
        tenant_id, change = policy_codec.parse_policy_change(request)
        check = partial(policy_codec.check_policy, changed=change.fields, catalogue=catalogue)
        await components.administration.update_policy(actor(), tenant_id, change, check=check)
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
    from godoty_service.rpc.admin import codec  # noqa: PLC0415 - `godoty health` does not need it

    secret = "" if remove else _typed_secret()
    if not remove and not secret:
        raise ValueError("no key was given; to remove the tenant's key, use --remove")

    async def work(components: "Components") -> None:
        request = pb.SetProviderKeyRequest(tenant_id=tenant, provider_key=secret)
        await components.administration.set_provider_key(actor(), *codec.parse_provider_key(request))
        out.print("removed" if remove else "set")

    with_components(work)


@provider_key_app.command("reseal")
def reseal() -> None:
    """Re-encrypt what tenants store sealed with the first of GODOTY_ENCRYPTION_KEYS.

    That is their own OpenRouter keys, and the secrets of MCP servers and webhooks. Then the other encryption keys can
    be removed.
    """

    async def work(components: "Components") -> None:
        keys = await components.administration.reseal_provider_keys(actor())
        servers = await components.mcp.servers.reseal()
        webhooks = await components.webhooks.webhooks.reseal()
        out.print(f"{keys} keys and the secrets of {servers} MCP servers and {webhooks} webhooks re-encrypted")

    with_components(work)


async def _policy_of(components: "Components", tenant: str) -> tenant_pb2.Policy:
    from godoty_service.rpc.admin.policy_codec import policy_message  # noqa: PLC0415 - `godoty health` does not need it

    await components.tenancy.tenants.require(tenant)
    return policy_message(await components.tenancy.policies.read_version(tenant))


def _print_tenant(tenant: "StoredTenant") -> None:
    from godoty_service.rpc.admin.tenant_codec import tenant_message  # noqa: PLC0415 - `godoty health` does not need it

    out.print_json(data=_as_data(tenant_message(tenant)))


def _as_data(message: Message) -> dict[str, Any]:
    """Convert a message to JSON data, with the field names of the protos."""
    data: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return data


def _read_policy(file: Path) -> tenant_pb2.Policy:
    """Read a policy from a file; `-` is stdin.

    Raises:
        ValueError: The file is not a policy in JSON.
    """
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    try:
        return json_format.Parse(text, tenant_pb2.Policy())
    except json_format.ParseError as error:
        raise ValueError(f"{file}: {error}") from error


def _set(policy: tenant_pb2.Policy, **values: str | bool | None) -> list[str]:
    """Set the fields that are not None; return their names."""
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        setattr(policy, name, value)
    return list(given)


def _set_limits(policy: tenant_pb2.Policy, **limits: str | None) -> list[str]:
    """Set the limits that are not None to numbers, or unset them; return their names.

    Raises:
        ValueError: One is neither a number nor "none".
    """
    given = {name: text for name, text in limits.items() if text is not None}
    for name, text in given.items():
        policy.ClearField(name)
        if text.lower() == "none":
            continue
        try:
            setattr(policy, name, int(text))
        except ValueError:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {text}: must be a whole number of 32 bits, or none") from None
    return list(given)


def _replace_lists(policy: tenant_pb2.Policy, **fields: list[str] | None) -> list[str]:
    """Replace the lists that are not None, one empty value clears a list; return their names."""
    given = {name: values for name, values in fields.items() if values is not None}
    for name, values in given.items():
        policy.ClearField(name)
        getattr(policy, name).extend(value for value in values if value)
    return list(given)


def _set_budget(policy: tenant_pb2.Policy, text: str) -> None:
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
