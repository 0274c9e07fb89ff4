"""Who is told that a share of a budget is reached: once for each limit, whoever settled the call that reached it."""

from datetime import timedelta
from decimal import Decimal

from godoty_service.budget import Budget, BudgetWindow
from tests.budgets.conftest import Till


def soft(limit: str, window: BudgetWindow = BudgetWindow.TOTAL) -> Budget:
    """Make a budget that refuses nothing."""
    return Budget(window=window, limit=Decimal(limit), hard=False)


async def spend(till: Till, cost: str, *budgets: Budget) -> list[int]:
    """Make a call on a server that knows of those budgets; returns what shares its turn is told."""
    closed = await till.close(await till.open(reserved=True), Decimal(cost))
    return [alert.percent for alert in await till.spending.settle(closed, budgets)]


async def test_a_raised_budget_is_told_anew(till: Till) -> None:
    """Its shares are other amounts: whoever was told of all of the old one hears of half of the new one."""
    told = [await spend(till, "0.5", soft("1")) for _ in range(3)]
    raised = [await spend(till, "0.5", soft("3")) for _ in range(4)]

    assert told == [[50], [100], []]
    assert raised == [[50], [80], [100], []]


async def test_a_server_that_still_has_the_old_limit_repeats_nothing(till: Till) -> None:
    """While a change spreads, servers settle by turns with the old limit and the new one."""
    told = [await spend(till, "0.5", soft(limit)) for limit in ("1", "1.5", "1", "1.50", "1")]

    assert told == [[50], [50], [100], [100], []]


async def test_a_share_that_reconciliation_reached_is_told_to_the_next_turn(till: Till) -> None:
    """Nobody hears of the call of a dead server; the next turn does, at whatever it costs."""
    await till.spending.settle_elsewhere(await till.close(await till.open(reserved=True), Decimal("0.9")))

    assert await spend(till, "0.001", soft("1")) == [80]
    assert await spend(till, "0.001", soft("1")) == []


async def test_a_new_day_is_told_anew(till: Till) -> None:
    """What was told of the day before is not of this day."""
    first = await spend(till, "0.5", soft("1", BudgetWindow.DAY))
    till.now += timedelta(days=1)
    second = await spend(till, "0.5", soft("1", BudgetWindow.DAY))

    assert (first, second) == ([50], [50])
