"""Proves the budgets: what each counts as spent must be what the ledger's entries of its window come to."""

from collections.abc import AsyncIterator
from datetime import timedelta

from godoty_service.budget import BudgetWindow
from godoty_service.clock import Clock, utc_now
from godoty_service.metering.budgets import Budgets
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.verification import Difference

_AHEAD = timedelta(days=1)  # an entry of another server's clock may start a little later than now


async def verify_budgets(
    ledger: Ledger, budgets: Budgets, *, tenant_id: str | None = None, clock: Clock = utc_now
) -> AsyncIterator[Difference]:
    """Verify one tenant's budgets, or all.

    A tenant with open calls is passed over: what they cost is on its way from the ledger to the budget.

    Args:
        ledger: The entries.
        budgets: What is counted.
        tenant_id: Whose; None: everybody's.
        clock: Tells the time.
    """
    async for tenant, counted in budgets.counted(tenant_id):
        now = clock()
        for window in BudgetWindow:
            key, amount = counted[window]
            if key != window.key(now):
                continue  # nothing has been spent in the window that runs now
            true = await ledger.charged(tenant, start=window.start(now), end=now + _AHEAD)
            if amount != true:
                yield Difference(
                    tenant_id=tenant,
                    session_id="",
                    what=f"budget {window.value}: counted {amount}, by the entries {true}",
                )
