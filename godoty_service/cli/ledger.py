"""`godoty ledger`: settle what is open, prove the books, compare them with the provider's."""

import asyncio
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import admin_service_pb2 as pb

from godoty_service.cli.entries import export_entries, list_entries
from godoty_service.cli.repair import repair_times
from godoty_service.cli.session import err, out, user, with_provider, with_rooms
from godoty_service.metering import money
from godoty_service.metering.budget_verification import verify_budgets
from godoty_service.metering.reconciler import Outcome
from godoty_service.metering.rollup_verification import verify_usage
from godoty_service.metering.verification import Extent, verify

if TYPE_CHECKING:
    from godoty_service.rooms import ProviderRooms, Rooms

ledger_app = typer.Typer(help="The books.", no_args_is_help=True)
ledger_app.command("list")(list_entries)
ledger_app.command("export")(export_entries)
ledger_app.command("repair-times")(repair_times)


@ledger_app.command()
def reconcile(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for records that are not there yet.")] = 0.0,
) -> None:
    """Settle open calls from the provider's records. Exit status 1: some are still open."""
    done = False

    async def work(rooms: "Rooms", provider: "ProviderRooms") -> None:
        nonlocal done
        await provider.oracle.load()
        clock = asyncio.get_running_loop().time
        start = clock()
        found: Counter[Outcome] = Counter()
        while True:
            elapsed = clock() - start
            found.update(await provider.reconciler.tick())
            if clock() - start >= wait or not await _more_comes(rooms, elapsed=elapsed):
                break
            await asyncio.sleep(0.25)
        pending, given_up = await rooms.ledger.count()
        settled, unresolved = found[Outcome.SETTLED], found[Outcome.UNRESOLVED]
        out.print(f"settled {settled}, given up on {unresolved}; open {pending}, unresolved in all {given_up}")
        done = pending == 0

    with_provider(work)
    if not done:
        raise typer.Exit(1)


async def _more_comes(rooms: "Rooms", *, elapsed: float) -> bool:
    """Tell whether calls wait for their records, or may yet: a server that died counts as living for a lease's time.

    Args:
        rooms: The rooms.
        elapsed: Seconds from the command's start to the last look.
    """
    if await rooms.ledger.next_due() is not None:
        return True
    return elapsed <= rooms.replicas.lease.total_seconds() and bool(await rooms.ledger.owners())


@ledger_app.command()
def resolve(
    call: Annotated[str, typer.Argument(help="The unresolved call's id.")],
    cost: Annotated[str, typer.Option(help="What it cost, in US dollars: a plain decimal.")],
    why: Annotated[str, typer.Option(help="How that is known.")],
    by: Annotated[str, typer.Option(help="Who says so; default: the user who runs this.")] = "",
    *,
    above_bound: Annotated[
        bool, typer.Option("--above-bound", help="The cost may be above the call's upper bound.")
    ] = False,
) -> None:
    """Settle a call that no record tells: a new, dated and attributed entry."""
    from godoty_service.rpc.call_adjuster import attribution_violations  # noqa: PLC0415 - as in entries.py

    amount = money.read_amount(cost)
    if amount < 0:
        raise ValueError("--cost must not be negative")
    for each in attribution_violations(why=why, by=by or user()):
        raise ValueError(f"--{each.field} {each.description}")

    async def work(rooms: "Rooms") -> None:
        found = await rooms.ledger.find(call)
        if found is None:
            raise ValueError(f"there is no call {call}")
        await rooms.adjustments.check(found, cost=amount, above_bound=above_bound)
        told = {"call_id": call, "cost_usd": money.format_usd(amount), "why": why, "by": by}
        await rooms.administration.resolving_call(user(), found.tenant_id, told)
        written = await rooms.adjustments.resolve(found, cost=amount, why=why, by=by or user(), above_bound=above_bound)
        out.print(f"{written.entry_id}: {money.format_usd(written.cost)} USD, entry {written.number} of its session")

    with_rooms(work)


@ledger_app.command()
def adjust(
    call: Annotated[str, typer.Argument(help="The call's id.")],
    *,
    cost: Annotated[str | None, typer.Option(help="What it cost in all, in US dollars: a plain decimal.")] = None,
    add: Annotated[str | None, typer.Option(help="What is added to its cost; negative: what is taken off.")] = None,
    by: Annotated[str, typer.Option(help="Who says so.")],
    why: Annotated[str, typer.Option(help="The reason.")],
    request_id: Annotated[str, typer.Option(help="The id of this adjustment: the same id adjusts once.")],
    above_bound: Annotated[
        bool, typer.Option("--above-bound", help="The call's total may be above its upper bound.")
    ] = False,
) -> None:
    """Correct what a call cost: a new, dated and attributed entry. An unresolved call is resolved first."""
    from godoty_service.rpc.call_adjuster import CallAdjuster, adjustment_order  # noqa: PLC0415 - as in entries.py

    if (cost is None) == (add is None):
        raise ValueError("say either --cost or --add")
    amount = {"cost_usd": cost} if add is None else {"add_usd": add}
    request = pb.AdjustCallRequest(call_id=call, why=why, request_id=request_id, above_bound=above_bound, **amount)

    async def work(rooms: "Rooms") -> None:
        found = await rooms.ledger.find(call)
        if found is None:
            raise ValueError(f"there is no call {call}")
        request.tenant_id = found.tenant_id
        adjuster = CallAdjuster(adjustments=rooms.adjustments, administration=rooms.administration)
        written, total = await adjuster.adjust(user(), adjustment_order(request, by=by))
        added, entry = money.format_usd(written.cost), f"entry {written.number} of its session"
        out.print(f"{written.entry_id}: {added} USD, {entry}; the call costs {money.format_usd(total)} USD")

    with_rooms(work)


@ledger_app.command("verify")
def verify_books(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's books.")] = None,
) -> None:
    """Recompute every sum from the entries and name each difference. Exit status 1: there are some."""
    found = 0

    async def work(rooms: "Rooms") -> None:
        nonlocal found
        extent = Extent()
        async for each in verify(
            database=rooms.database, ledger=rooms.ledger, folds=rooms.sessions, tenant_id=tenant, extent=extent
        ):
            found += 1
            err.print(f"{each.tenant_id} {each.session_id}: {each.what}", style="red", markup=False)
        async for each in verify_budgets(
            database=rooms.database, entries=rooms.entry_sums, budgets=rooms.budgets, tenant_id=tenant
        ):
            found += 1
            err.print(f"{each.tenant_id}: {each.what}", style="red", markup=False)
        usage = rooms.usage
        async for each in verify_usage(
            database=rooms.database,
            entries=usage.entries,
            rollups=usage.rollups,
            booking=usage.booking,
            tenant_id=tenant,
        ):
            found += 1
            err.print(f"{each.tenant_id}: {each.what}", style="red", markup=False)
        out.print(f"{extent.sessions} sessions, {extent.entries} entries, {found} differences")

    with_rooms(work, indexes=False)
    if found:
        raise typer.Exit(1)


@ledger_app.command()
def compare() -> None:
    """Compare what the ledger has settled today (UTC) with what the provider says that the key has used today.

    Exit status 1: they differ, or the provider states no amount.
    """
    equal = False

    async def work(rooms: "Rooms", provider: "ProviderRooms") -> None:
        nonlocal equal
        start = rooms.clock().replace(hour=0, minute=0, second=0, microsecond=0)
        used = _used_today(await provider.account.key())
        cost, pending, unresolved = await rooms.ledger.sum_of(
            provider_key_id=provider.key_id, start=start, end=start + timedelta(days=1)
        )
        out.print(f"ledger    {money.format_usd(cost)} USD settled; {pending} calls open, {unresolved} unresolved")
        out.print(f"provider  {money.format_usd(used) or 'not told'} USD")
        if used is not None:
            out.print(f"beyond    {money.format_usd(money.subtract(used, cost))} USD that the provider has more")
        equal = used == cost

    with_provider(work)
    if not equal:
        raise typer.Exit(1)


def _used_today(body: bytes) -> Decimal | None:
    """Return what a key has used today, as the provider's `/key` states it; None: it does not state an amount."""
    answer = money.loads(body)
    data = answer.get("data") if isinstance(answer, dict) else None
    return money.parse_charge(data.get("usage_daily")) if isinstance(data, dict) else None
