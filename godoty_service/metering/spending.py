"""Keeps budgets in step with the ledger: settles what closes, tells what is reached, restates what was before."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.clock import Clock, utc_now
from godoty_service.metering import money
from godoty_service.metering.budgets import SHARES, BudgetAlert, Budgets, BudgetStatus, charge
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.ledger import Ledger

# A call's reservation is settled right after its entry; one that is so much older was left by a server that died.
_FORGOTTEN = timedelta(seconds=30)

BudgetsOf = Callable[[str], Awaitable[Sequence[Budget]]]


class Spending:
    """Budgets, and the ledger behind them."""

    def __init__(self, *, budgets: Budgets, ledger: Ledger, budgets_of: BudgetsOf, clock: Clock = utc_now) -> None:
        """Build it.

        Args:
            budgets: What is spent and reserved.
            ledger: The entries behind it.
            budgets_of: Tells a tenant's budgets.
            clock: Tells the time.
        """
        self._budgets = budgets
        self._ledger = ledger
        self._budgets_of = budgets_of
        self._clock = clock

    async def reserve(self, call: ModelCall, budgets: Sequence[Budget]) -> None:
        """Reserve a call's bound.

        Raises:
            BudgetSpent: It does not fit.
            BudgetReserved: It does not fit just now.
        """
        await self._budgets.reserve(call.tenant_id, call, bound=call.upper_bound or Decimal(0), budgets=budgets)

    async def settle(self, call: ModelCall, budgets: Sequence[Budget]) -> list[BudgetAlert]:
        """Settle a closed call, and tell the shares of budgets that it reached."""
        alerts = []
        limits = {budget.window: budget.limit for budget in budgets}
        for window, before, after in await self._budgets.settle(call):
            limit = limits.get(window)
            reached = [share for share in SHARES if limit and _share(before, limit) < share <= _share(after, limit)]
            if reached and limit is not None:
                key = window.key(call.start_time)
                if await self._budgets.tell_once(call.tenant_id, window, key, reached[-1]):
                    alerts.append(BudgetAlert(window=window, percent=reached[-1], spent=after, limit=limit))
        return alerts

    async def settle_elsewhere(self, call: ModelCall) -> None:
        """Settle a call that was closed by reconciliation."""
        await self._budgets.settle(call)

    async def resolved(self, call: ModelCall, cost: Decimal) -> None:
        """Take in what an unresolved call has cost, in place of its bound."""
        await self._budgets.adjust(call.tenant_id, time=call.start_time, amount=money.subtract(cost, charge(call)))

    async def status(self, tenant_id: str) -> list[BudgetStatus]:
        """Tell how a tenant's budgets stand."""
        return await self._budgets.status(tenant_id, await self._budgets_of(tenant_id))

    async def begin(self, tenant_id: str) -> None:
        """Begin to count a tenant's spending, from what the ledger has until now."""
        await self._budgets.open(tenant_id)
        since = await self._budgets.unstated(tenant_id)
        if since is None:
            return
        spent = {
            window: (window.key(since), await self._ledger.charged(tenant_id, start=window.start(since), end=since))
            for window in BudgetWindow
        }
        pending = await self._ledger.pending_before(tenant_id, since)
        await self._budgets.state(tenant_id, spent=spent, pending=pending)

    async def sweep(self) -> int:
        """Settle the reservations that dead servers left; returns how many."""
        swept = 0
        for tenant_id, call_id in await self._budgets.left_open(older_than=_FORGOTTEN):
            call = await self._ledger.get(tenant_id, call_id)
            if call is None:
                await self._budgets.release(tenant_id, call_id)
            elif call.state is not CallState.PENDING and _closed_long_ago(call, self._clock()):
                await self._budgets.settle(call)
            else:
                continue
            swept += 1
        return swept


def _share(spent: Decimal, limit: Decimal) -> Decimal:
    return spent * 100 / limit  # compared with whole shares only: never an amount of money


def _closed_long_ago(call: ModelCall, now: datetime) -> bool:
    return call.settle_time is None or call.settle_time < now - _FORGOTTEN
