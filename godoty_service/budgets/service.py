"""Synchronizes budgets with the ledger: reserves and settles calls, sends alerts, and sets opening balances."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from godoty_service.budgets.alerts import BudgetAlert
from godoty_service.budgets.budget import Budget
from godoty_service.budgets.corrections import apply_adjustment
from godoty_service.budgets.document import UNKNOWN
from godoty_service.budgets.opening_balance import OpeningBalanceJob
from godoty_service.budgets.store import BudgetStatus, BudgetStore
from godoty_service.ledger.adjustment_store import AdjustmentStore
from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.pricing.planned_call import PlannedCall

# A policy is in force on every server within 5 seconds; their clocks may differ by some more.
_POLICY_DELAY = timedelta(seconds=10)

BudgetsOf = Callable[[str], Awaitable[Sequence[Budget] | None]]
Now = Callable[[], Awaitable[datetime]]


class BudgetService:
    """Tracks and enforces the budgets of tenants."""

    def __init__(
        self,
        *,
        budgets: BudgetStore,
        balance: OpeningBalanceJob,
        adjustments: AdjustmentStore,
        budgets_of: BudgetsOf,
        now: Now,
        on_alert: Callable[[BudgetAlert], None] = lambda _: None,
    ) -> None:
        """Create it.

        Args:
            budgets: The tracked spending and reservations.
            balance: Sums opening balances from the ledger.
            adjustments: Marks adjustments as applied.
            budgets_of: Returns a tenant's budgets, at most some seconds old; None: it never had one.
            now: Returns the time of the database, which all servers share.
            on_alert: Called once with each alert.
        """
        self.budgets_of = budgets_of
        self._budgets = budgets
        self._balance = balance
        self._adjustments = adjustments
        self._now = now
        self._on_alert = on_alert
        self._starting: dict[str, asyncio.Task[None]] = {}

    async def output_limit(self, call: PlannedCall, budgets: Sequence[Budget]) -> int | None:
        """Return the largest output limit with which a call fits into the unspent part of the hard budgets.

        Raises:
            BudgetSpent: It does not fit even with its smallest limit.
            BudgetReserved: It does not fit because of the reservations of other open calls.
        """
        return await self._budgets.output_limit(call, budgets)

    async def reserve(self, call: ModelCall, budgets: Sequence[Budget]) -> None:
        """Reserve a call's upper bound.

        Raises:
            BudgetSpent: It does not fit into a hard budget.
            BudgetReserved: It does not fit because of other open calls.
        """
        while not await self._budgets.reserve(call, budgets):
            await self._start_shared(call.tenant_id)  # the policy was written without starting it

    async def settle(self, call: ModelCall, budgets: Sequence[Budget]) -> list[BudgetAlert]:
        """Settle a closed call; return the alerts for the shares that it reached."""
        alerts = [
            alert
            for alert in await self._budgets.settle(call, budgets)
            if await self._budgets.record_alert(call.tenant_id, alert, at=call.start_time)
        ]
        for alert in alerts:
            self._on_alert(alert)
        return alerts

    async def was_never_sent(self, call: ModelCall) -> bool:
        """Return whether an open call, which no server works on, was never sent: its bound was to be reserved first."""
        return call.budgeted is True and await self._budgets.lacks_reservation(call)

    async def settle_reconciled(self, call: ModelCall) -> None:
        """Settle a call that reconciliation closed; the next settled call of a turn sends the alerts for it."""
        await self._budgets.settle(call)

    async def apply_adjustment(self, adjustment: Adjustment) -> None:
        """Apply an adjustment to its tenant's budget exactly once, and mark it as applied."""
        await apply_adjustment(adjustment, budgets=self._budgets, adjustments=self._adjustments)

    async def status(self, tenant_id: str) -> list[BudgetStatus]:
        """Return the status of a tenant's budgets."""
        return await self._budgets.status(tenant_id, await self.budgets_of(tenant_id) or ())

    @asynccontextmanager
    async def tracking(self, tenant_id: str) -> AsyncIterator[None]:
        """Start tracking a tenant's spending; the block puts its first budget in force.

        If tracking cannot start, the block is not entered. If the block fails half-way, maintenance completes it.
        """
        await self.start_tracking(tenant_id)
        yield
        await self.set_tracking_start(tenant_id)

    async def start_tracking(self, tenant_id: str) -> None:
        """Start tracking a tenant's spending before a budget is in force; do nothing if it is tracked."""
        if await self._budgets.since(tenant_id) in (None, UNKNOWN):
            now = await self._now()
            await self._budgets.start_tracking(
                tenant_id, await self._balance.before(tenant_id, now + _POLICY_DELAY, at=now)
            )

    async def set_tracking_start(self, tenant_id: str) -> None:
        """Set from when on each call is tracked, after a policy with a budget was written."""
        while await self._budgets.since(tenant_id) == UNKNOWN:  # again, if it took longer than the delay
            latest = await self._budgets.latest_change(tenant_id)
            since = await self._now() + _POLICY_DELAY
            ahead = await self._balance.from_start(tenant_id, since)
            await self._budgets.set_tracking_start(tenant_id, since=since, ahead=ahead, latest=latest)

    async def rebuild(self, tenant_id: str) -> None:
        """Rebuild a tenant's document, if it is tracked, after entries moved to other days or months.

        A call that settles meanwhile is included in the opening balance, or is settled by the next maintenance run.
        """
        if await self._budgets.delete(tenant_id):
            await self._start_shared(tenant_id)

    async def _start_shared(self, tenant_id: str) -> None:
        """Start tracking under a policy that is in force, once for all calls that wait for it."""
        task = self._starting.get(tenant_id)
        if task is None:
            task = self._starting[tenant_id] = asyncio.create_task(self._start_late(tenant_id))
            task.add_done_callback(lambda _: self._starting.pop(tenant_id, None))
        await asyncio.shield(task)

    async def _start_late(self, tenant_id: str) -> None:
        async with self.tracking(tenant_id):
            pass
