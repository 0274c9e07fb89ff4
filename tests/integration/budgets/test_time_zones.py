"""Budgets of a tenant whose days and months are not those of UTC."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.calendar import UTC_CALENDAR, BudgetCalendar
from godoty_service.errors import BudgetSpent
from godoty_service.ids import new_id
from godoty_service.ledger.entries import ModelCall
from tests.integration.budgets.conftest import BUDGETS, BudgetHarness
from tests.integration.budgets.test_windows import set_first_budget, spend

DAY, MONTH = BudgetWindow.DAY, BudgetWindow.MONTH
QUARTER = timedelta(minutes=15)
ONE_DAY = BUDGETS[:1]


async def charged(harness: BudgetHarness) -> dict[BudgetWindow, Decimal]:
    """Return the charges of the current windows."""
    return {each.window: each.spent for each in await harness.budget_service.status("tenant")}


async def spend_day(harness: BudgetHarness, cost: str) -> ModelCall:
    """Open a call under the budget of a day alone, and settle it at a cost."""
    closed = await harness.close(await harness.open(reserved=True, budgets=ONE_DAY), Decimal(cost))
    await harness.budget_service.settle_reconciled(closed)
    return closed


async def window_start(harness: BudgetHarness, window: BudgetWindow) -> datetime | None:
    """Return the start of a current window."""
    (found,) = [each for each in await harness.budget_service.status("tenant") if each.window is window]
    return found.window_start


@pytest.mark.parametrize(
    ("zone", "start", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 3, 28, 23, tzinfo=UTC), 23),
        ("Europe/Berlin", datetime(2026, 10, 24, 22, tzinfo=UTC), 25),
        ("Asia/Kathmandu", datetime(2026, 8, 21, 18, 15, tzinfo=UTC), 24),
    ],
)
async def test_day_of_the_zone_is_the_window(harness: BudgetHarness, zone: str, start: datetime, hours: int) -> None:
    """From local midnight to local midnight, also if the clocks change: a spent day refuses, the next one does not."""
    harness.calendar = BudgetCalendar.of(zone)
    harness.now = start - QUARTER
    await set_first_budget(harness)
    await spend_day(harness, "1")
    harness.now = start
    last = await spend_day(harness, "999.5")
    assert await window_start(harness, DAY) == start
    harness.now = start + timedelta(hours=hours) - timedelta(milliseconds=1)
    assert await window_start(harness, DAY) == start
    with pytest.raises(BudgetSpent):
        await harness.budget_service.reserve(replace(last, call_id=new_id("call"), start_time=harness.now), ONE_DAY)

    harness.now = start + timedelta(hours=hours)
    assert (await charged(harness))[DAY] == 0
    await spend_day(harness, "2")
    assert (await charged(harness))[DAY] == 2
    assert await harness.differences() == []


@pytest.mark.parametrize("rolled_up", [True, False])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"])
async def test_first_budget_counts_the_days_of_the_zone(harness: BudgetHarness, zone: str, *, rolled_up: bool) -> None:
    """What was spent before it, from roll-ups and from entries, is summed by the same days as what follows."""
    harness.calendar = BudgetCalendar.of(zone)
    harness.now = datetime(2026, 8, 22, 12, tzinfo=UTC)
    today = harness.calendar.day(harness.now)
    expected = Decimal(0)
    harness.now -= timedelta(hours=30)
    for number in range(121):  # one call in each quarter of an hour
        closed = await harness.close(await harness.open(reserved=False), Decimal(number) / 1000)
        expected += (closed.cost or Decimal(0)) * (harness.calendar.day(harness.now) == today)
        harness.now += QUARTER
    harness.now -= QUARTER
    if rolled_up:
        await harness.rollup_job.roll_up("tenant")
    await set_first_budget(harness)

    assert (await charged(harness))[DAY] == expected
    assert await harness.differences() == []


async def test_change_of_the_zone_holds_from_the_next_month(harness: BudgetHarness) -> None:
    """Charges of the current day and month stay in their windows; calls that are open over the change, too."""
    harness.now = datetime(2026, 8, 22, 12, tzinfo=UTC)
    await set_first_budget(harness)
    await spend(harness, "1")
    harness.calendar = UTC_CALENDAR.changed("America/New_York", harness.now)
    harness.now = datetime(2026, 8, 31, 23, 59, tzinfo=UTC)
    await spend(harness, "2")
    still_open = await harness.open(reserved=True)
    assert (await charged(harness))[MONTH] == 3
    assert (await charged(harness))[DAY] == 2

    harness.now = datetime(2026, 9, 1, tzinfo=UTC)
    assert await window_start(harness, MONTH) == await window_start(harness, DAY) == harness.now
    await harness.budget_service.settle_reconciled(await harness.close(still_open, Decimal(5)))
    await spend(harness, "7")
    harness.now = datetime(2026, 9, 2, 3, 59, tzinfo=UTC)  # 23:59 of the first in New York
    await spend(harness, "11")
    assert await charged(harness) == {DAY: Decimal(18), MONTH: Decimal(18), BudgetWindow.TOTAL: Decimal(26)}
    harness.now += timedelta(minutes=1)
    assert (await charged(harness))[DAY] == 0
    assert await window_start(harness, DAY) == harness.now
    assert await harness.differences() == []
    await harness.budget_service.rebuild("tenant")
    harness.advance(60)
    await harness.run_maintenance()
    assert await harness.differences() == []


async def test_adjustment_counts_in_the_window_of_its_call(harness: BudgetHarness) -> None:
    """A call before the change of the zone is adjusted after it: its month is that of the old zone."""
    harness.now = datetime(2026, 8, 31, 22, 30, tzinfo=UTC)
    harness.calendar = UTC_CALENDAR.changed("Europe/Berlin", harness.now)
    await set_first_budget(harness)
    lost = await harness.close(await harness.open(reserved=True), None)
    await harness.budget_service.settle_reconciled(lost)
    harness.now = datetime(2026, 9, 1, 1, tzinfo=UTC)
    await spend(harness, "2")
    await harness.resolve(lost, Decimal("0.25"))

    assert (await charged(harness))[MONTH] == 2
    harness.now = datetime(2026, 8, 31, 23, tzinfo=UTC)
    assert (await charged(harness))[MONTH] == Decimal("0.25")
    harness.now = datetime(2026, 9, 1, 1, tzinfo=UTC)
    assert await harness.differences() == []
