"""Days and months of a budget at their ends, and on servers whose clocks differ."""

from datetime import timedelta
from decimal import Decimal

import pytest
from bson.decimal128 import Decimal128

from godoty_service.budget import BudgetWindow
from godoty_service.errors import BudgetReserved, BudgetSpent
from godoty_service.metering.budget_document import KEPT
from godoty_service.mongo import Database
from tests.budgets.conftest import BOUND, BUDGETS, NOON, Till

MONTH_AHEAD = timedelta(days=31)
DAY = BUDGETS[:1]


async def spend(till: Till, cost: str) -> None:
    """Make a call and settle it."""
    closed = await till.close(await till.open(reserved=True), Decimal(cost))
    await till.spending.settle_elsewhere(closed)


async def stated(till: Till) -> None:
    """Set the first budget, and let what was before it be stated for good."""
    await till.begin()
    till.pass_(60)
    await till.sweep()


async def test_a_server_whose_clock_is_behind_cannot_spend_a_day_again(till: Till) -> None:
    """Another one has begun to count the next day; what is spent of this one is still known."""
    till.now = NOON + timedelta(hours=11, minutes=50)
    await stated(till)
    till.now = evening = NOON + timedelta(hours=11, minutes=59, seconds=59)
    await spend(till, "999.5")
    till.pass_(2)
    await till.open(reserved=True, budgets=DAY)
    till.now = evening

    with pytest.raises(BudgetSpent):
        await till.open(reserved=True, budgets=DAY)

    till.pass_(2)
    await till.open(reserved=True, budgets=DAY)


async def test_a_day_that_is_not_counted_any_more_refuses_for_now(till: Till) -> None:
    """What is left of a day before the first one that is counted is unknown: a retry, with a later clock, may pass."""
    await stated(till)
    till.now = NOON - timedelta(days=1)

    with pytest.raises(BudgetReserved) as refused:
        await till.open(reserved=True)

    assert refused.value.retry_after is not None


async def test_a_call_a_month_ahead_leaves_the_current_windows_as_they_are(till: Till) -> None:
    """A server's clock is wrong by a month: the others still read, reserve, settle and tell of their own windows."""
    await stated(till)
    await spend(till, "2")
    till.now += MONTH_AHEAD
    await spend(till, "3")
    ahead = await till.open(reserved=True)
    till.now -= MONTH_AHEAD

    alerted = await till.spending.settle(await till.close(await till.open(reserved=True), Decimal(500)), BUDGETS)

    status = {each.window: (each.spent, each.reserved) for each in await till.spending.status("tenant")}
    assert status[BudgetWindow.DAY] == status[BudgetWindow.MONTH] == (Decimal(502), Decimal(0))
    assert status[BudgetWindow.TOTAL] == (Decimal(505), BOUND)
    assert {(alert.window, alert.percent) for alert in alerted} == {(window, 50) for window in BudgetWindow}
    await till.close(ahead, Decimal(4))
    assert await till.differences() == []


async def test_a_share_is_told_once_where_two_clocks_count_in_two_months(till: Till) -> None:
    """What one server was told in the next month does not make another one hear again of this month's share."""
    await stated(till)
    told = []
    for ahead in (timedelta(), MONTH_AHEAD, timedelta(), MONTH_AHEAD):
        till.now += ahead
        closed = await till.close(await till.open(reserved=True), Decimal(300))
        alerts = await till.spending.settle(closed, BUDGETS[1:2])
        told.append([alert.percent for alert in alerts])
        till.now -= ahead

    assert told == [[], [], [50], [50]]


async def test_an_entry_a_month_ahead_from_before_the_budget_counts_in_all_and_in_its_month(till: Till) -> None:
    """Closed or open when the budget is set: what the budget counts is what its proof sums."""
    till.now += MONTH_AHEAD
    await till.close(await till.open(reserved=False), Decimal(5))
    still_open = await till.open(reserved=False)
    till.now -= MONTH_AHEAD
    await stated(till)
    status = await till.status()
    closed = await till.close(still_open, Decimal(7))

    assert (status.spent, status.reserved) == (Decimal(5), BOUND)
    assert await till.differences() == []
    till.pass_(60)
    await till.sweep()
    assert (await till.status()).spent == Decimal(5) + (closed.cost or 0)
    assert await till.differences() == []
    till.now += MONTH_AHEAD
    assert {each.spent for each in await till.spending.status("tenant")} == {Decimal(12)}


async def test_the_number_of_days_that_are_counted_is_bounded(till: Till, database: Database) -> None:
    """Long past ones are forgotten and not counted anew; the current one stays, also where many are in the future."""
    await stated(till)
    lost = await till.close(await till.open(reserved=True), None)
    await till.spending.settle_elsewhere(lost)
    for _ in range(KEPT + 5):
        await spend(till, "1")
        till.now += timedelta(days=1)
    today = till.now
    await spend(till, "1")
    await till.sweeper().sweep()
    await till.resolve(lost, Decimal("0.5"))
    found = await database.collection("budgets").find_one({"_id": "tenant"})

    assert found is not None
    assert len(found["spent"]["day"]) <= KEPT
    assert found["spent"]["total"]["all"] == Decimal128(Decimal(KEPT + 6) + Decimal("0.5"))
    for _ in range(KEPT + 5):
        till.now += timedelta(days=1)
        await spend(till, "1")
    till.now = today
    await till.sweeper().sweep()

    found = await database.collection("budgets").find_one({"_id": "tenant"})
    assert found is not None
    assert len(found["spent"]["day"]) <= KEPT
    assert {each.window: each.spent for each in await till.spending.status("tenant")}[BudgetWindow.DAY] == 1
