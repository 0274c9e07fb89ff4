"""Proves the budgets: what each counts as spent must be what the ledger's entries of its window come to."""

from collections.abc import AsyncIterator
from datetime import timedelta

from godoty_service.clock import Clock, utc_now
from godoty_service.metering.budgets import Budgets, CorrectionSlot
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.verification import Difference
from godoty_service.mongo import Database, Document

_AHEAD = timedelta(days=1)  # an entry of another server's clock may start a little later than now


async def verify_budgets(
    *, database: Database, ledger: Ledger, budgets: Budgets, tenant_id: str | None = None, clock: Clock = utc_now
) -> AsyncIterator[Difference]:
    """Verify one tenant's budgets, or all, while servers go on.

    A tenant with open calls is passed over: what they cost is on its way from the ledger to the budget. So is one
    whose first budget was set within the last minute. An adjustment that is still marked as unapplied is not expected
    in the budget: a sweep brings it there.

    Args:
        database: Where snapshots are taken: each tenant is looked at as it was at one moment.
        ledger: The entries.
        budgets: What is counted.
        tenant_id: Whose; None: everybody's.
        clock: Tells the time.
    """
    async for tenant in budgets.tenants(tenant_id):
        now = clock()
        async with database.snapshot() as snapshot:
            counted = await budgets.at(snapshot).counted(tenant, at=now)
            uncounted = _uncounted(await budgets.at(snapshot).correction(tenant))
            statement = await ledger.at(snapshot).counted_statement(
                tenant, at=now, end=now + _AHEAD, uncounted=uncounted
            )
        for window, amount in counted.items():
            true = statement.spent[window][1]
            if amount != true:
                yield Difference(
                    tenant_id=tenant,
                    session_id="",
                    what=f"budget {window.value}: counted {amount}, by the entries {true}",
                )


def _uncounted(slot: CorrectionSlot | None) -> Document:
    """Match adjustments that are on their way to the budget: not what its statement has, or its slot."""
    made = {"$gte": slot.since} if slot is not None else {"$exists": True}
    return {"unapplied": True, "time": made, "_id": {"$ne": slot.adjustment_id if slot is not None else None}}
