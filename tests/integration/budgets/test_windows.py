"""Days and months of a budget at their ends, and on servers whose clocks differ."""

from datetime import timedelta
from decimal import Decimal

import pytest
from bson.decimal128 import Decimal128

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.document import MAX_WINDOWS
from godoty_service.errors import BudgetReserved, BudgetSpent
from godoty_service.mongo.client import Database
from tests.integration.budgets.conftest import BOUND, BUDGETS, NOON, BudgetHarness

MONTH_AHEAD = timedelta(days=31)
DAY = BUDGETS[:1]


async def spend(harness: BudgetHarness, cost: str) -> None:
    """Open a call and settle it at a cost."""
    closed = await harness.close(await harness.open(reserved=True), Decimal(cost))
    await harness.budget_service.settle_reconciled(closed)


async def set_first_budget(harness: BudgetHarness) -> None:
    """Set the first budget, and wait until its opening balance is final."""
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()


async def test_server_with_slow_clock_cannot_spend_a_day_twice(harness: BudgetHarness) -> None:
    """After another server tracks the next day, the charges of this day are still known."""
    harness.now = NOON + timedelta(hours=11, minutes=50)
    await set_first_budget(harness)
    harness.now = evening = NOON + timedelta(hours=11, minutes=59, seconds=59)
    await spend(harness, "999.5")
    harness.advance(2)
    await harness.open(reserved=True, budgets=DAY)
    harness.now = evening

    with pytest.raises(BudgetSpent):
        await harness.open(reserved=True, budgets=DAY)

    harness.advance(2)
    await harness.open(reserved=True, budgets=DAY)


async def test_day_before_the_first_tracked_one_refuses_retryably(harness: BudgetHarness) -> None:
    """The charges before the first tracked day are unknown: a retry, with a later clock, may pass."""
    await set_first_budget(harness)
    harness.now = NOON - timedelta(days=1)

    with pytest.raises(BudgetReserved) as refused:
        await harness.open(reserved=True)

    assert refused.value.retry_after is not None


async def test_call_dated_a_month_ahead_does_not_affect_current_windows(harness: BudgetHarness) -> None:
    """One server's clock is wrong by a month: the others still read, reserve, settle and alert in their own windows."""
    await set_first_budget(harness)
    await spend(harness, "2")
    harness.now += MONTH_AHEAD
    await spend(harness, "3")
    ahead = await harness.open(reserved=True)
    harness.now -= MONTH_AHEAD

    alerted = await harness.budget_service.settle(
        await harness.close(await harness.open(reserved=True), Decimal(500)), BUDGETS
    )

    status = {each.window: (each.spent, each.reserved) for each in await harness.budget_service.status("tenant")}
    assert status[BudgetWindow.DAY] == status[BudgetWindow.MONTH] == (Decimal(502), Decimal(0))
    assert status[BudgetWindow.TOTAL] == (Decimal(505), BOUND)
    assert {(alert.window, alert.percent) for alert in alerted} == {(window, 50) for window in BudgetWindow}
    await harness.close(ahead, Decimal(4))
    assert await harness.differences() == []


async def test_alert_is_sent_once_if_two_clocks_are_in_two_months(harness: BudgetHarness) -> None:
    """An alert that one server sent for the next month does not make another one repeat that of this month."""
    await set_first_budget(harness)
    alerted = []
    for ahead in (timedelta(), MONTH_AHEAD, timedelta(), MONTH_AHEAD):
        harness.now += ahead
        closed = await harness.close(await harness.open(reserved=True), Decimal(300))
        alerts = await harness.budget_service.settle(closed, BUDGETS[1:2])
        alerted.append([alert.percent for alert in alerts])
        harness.now -= ahead

    assert alerted == [[], [], [50], [50]]


async def test_entry_dated_a_month_ahead_before_the_budget_counts_in_total_and_its_month(
    harness: BudgetHarness,
) -> None:
    """Closed or open when the budget is set: the tracked charges equal those that verification sums."""
    harness.now += MONTH_AHEAD
    await harness.close(await harness.open(reserved=False), Decimal(5))
    still_open = await harness.open(reserved=False)
    harness.now -= MONTH_AHEAD
    await set_first_budget(harness)
    status = await harness.status()
    closed = await harness.close(still_open, Decimal(7))

    assert (status.spent, status.reserved) == (Decimal(5), BOUND)
    assert await harness.differences() == []
    harness.advance(60)
    await harness.run_maintenance()
    assert (await harness.status()).spent == Decimal(5) + (closed.cost or 0)
    assert await harness.differences() == []
    harness.now += MONTH_AHEAD
    assert {each.spent for each in await harness.budget_service.status("tenant")} == {Decimal(12)}


async def test_number_of_tracked_days_is_bounded(harness: BudgetHarness, database: Database) -> None:
    """The earliest days are pruned and not tracked again; the current one stays, also beside many future ones."""
    await set_first_budget(harness)
    lost = await harness.close(await harness.open(reserved=True), None)
    await harness.budget_service.settle_reconciled(lost)
    for _ in range(MAX_WINDOWS + 5):
        await spend(harness, "1")
        harness.now += timedelta(days=1)
    today = harness.now
    await spend(harness, "1")
    await harness.maintenance().run_once()
    await harness.resolve(lost, Decimal("0.5"))
    found = await database.collection("budgets").find_one({"_id": "tenant"})

    assert found is not None
    assert len(found["spent"]["day"]) <= MAX_WINDOWS
    assert found["spent"]["total"]["all"] == Decimal128(Decimal(MAX_WINDOWS + 6) + Decimal("0.5"))
    for _ in range(MAX_WINDOWS + 5):
        harness.now += timedelta(days=1)
        await spend(harness, "1")
    harness.now = today
    await harness.maintenance().run_once()

    found = await database.collection("budgets").find_one({"_id": "tenant"})
    assert found is not None
    assert len(found["spent"]["day"]) <= MAX_WINDOWS
    assert {each.window: each.spent for each in await harness.budget_service.status("tenant")}[BudgetWindow.DAY] == 1
