"""`godoty ledger`: lists, settles and adjusts model calls, and verifies the ledger."""

import asyncio
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import billing_service_pb2 as billing_pb
from google.protobuf import json_format

from godoty_service.budgets.verification import verify_budgets
from godoty_service.cli.context import actor, err, out, print_table, user, with_components, with_provider
from godoty_service.cli.formats import Format, FormatOption, Value, parse_timestamp, print_csv, print_json
from godoty_service.cli.repair import repair_times
from godoty_service.ledger.entries import Adjustment, Entry, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.ledger.verification import Progress, verify
from godoty_service.metering.reconciler import Outcome
from godoty_service.pricing import money
from godoty_service.usage.ledger_pages import PAGE_SIZE
from godoty_service.usage.verification import verify_usage

if TYPE_CHECKING:
    from godoty_service.bootstrap.components import Components
    from godoty_service.bootstrap.provider import ProviderComponents

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
Start = Annotated[str | None, typer.Option("--from", help="Only entries that started on this day or later.")]
End = Annotated[str | None, typer.Option("--to", help="Only entries that started before this day or time.")]
_KEYS = (  # of JSON and CSV
    *("entry_id", "start_time", "settle_time", "session_id", "turn_id", "number", "state", "purpose", "agent"),
    *("api_key_id", "model", "provider", "cost_usd", "upper_bound_usd", "user", "user_reference", "error"),
    "agent_version",
)
_TABLE_KEYS = (
    *("entry_id", "start_time", "session_id", "number", "state", "model", "provider", "cost_usd"),
    *("upper_bound_usd", "user", "error"),
)
_COLUMNS = (  # of `_TABLE_KEYS`
    *("entry", "started", "session", "number", "state", "model", "provider", "cost USD", "at most USD", "user"),
    "error",
)

ledger_app = typer.Typer(help="Read, reconcile and verify the ledger.", no_args_is_help=True)
ledger_app.command("repair-times")(repair_times)


@ledger_app.command("list")
def list_entries(
    tenant: Tenant,
    *,
    start: Start = None,
    end: End = None,
    session: Annotated[str, typer.Option(help="Only entries of this session.")] = "",
    turn: Annotated[str, typer.Option(help="Only entries of this turn.")] = "",
    end_user: Annotated[str, typer.Option("--user", help="Only entries of the end user of this name.")] = "",
    user_reference: Annotated[str, typer.Option(help="Only entries of the end user of this reference.")] = "",
    key: Annotated[str, typer.Option(help="Only entries of turns that this API key started, by its id.")] = "",
    model: Annotated[str, typer.Option(help="Only entries of this model, by its id or its slug.")] = "",
    state: Annotated[CallState | None, typer.Option(help="Only calls in this state.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Only entries that were inserted by this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of entries.")] = 50,
    shape: FormatOption = Format.TABLE,
) -> None:
    """Print ledger entries, oldest first. Times without an offset are UTC."""
    from godoty_service.pricing.stored_catalogues import newest_catalogue  # noqa: PLC0415 - `godoty health` does not need it
    from godoty_service.rpc.billing import codec  # noqa: PLC0415 - the same

    request = billing_pb.ListLedgerEntriesRequest(
        start_time=parse_timestamp(start),
        end_time=parse_timestamp(end),
        session_id=session,
        turn_id=turn,
        user=end_user,
        user_reference=user_reference,
        api_key_id=key,
        model=model,
        state=f"CALL_STATE_{state.name}" if state else None,
        as_of=parse_timestamp(as_of),
    )
    entry_filter = codec.parse_entry_filter(request)

    async def work(components: "Components") -> None:
        await components.tenancy.tenants.require(tenant)
        catalogue = await newest_catalogue(components.database.collection("catalogues")) if model else None
        names = catalogue.other_names(model) if catalogue is not None else ()
        if entry_filter.visible_at is not None:
            await components.usage.exports.reach(tenant, entry_filter.visible_at)
        found: list[Entry] = []
        which = replace(entry_filter, other_names=names)
        async with aclosing(components.usage.pages.pages(tenant, which, size=min(limit + 1, PAGE_SIZE))) as pages:
            async for page in pages:
                found += page
                if len(found) > limit:
                    break
        _print(found[:limit], shape)
        if len(found) > limit:
            notes = out if shape is Format.TABLE else err
            notes.print("there are more: raise --limit, or set --from to a later time")

    with_components(work)


@ledger_app.command("export")
def export_entries(tenant: Tenant, *, start: Start = None, end: End = None) -> None:
    """Print all ledger entries as JSON, one per line, oldest first, as BillingService.ExportLedger returns them.

    Their `as_of` time is printed to standard error.
    """
    from godoty_service.rpc.billing import codec  # noqa: PLC0415 - `godoty health` does not need it
    from godoty_service.rpc.billing.codec import entry_messages  # noqa: PLC0415 - the same

    request = billing_pb.ExportLedgerRequest(start_time=parse_timestamp(start), end_time=parse_timestamp(end))
    entry_filter = codec.parse_entry_filter(request)

    async def work(components: "Components") -> None:
        await components.tenancy.tenants.require(tenant)
        export = await components.usage.exports.begin(tenant, entry_filter)
        err.print(f"as of {export.as_of.isoformat(timespec='milliseconds')}")
        async for page in export.pages:
            for each in await entry_messages(page):
                line = json_format.MessageToJson(each, preserving_proto_field_name=True, indent=None)
                sys.stdout.write(f"{line}\n")

    with_components(work)


@ledger_app.command()
def reconcile(
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for records that the provider does not have yet.")
    ] = 0.0,
) -> None:
    """Settle pending calls from the provider's generation records. Exit status 1: some are still pending."""
    complete = False

    async def work(components: "Components", provider: "ProviderComponents") -> None:
        nonlocal complete
        await provider.oracle.load()
        clock = asyncio.get_running_loop().time
        start = clock()
        outcomes: Counter[Outcome] = Counter()
        while True:
            elapsed = clock() - start
            outcomes.update(await provider.reconciler.tick())
            if clock() - start >= wait or not await _may_settle_more(components, elapsed=elapsed):
                break
            await asyncio.sleep(0.25)
        pending, all_unresolved = await components.accounting.ledger.count()
        settled, unresolved = outcomes[Outcome.SETTLED], outcomes[Outcome.UNRESOLVED]
        out.print(
            f"settled {settled}, unresolved {unresolved}; still pending {pending}, unresolved in all {all_unresolved}"
        )
        complete = pending == 0

    with_provider(work)
    if not complete:
        raise typer.Exit(1)


async def _may_settle_more(components: "Components", *, elapsed: float) -> bool:
    """Return whether calls wait for their records, or may do so: a dead server counts as alive for the lease's time.

    Args:
        components: The components.
        elapsed: Seconds from the command's start to the last check.
    """
    if await components.accounting.ledger.next_due() is not None:
        return True
    return elapsed <= components.replicas.lease.total_seconds() and bool(await components.accounting.ledger.owners())


@ledger_app.command()
def resolve(
    call: Annotated[str, typer.Argument(help="The unresolved call's id.")],
    cost: Annotated[str, typer.Option(help="Its cost in US dollars: a plain decimal.")],
    why: Annotated[str, typer.Option(help="The evidence for the cost.")],
    by: Annotated[str, typer.Option(help="The author; default: the user of the command.")] = "",
    *,
    above_bound: Annotated[
        bool, typer.Option("--above-bound", help="Allow a cost above the call's upper bound.")
    ] = False,
) -> None:
    """Resolve an unresolved call: insert a dated entry with its cost, reason and author."""
    from godoty_service.rpc.admin.codec import check_attribution  # noqa: PLC0415 - `godoty health` does not need it
    from godoty_service.rpc.validation import Violations  # noqa: PLC0415 - the same

    amount = money.read_amount(cost)
    if amount < 0:
        raise ValueError("--cost must not be negative")
    violations = Violations()
    check_attribution(violations, why=why, by=by or user())
    for each in violations.found:
        raise ValueError(f"--{each.field} {each.description}")

    async def work(components: "Components") -> None:
        found = await components.accounting.ledger.find(call)
        if found is None:
            raise ValueError(f"there is no call {call}")
        await components.accounting.adjustments.check(found, cost=amount, above_bound=above_bound)
        details = {"call_id": call, "cost_usd": money.format_usd(amount), "why": why, "by": by or user()}
        before = {"call_id": call, "state": found.state.value}
        await components.administration.record_resolution(actor(), found.tenant_id, old=before, new=details)
        entry = await components.accounting.adjustments.resolve(
            found, cost=amount, why=why, by=by or user(), above_bound=above_bound
        )
        out.print(f"{entry.entry_id}: {money.format_usd(entry.cost)} USD, entry {entry.number} of its session")

    with_components(work)


@ledger_app.command()
def adjust(
    call: Annotated[str, typer.Argument(help="The call's id.")],
    *,
    cost: Annotated[str | None, typer.Option(help="Its new cost in US dollars: a plain decimal.")] = None,
    add: Annotated[str | None, typer.Option(help="The amount to add to its cost; negative: to subtract.")] = None,
    by: Annotated[str, typer.Option(help="The author.")],
    why: Annotated[str, typer.Option(help="The reason.")],
    request_id: Annotated[str, typer.Option(help="The id of this adjustment: it is made once per id.")],
    above_bound: Annotated[
        bool, typer.Option("--above-bound", help="Allow a total above the call's upper bound.")
    ] = False,
) -> None:
    """Adjust the cost of a call: insert a dated entry with its reason and author. Resolve an unresolved call first."""
    from godoty_service.rpc.admin.codec import parse_adjustment  # noqa: PLC0415 - `godoty health` does not need it
    from godoty_service.rpc.admin.service import CallAdjuster  # noqa: PLC0415 - the same

    if (cost is None) == (add is None):
        raise ValueError("set either --cost or --add")
    amount = {"cost_usd": cost} if add is None else {"add_usd": add}
    request = pb.AdjustCallRequest(call_id=call, why=why, request_id=request_id, above_bound=above_bound, **amount)

    async def work(components: "Components") -> None:
        found = await components.accounting.ledger.find(call)
        if found is None:
            raise ValueError(f"there is no call {call}")
        request.tenant_id = found.tenant_id
        adjuster = CallAdjuster(adjustments=components.accounting.adjustments, administration=components.administration)
        entry, total = await adjuster.adjust(actor(), parse_adjustment(request, by=by))
        added, place = money.format_usd(entry.cost), f"entry {entry.number} of its session"
        out.print(f"{entry.entry_id}: {added} USD, {place}; the call costs {money.format_usd(total)} USD")

    with_components(work)


@ledger_app.command("verify")
def verify_ledger(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's entries.")] = None,
) -> None:
    """Recompute all totals, budgets and roll-ups, and print each difference. Exit status 1: there are some."""
    differences = 0

    async def work(components: "Components") -> None:
        nonlocal differences
        progress = Progress()
        async for each in verify(
            database=components.database,
            ledger=components.accounting.ledger,
            totals_store=components.conversations.sessions,
            tenant_id=tenant,
            progress=progress,
        ):
            differences += 1
            err.print(f"{each.tenant_id} {each.session_id}: {each.what}", style="red", markup=False)
        async for each in verify_budgets(
            database=components.database,
            entries=components.budgets.entry_sums,
            budgets=components.budgets.store,
            tenant_id=tenant,
        ):
            differences += 1
            err.print(f"{each.tenant_id}: {each.what}", style="red", markup=False)
        usage = components.usage
        async for each in verify_usage(
            database=components.database,
            entries=usage.entries,
            rollups=usage.rollups,
            rollup_job=usage.rollup_job,
            tenant_id=tenant,
        ):
            differences += 1
            err.print(f"{each.tenant_id}: {each.what}", style="red", markup=False)
        out.print(f"{progress.sessions} sessions, {progress.entries} entries, {differences} differences")

    with_components(work, indexes=False)
    if differences:
        raise typer.Exit(1)


@ledger_app.command()
def compare() -> None:
    """Compare the ledger's cost settled today (UTC) with the provider's usage of the key today.

    Exit status 1: they differ, or the provider reports no amount.
    """
    equal = False

    async def work(components: "Components", provider: "ProviderComponents") -> None:
        nonlocal equal
        start = components.clock().replace(hour=0, minute=0, second=0, microsecond=0)
        used = _used_today(await provider.api.key())
        cost, pending, unresolved = await components.accounting.ledger.sum_of(
            provider_key_id=provider.key_id, start=start, end=start + timedelta(days=1)
        )
        out.print(f"ledger    {money.format_usd(cost)} USD settled; {pending} calls pending, {unresolved} unresolved")
        out.print(f"provider  {money.format_usd(used) or 'unknown'} USD")
        if used is not None:
            out.print(f"excess    {money.format_usd(money.subtract(used, cost))} USD of the provider over the ledger")
        equal = used == cost

    with_provider(work)
    if not equal:
        raise typer.Exit(1)


def _used_today(body: bytes) -> Decimal | None:
    """Return a key's usage today from the provider's `/key` response, or None if it has no amount."""
    response = money.loads(body)
    data = response.get("data") if isinstance(response, dict) else None
    return money.parse_charge(data.get("usage_daily")) if isinstance(data, dict) else None


def _print(entries: list[Entry], shape: Format) -> None:
    """Print entries; a table has the columns for people only."""
    rows = [_row(each) for each in entries]
    match shape:
        case Format.JSON:
            print_json(rows)
        case Format.CSV:
            print_csv(_KEYS, [tuple(row.values()) for row in rows])
        case Format.TABLE:
            print_table(_COLUMNS, [tuple(row[key] for key in _TABLE_KEYS) for row in rows])


def _row(entry: Entry) -> dict[str, Value]:
    """Return the values of an entry, by and in the order of `_KEYS`."""
    call = None if isinstance(entry, Adjustment) else entry
    settle_time = entry.settle_time if isinstance(entry, ModelCall) else entry.time
    values = (
        entry.entry_id,
        entry.start_time.isoformat(timespec="milliseconds"),
        settle_time.isoformat(timespec="milliseconds") if settle_time is not None else None,
        entry.session_id,
        entry.turn_id,
        entry.number,
        "adjustment" if call is None else call.state.value,
        entry.purpose.value if entry.purpose is not None else None,
        entry.agent,
        entry.api_key_id,
        entry.model,
        entry.provider,
        money.format_usd(entry.cost),
        money.format_usd(call.upper_bound) if call is not None and call.cost is None else None,
        entry.user,
        entry.user_reference,
        ": ".join(filter(None, (call.error, call.error_message))) if call is not None else None,
        entry.agent_version,
    )
    return dict(zip(_KEYS, values, strict=True))
