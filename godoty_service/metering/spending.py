"""Keeps budgets in step with the ledger: settles what closes, tells what is reached, states what was before."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from godoty_service.budget import Budget
from godoty_service.clock import Clock, utc_now
from godoty_service.metering.budget_corrections import count_adjustment
from godoty_service.metering.budgets import BudgetAlert, Budgets, BudgetStatus
from godoty_service.metering.call import Adjustment, CallState, ModelCall
from godoty_service.metering.ledger import Ledger

# A call's reservation is settled right after its entry; one that is so much older was left by a server that died.
_FORGOTTEN = timedelta(seconds=30)
# A policy holds on every server within 5 seconds; their clocks may be some more apart.
_KNOWN = timedelta(seconds=10)
# So long after its start every call is in the ledger, or will never be sent.
_LANDED = timedelta(seconds=30)

BudgetsOf = Callable[[str], Awaitable[Sequence[Budget] | None]]


class Spending:
    """Budgets, and the ledger behind them."""

    def __init__(
        self,
        *,
        budgets: Budgets,
        ledger: Ledger,
        budgets_of: BudgetsOf,
        on_alert: Callable[[BudgetAlert], None] = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        """Build it.

        Args:
            budgets: What is spent and reserved.
            ledger: The entries behind it.
            budgets_of: Tells a tenant's budgets, at most some seconds old; None: it never had any.
            on_alert: Told of each share that is reached, once.
            clock: Tells the time.
        """
        self.budgets_of = budgets_of
        self._budgets = budgets
        self._ledger = ledger
        self._on_alert = on_alert
        self._clock = clock

    async def reserve(self, call: ModelCall, budgets: Sequence[Budget]) -> None:
        """Reserve a call's bound.

        Raises:
            BudgetSpent: It does not fit.
            BudgetReserved: It does not fit just now.
        """
        while not await self._budgets.reserve(call, budgets):
            await self.begin(call.tenant_id)  # its first budget is in force, and whoever set it came no further

    async def settle(self, call: ModelCall, budgets: Sequence[Budget]) -> list[BudgetAlert]:
        """Settle a closed call, and tell the shares of budgets that it reached."""
        alerts = [
            alert
            for alert in await self._budgets.settle(call, budgets)
            if await self._budgets.tell_once(call.tenant_id, alert, alert.window.key(call.start_time))
        ]
        for alert in alerts:
            self._on_alert(alert)
        return alerts

    async def settle_elsewhere(self, call: ModelCall) -> None:
        """Settle a call that was closed by reconciliation: the next settled turn is told what it reached."""
        await self._budgets.settle(call)

    async def correct(self, adjustment: Adjustment) -> None:
        """Count an adjustment in its tenant's budget, once, and mark it as applied."""
        await count_adjustment(adjustment, budgets=self._budgets, adjustments=self._ledger.adjustments)

    async def status(self, tenant_id: str) -> list[BudgetStatus]:
        """Tell how a tenant's budgets stand."""
        return await self._budgets.status(tenant_id, await self.budgets_of(tenant_id) or ())

    async def begin(self, tenant_id: str) -> None:
        """Begin to count a tenant's spending, once a budget is in force; where it has begun, do nothing."""
        if not await self._budgets.begun(tenant_id):
            now = self._clock()
            statement = await self._ledger.statement(tenant_id, at=now, end=now)
            await self._budgets.begin(tenant_id, since=now + _KNOWN, statement=statement)

    async def sweep(self) -> int:
        """Settle the reservations that dead servers left, and state what was before; returns how many were settled."""
        for tenant_id, since in await self._budgets.unstated(until=self._clock() - _LANDED):
            await self._budgets.state(tenant_id, await self._ledger.statement(tenant_id, at=since, end=since))
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


def _closed_long_ago(call: ModelCall, now: datetime) -> bool:
    return call.settle_time is None or call.settle_time < now - _FORGOTTEN
