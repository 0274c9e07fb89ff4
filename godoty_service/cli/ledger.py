"""`godoty ledger`: settle what is open, prove the books, compare them with the provider's."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from godoty_service.cli.session import err, out, user, with_provider, with_rooms
from godoty_service.metering import money
from godoty_service.metering.budget_verification import verify_budgets
from godoty_service.metering.reconciler import Outcome
from godoty_service.metering.rollup_verification import verify_usage
from godoty_service.metering.verification import Extent, verify

if TYPE_CHECKING:
    from godoty_service.rooms import ProviderRooms, Rooms

ledger_app = typer.Typer(help="The books.", no_args_is_help=True)


@ledger_app.command()
def reconcile(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for records that are not there yet.")] = 0.0,
) -> None:
    """Settle open calls from the provider's records. Exit status 1: some are still open."""
    done = False

    async def work(rooms: "Rooms", provider: "ProviderRooms") -> None:
        nonlocal done
        await provider.oracle.load()
        deadline = asyncio.get_running_loop().time() + wait
        settled = unresolved = 0
        while True:
            outcomes = await provider.reconciler.tick()
            settled += outcomes[Outcome.SETTLED]
            unresolved += outcomes[Outcome.UNRESOLVED]
            left = await rooms.ledger.next_due()
            if left is None or asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(0.25)
        pending, given_up = await rooms.ledger.count()
        out.print(f"settled {settled}, given up on {unresolved}; open {pending}, unresolved in all {given_up}")
        done = pending == 0

    with_provider(work)
    if not done:
        raise typer.Exit(1)


@ledger_app.command()
def resolve(
    call: Annotated[str, typer.Argument(help="The unresolved call's id.")],
    cost: Annotated[str, typer.Option(help="What it cost, in US dollars: an exact decimal.")],
    why: Annotated[str, typer.Option(help="How that is known.")],
    by: Annotated[str, typer.Option(help="Who says so; default: the user who runs this.")] = "",
) -> None:
    """Settle a call that no record tells: a new, dated and attributed entry."""

    async def work(rooms: "Rooms") -> None:
        found = await rooms.ledger.find(call)
        if found is None:
            raise ValueError(f"there is no call {call}")
        amount = money.parse(cost)
        if amount is None or amount < 0:
            raise ValueError("--cost must not be negative")
        if not why.strip():
            raise ValueError("--why must say something")
        written = await rooms.adjustments.resolve(found, cost=amount, why=why, by=by or user())
        out.print(f"{written.entry_id}: {money.format_usd(written.cost)} USD, entry {written.number} of its session")

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
            database=rooms.database, ledger=rooms.ledger, budgets=rooms.budgets, tenant_id=tenant
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
    """Set what the ledger has for today (UTC) beside what the provider says the key has used today."""

    async def work(rooms: "Rooms", provider: "ProviderRooms") -> None:
        start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        data: dict[str, Any] = money.loads(await provider.account.key()).get("data") or {}
        used = money.parse(data.get("usage_daily"))
        cost, pending, unresolved = await rooms.ledger.sum_of(
            provider_key_id=provider.key_id, start=start, end=start + timedelta(days=1)
        )
        out.print(f"ledger    {money.format_usd(cost)} USD settled; {pending} calls open, {unresolved} unresolved")
        out.print(f"provider  {money.format_usd(used) or 'not told'} USD")
        if used is not None:
            out.print(f"beyond    {money.format_usd(money.subtract(used, cost))} USD that the provider has more")

    with_provider(work)
