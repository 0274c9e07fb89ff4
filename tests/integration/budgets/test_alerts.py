"""Alerts: once for each share of a limit, whichever server settled the call that reached it."""

from datetime import timedelta
from decimal import Decimal

from godoty_service.budgets.budget import Budget, BudgetWindow
from tests.integration.budgets.conftest import BudgetHarness


def soft(limit: str, window: BudgetWindow = BudgetWindow.TOTAL) -> Budget:
    """Return a budget that refuses nothing."""
    return Budget(window=window, limit=Decimal(limit), hard=False)


async def spend(harness: BudgetHarness, cost: str, *budgets: Budget) -> list[int]:
    """Settle a call on a server that knows these budgets; return the shares of its alerts."""
    closed = await harness.close(await harness.open(reserved=True), Decimal(cost))
    return [alert.percent for alert in await harness.budget_service.settle(closed, budgets)]


async def test_raised_budget_alerts_again(harness: BudgetHarness) -> None:
    """Its shares are other amounts: after 100 per cent of the old limit, 50 per cent of the new one alerts."""
    alerted = [await spend(harness, "0.5", soft("1")) for _ in range(3)]
    raised = [await spend(harness, "0.5", soft("3")) for _ in range(4)]

    assert alerted == [[50], [100], []]
    assert raised == [[50], [80], [100], []]


async def test_server_with_the_old_limit_repeats_no_alert(harness: BudgetHarness) -> None:
    """While a change spreads, servers settle alternately with the old limit and the new one."""
    alerted = [await spend(harness, "0.5", soft(limit)) for limit in ("1", "1.5", "1", "1.50", "1")]

    assert alerted == [[50], [50], [100], [100], []]


async def test_share_reached_by_reconciliation_alerts_the_next_turn(harness: BudgetHarness) -> None:
    """The call of a dead server alerts no turn; the next turn gets the alert, at any cost of its own."""
    await harness.budget_service.settle_reconciled(
        await harness.close(await harness.open(reserved=True), Decimal("0.9"))
    )

    assert await spend(harness, "0.001", soft("1")) == [80]
    assert await spend(harness, "0.001", soft("1")) == []


async def test_new_day_alerts_again(harness: BudgetHarness) -> None:
    """Alerts of the day before do not count for this day."""
    first = await spend(harness, "0.5", soft("1", BudgetWindow.DAY))
    harness.now += timedelta(days=1)
    second = await spend(harness, "0.5", soft("1", BudgetWindow.DAY))

    assert (first, second) == ([50], [50])
