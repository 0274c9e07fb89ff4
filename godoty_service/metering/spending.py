"""Keeps budgets in step with the ledger: settles what closes, tells what is reached, states what was before."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from godoty_service.budget import Budget
from godoty_service.metering.adjustment_store import AdjustmentStore
from godoty_service.metering.budget_corrections import count_adjustment
from godoty_service.metering.budget_document import UNKNOWN
from godoty_service.metering.budgets import BudgetAlert, Budgets, BudgetStatus
from godoty_service.metering.call import Adjustment, ModelCall
from godoty_service.metering.opening_balance import OpeningBalance
from godoty_service.metering.planned_call import PlannedCall

# A policy holds on every server within 5 seconds; their clocks may be some more apart.
_KNOWN = timedelta(seconds=10)

BudgetsOf = Callable[[str], Awaitable[Sequence[Budget] | None]]
Now = Callable[[], Awaitable[datetime]]


class Spending:
    """Budgets, and the ledger behind them."""

    def __init__(
        self,
        *,
        budgets: Budgets,
        balance: OpeningBalance,
        adjustments: AdjustmentStore,
        budgets_of: BudgetsOf,
        now: Now,
        on_alert: Callable[[BudgetAlert], None] = lambda _: None,
    ) -> None:
        """Build it.

        Args:
            budgets: What is spent and reserved.
            balance: States what the ledger has.
            adjustments: Where an adjustment is marked as applied once it is counted.
            budgets_of: Returns a tenant's budgets, at most some seconds old; None: it never had any.
            now: Returns the time of the database, which all servers share.
            on_alert: Called with each share that is reached, once.
        """
        self.budgets_of = budgets_of
        self._budgets = budgets
        self._balance = balance
        self._adjustments = adjustments
        self._now = now
        self._on_alert = on_alert
        self._beginning: dict[str, asyncio.Task[None]] = {}

    async def output_limit(self, call: PlannedCall, budgets: Sequence[Budget]) -> int | None:
        """Return the largest output limit with which a call fits what is not spent of the hard budgets.

        Raises:
            BudgetSpent: It does not fit with its least limit either.
            BudgetReserved: It would fit, but for what other open calls hold.
        """
        return await self._budgets.output_limit(call, budgets)

    async def reserve(self, call: ModelCall, budgets: Sequence[Budget]) -> None:
        """Reserve a call's bound.

        Raises:
            BudgetSpent: It does not fit.
            BudgetReserved: It does not fit just now.
        """
        while not await self._budgets.reserve(call, budgets):
            await self._begin_together(call.tenant_id)  # a policy was written without it

    async def settle(self, call: ModelCall, budgets: Sequence[Budget]) -> list[BudgetAlert]:
        """Settle a closed call, and return the shares of budgets that it reached."""
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
        await count_adjustment(adjustment, budgets=self._budgets, adjustments=self._adjustments)

    async def status(self, tenant_id: str) -> list[BudgetStatus]:
        """Return how a tenant's budgets stand."""
        return await self._budgets.status(tenant_id, await self.budgets_of(tenant_id) or ())

    @asynccontextmanager
    async def counting(self, tenant_id: str) -> AsyncIterator[None]:
        """Count a tenant's spending; the block puts its first budget in force.

        Where counting cannot begin, the block is not entered. Where the block ends half-way, a sweep does the rest.
        """
        await self.begin(tenant_id)
        yield
        await self.in_force(tenant_id)

    async def begin(self, tenant_id: str) -> None:
        """Begin to count a tenant's spending, before a budget is in force; where it has begun, do nothing."""
        if await self._budgets.since(tenant_id) in (None, UNKNOWN):
            now = await self._now()
            await self._budgets.begin(tenant_id, await self._balance.until(tenant_id, now + _KNOWN, at=now))

    async def in_force(self, tenant_id: str) -> None:
        """Set from when on each call is counted by itself: a policy with a budget has just been written."""
        if await self._budgets.since(tenant_id) == UNKNOWN:
            since = await self._now() + _KNOWN
            await self._budgets.count_from(tenant_id, since=since, ahead=await self._balance.since(tenant_id, since))

    async def restate(self, tenant_id: str) -> None:
        """Count a tenant's spending anew, where it is counted: entries have moved to other days or months.

        A call that is settled in between is in the statement, or is settled by the next sweep.
        """
        if await self._budgets.delete(tenant_id):
            await self._begin_together(tenant_id)

    async def _begin_together(self, tenant_id: str) -> None:
        """Begin counting under a policy that is in force: once, however many calls wait for it."""
        task = self._beginning.get(tenant_id)
        if task is None:
            task = self._beginning[tenant_id] = asyncio.create_task(self._begin_late(tenant_id))
            task.add_done_callback(lambda _: self._beginning.pop(tenant_id, None))
        await asyncio.shield(task)

    async def _begin_late(self, tenant_id: str) -> None:
        async with self.counting(tenant_id):
            pass
