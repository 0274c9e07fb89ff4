"""Proves the budgets: what each counts as spent must be what the ledger's entries of its window come to.

Most entries are summed piece by piece, and their calls that are open are remembered. Then, at one moment, the budget
is read, what has come since is added, and the calls that were open are read again. What differs is verified again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from godoty_service.budget import BudgetWindow
from godoty_service.metering import money
from godoty_service.metering.budgets import Budgets, Counted
from godoty_service.metering.charges import Held
from godoty_service.metering.entry_sums import DaySums, EntrySums
from godoty_service.metering.verification import Difference
from godoty_service.mongo import Database

_QUIET = timedelta(minutes=1)  # so long after its start every call is in the ledger, and reserved
_TRIES = 3
_AGAIN = 0.3  # seconds


async def verify_budgets(
    *, database: Database, entries: EntrySums, budgets: Budgets, tenant_id: str | None = None
) -> AsyncIterator[Difference]:
    """Verify one tenant's budgets, or all, while servers go on: whatever the number of entries, in bounded operations.

    A tenant whose first budget was set within the last minute is passed over: what came before is not stated for good.
    An adjustment that is still marked as unapplied is not expected in the budget: a sweep brings it there.

    Args:
        database: Where snapshots are taken.
        entries: Sums the ledger's entries.
        budgets: What is counted.
        tenant_id: Whose; None: everybody's.
    """
    async for tenant in budgets.tenants(tenant_id):
        found: list[str] = []
        for _ in range(_TRIES):  # an entry may land late, of a server that stood still
            found = await _differences(tenant, database=database, entries=entries, budgets=budgets)
            if not found:
                break
            await asyncio.sleep(_AGAIN)
        for what in found:
            yield Difference(tenant_id=tenant, session_id="", what=what)


async def _differences(tenant_id: str, *, database: Database, entries: EntrySums, budgets: Budgets) -> list[str]:
    """Compare a tenant's budgets with its entries, as both are at one moment."""
    quiet = await database.now() - _QUIET
    early, late, reserved = DaySums(), DaySums(), DaySums()
    await entries.add_entries(early, tenant_id, end=quiet, made_before=quiet)
    async with database.snapshot() as snapshot:
        counted = await budgets.at(snapshot).counted(tenant_id)
        if counted is None:
            return []
        now = entries.at(snapshot)
        await now.add_entries(late, tenant_id, start=quiet)
        await now.add_calls(late, tenant_id, {each.call_id for each in early.held})
        await now.add_calls(reserved, tenant_id, counted.bounds)
        adjustments = await now.adjustments(tenant_id, end=quiet, made_from=quiet)
        unapplied = await now.unapplied(tenant_id, made_from=counted.since, but=counted.adjustment_id)
    for day, amount in (*early.amounts.items(), *adjustments.amounts.items()):
        late.add(day, amount)
    for day, amount in unapplied.amounts.items():
        late.subtract(day, amount)
    return [*_spent(counted, late, reserved), *_reserved(counted, [*late.held, *reserved.held], quiet)]


def _spent(counted: Counted, entries: DaySums, closing: DaySums) -> Iterator[str]:
    """Compare what is spent: a call that is closed and still reserved is on its way from the ledger to the budget."""
    for window in BudgetWindow:
        first = counted.first[window]
        true, coming = _by_key(entries, window), _by_key(closing, window)
        for key in sorted({*true, *counted.spent[window]}):
            kept = money.add(counted.spent[window].get(key, money.ZERO), coming.get(key, money.ZERO))
            summed = true.get(key, money.ZERO)
            if key >= first and kept != summed:
                yield f"budget {window.value}: in {key} counted {kept}, by the entries {summed}"


def _reserved(counted: Counted, pending: list[Held], quiet: datetime) -> Iterator[str]:
    """Compare what is reserved with the bounds of the calls that are open."""
    for call in {each.call_id: each for each in pending}.values():
        bound = counted.bounds.get(call.call_id)
        if bound is None and counted.since <= call.time < quiet:
            yield f"budget: call {call.call_id} is open and not reserved"
        elif bound is not None and bound != call.bound:
            yield f"budget: for call {call.call_id} is reserved {bound}, by its entry {call.bound}"


def _by_key(sums: DaySums, window: BudgetWindow) -> dict[str, Decimal]:
    by_key: dict[str, Decimal] = {}
    for day, amount in sums.amounts.items():
        key = window.key(datetime.fromisoformat(day))
        by_key[key] = money.add(by_key.get(key, money.ZERO), amount)
    return by_key
