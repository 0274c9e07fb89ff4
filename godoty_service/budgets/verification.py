"""Verifies the budgets: the tracked spending of each window must equal the charges of its ledger entries.

Most entries are summed piece by piece, and the ids of their open calls are retained. Then, in one snapshot, the budget
and newer entries are read, and the open calls are read again. A tenant with differences is verified again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.charges import Reservation
from godoty_service.budgets.entry_sums import DaySums, EntrySums
from godoty_service.budgets.store import BudgetStore, TrackedSpending
from godoty_service.ledger.verification import Difference
from godoty_service.mongo.client import Database
from godoty_service.pricing import money

_QUIET = timedelta(minutes=1)  # this long after its start, every call is in the ledger and reserved
_TRIES = 3
_RETRY_DELAY = 0.3  # seconds


async def verify_budgets(
    *, database: Database, entries: EntrySums, budgets: BudgetStore, tenant_id: str | None = None
) -> AsyncIterator[Difference]:
    """Verify the budgets of one tenant or all, while servers run, in operations of bounded size.

    A tenant whose first budget was set within the last minute is skipped: its opening balance is not final yet. An
    adjustment that is still marked as unapplied is not expected in the budget: a maintenance run applies it.

    Args:
        database: Takes snapshots.
        entries: Sums the ledger entries.
        budgets: The tracked spending.
        tenant_id: The tenant; None: all.
    """
    async for tenant in budgets.tenants(tenant_id):
        found: list[str] = []
        for _ in range(_TRIES):  # a paused server may insert an entry late
            found = await _differences(tenant, database=database, entries=entries, budgets=budgets)
            if not found:
                break
            await asyncio.sleep(_RETRY_DELAY)
        for what in found:
            yield Difference(tenant_id=tenant, session_id="", what=what)


async def _differences(tenant_id: str, *, database: Database, entries: EntrySums, budgets: BudgetStore) -> list[str]:
    """Compare a tenant's budgets with its entries in one snapshot."""
    quiet = await database.now() - _QUIET
    calendar = await budgets.calendar_of(tenant_id)
    early, late, reserved = DaySums(calendar), DaySums(calendar), DaySums(calendar)
    await entries.add_entries(early, tenant_id, end=quiet, made_before=quiet)
    async with database.snapshot() as snapshot:
        tracked = await budgets.read_at(snapshot).tracked(tenant_id)
        if tracked is None:
            return []
        now = entries.read_at(snapshot)
        await now.add_entries(late, tenant_id, start=quiet)
        await now.add_calls(late, tenant_id, {each.call_id for each in early.reservations})
        await now.add_calls(reserved, tenant_id, tracked.bounds)
        adjustments = await now.adjustments(tenant_id, end=quiet, made_from=quiet, calendar=calendar)
        unapplied = await now.unapplied(
            tenant_id, made_from=tracked.since, excluded=tracked.adjustment_id, calendar=calendar
        )
    for day, amount in (*early.amounts.items(), *adjustments.amounts.items()):
        late.add(day, amount)
    for day, amount in unapplied.amounts.items():
        late.subtract(day, amount)
    return [*_spent(tracked, late, reserved), *_reserved(tracked, [*late.reservations, *reserved.reservations], quiet)]


def _spent(tracked: TrackedSpending, entries: DaySums, closing: DaySums) -> Iterator[str]:
    """Compare the spending; a call that is closed in the ledger and still reserved is about to be settled."""
    for window in BudgetWindow:
        first = tracked.first[window]
        expected, settling = _by_key(entries, window), _by_key(closing, window)
        for key in sorted({*expected, *tracked.spent[window]}):
            stored = money.add(tracked.spent[window].get(key, money.ZERO), settling.get(key, money.ZERO))
            summed = expected.get(key, money.ZERO)
            if key >= first and stored != summed:
                yield f"budget {window.value}: in {key} counted {stored}, by the entries {summed}"


def _reserved(tracked: TrackedSpending, pending: list[Reservation], quiet: datetime) -> Iterator[str]:
    """Compare the reservations with the upper bounds of the open calls."""
    for call in {each.call_id: each for each in pending}.values():
        bound = tracked.bounds.get(call.call_id)
        if bound is None and tracked.since <= call.time < quiet:
            yield f"budget: call {call.call_id} is open and not reserved"
        elif bound is not None and bound != call.bound:
            yield f"budget: for call {call.call_id} is reserved {bound}, by its entry {call.bound}"


def _by_key(sums: DaySums, window: BudgetWindow) -> dict[str, Decimal]:
    by_key: dict[str, Decimal] = {}
    for day, amount in sums.amounts.items():
        key = window.key(day)
        by_key[key] = money.add(by_key.get(key, money.ZERO), amount)
    return by_key
