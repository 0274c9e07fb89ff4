"""What is counted in a budget: each call once, whoever settles it, and whenever the budget was set."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest
from bson.decimal128 import Decimal128

from godoty_service.budget import BudgetWindow
from godoty_service.metering.call import ModelCall
from godoty_service.mongo import Database
from godoty_service.tenancy.policies import Policies
from godoty_service.tenancy.policy import NO_POLICY, Policy
from tests.budgets.conftest import BOUND, BUDGETS, Till

COST = Decimal("0.0000525")


@dataclass
class Fate:
    """What becomes of a call.

    Attributes:
        start: In which act it begins.
        reserved: Its server knows of the budgets.
        end: In which act it is closed.
        settled: How often its server settles it: a dead one never, one that tries again twice.
        cost: What it costs; None: it is unresolved.
    """

    start: int
    reserved: bool
    end: int
    settled: int
    cost: Decimal | None
    call: ModelCall | None = None


# The acts: 0 before the budget is set; 1 while the ledger is summed for the first statement; 2 when the policy is
# written, but not since when all calls are counted; 3 when that is, but servers do not know of it yet; 4 when all do;
# 5 while it is summed for good; 6 afterwards.
LAST = 6
BEGUN = [(0, False), (2, False), (2, True), (3, False), (3, True), (4, True), (6, True)]


def fates() -> list[Fate]:
    """Draw up every fate: each with a cost of its own, so that a sum tells which are in it."""
    drawn = [
        (start, reserved, end, settled)
        for start, reserved in BEGUN
        for end in range(start, LAST + 1)
        for settled in (0, 1, 2)
    ]
    return [
        Fate(*each, cost=None if place % 7 == 0 else Decimal(2**place).scaleb(-25)) for place, each in enumerate(drawn)
    ]


async def act(till: Till, number: int, every: Sequence[Fate]) -> None:
    """Open and close what is to be in an act."""
    for fate in every:
        if fate.start == number:
            fate.call = await till.open(reserved=fate.reserved)
    for fate in every:
        if fate.end == number and fate.call is not None:
            closed = await till.close(fate.call, fate.cost)
            for _ in range(fate.settled):
                await till.spending.settle_elsewhere(closed)


@pytest.mark.parametrize("rolled_up", [False, True])
async def test_each_call_counts_once_whenever_it_began_and_ended(till: Till, *, rolled_up: bool) -> None:
    """Before, while and after a budget was set and its servers heard of it; settled once, twice or by a sweep.

    Also where roll-ups have what was closed before each statement.
    """
    every = fates()
    await act(till, 0, every)
    till.pass_(1)
    if rolled_up:
        await till.booking.take_up("tenant", note=True)
    till.balance.between = lambda: act(till, 1, every)
    async with till.spending.counting("tenant"):
        await act(till, 2, every)
    till.pass_(4)
    await act(till, 3, every)
    till.pass_(10)
    await act(till, 4, every)
    till.pass_(30)
    if rolled_up:
        await till.booking.take_up("tenant")
    till.balance.between = lambda: act(till, 5, every)
    await till.sweep()
    till.pass_(1)
    await act(till, 6, every)
    till.pass_(60)
    await till.sweep()
    await till.sweep()

    status = await till.status()
    assert status.reserved == 0
    assert status.spent == sum((BOUND if fate.cost is None else fate.cost for fate in every), Decimal(0))
    assert await till.differences() == []


async def test_what_is_known_of_the_past_counts_at_once(till: Till) -> None:
    """When a budget is set: what was spent until then is spent, and what is open may still be."""
    closed, _ = await till.open(reserved=False), await till.open(reserved=False)
    await till.close(closed, COST)
    till.pass_(1)

    await till.begin()

    status = await till.status()
    assert (status.spent, status.reserved) == (COST, BOUND)


async def test_two_sweepers_count_a_dead_servers_call_once(till: Till) -> None:
    """Both see its reservation; one finds it gone when it comes to settle it."""
    await till.begin()
    till.pass_(20)
    for _ in range(10):
        await till.close(await till.open(reserved=True), COST)
    till.pass_(60)

    await till.sweep(servers=4)

    status = await till.status()
    assert (status.spent, status.reserved) == (10 * COST, Decimal(0))
    assert await till.differences() == []


async def test_a_server_that_settles_after_a_sweep_counts_nothing_more(till: Till) -> None:
    """It stood still between the entry's write and the budget's; meanwhile somebody swept."""
    await till.begin()
    till.pass_(20)
    closed = await till.close(await till.open(reserved=True), COST)
    till.pass_(60)
    await till.sweep()

    assert await till.spending.settle(closed, BUDGETS) == []

    assert (await till.status()).spent == COST
    assert await till.differences() == []


async def test_a_reservation_without_an_entry_is_released(till: Till, database: Database) -> None:
    """Its server died before the entry was there: nothing was sent, and nothing is held for it."""
    await till.begin()
    till.pass_(20)
    call = await till.open(reserved=True)
    await database.collection("ledger").delete_one({"_id": call.call_id})
    till.pass_(60)

    await till.sweep()

    status = await till.status()
    assert (status.spent, status.reserved) == (Decimal(0), Decimal(0))


async def test_a_budget_that_nobody_has_begun_to_count_is_begun(till: Till) -> None:
    """Whoever set it came no further than to the policy: the first server that heeds it counts what was before."""
    await till.close(await till.open(reserved=False), COST)
    till.pass_(1)

    await asyncio.gather(*(till.open(reserved=True) for _ in range(3)))

    status = await till.status()
    assert (status.spent, status.reserved) == (COST, 3 * BOUND)


@pytest.mark.parametrize("later", [2, 20, 120], ids=["before all know", "before it is stated for good", "afterwards"])
async def test_an_adjustment_counts_once(till: Till, later: float) -> None:
    """An unresolved call counts with its bound, and with its cost as soon as somebody tells it."""
    call = await till.close(await till.open(reserved=False), None)
    till.pass_(1)
    await till.begin()
    assert (await till.status()).spent == BOUND
    till.pass_(later)
    await till.sweep()
    await till.resolve(call, COST)
    till.pass_(60)
    await till.sweep()

    assert (await till.status()).spent == COST
    assert await till.differences() == []


async def test_a_tenants_spending_is_counted_for_ever(database: Database) -> None:
    """On every server, from its first budget on, also while it has none; and not at all before."""
    policies, other = (Policies(database.collection("policies")) for _ in range(2))
    never = await other.budgets("tenant")
    await policies.set("tenant", Policy(budgets=BUDGETS))
    await policies.set("tenant", NO_POLICY)
    await other.read("tenant")

    assert never is None
    assert (await policies.budgets("tenant"), await other.budgets("tenant")) == ((), ())
    assert await policies.budgets("else") is None


async def test_a_server_that_takes_the_last_budget_away_goes_on_counting(database: Database) -> None:
    """Also where another one has set it, and this one has only heard that there was none."""
    policies, other = (Policies(database.collection("policies")) for _ in range(2))
    assert await other.budgets("tenant") is None
    await policies.set("tenant", Policy(budgets=BUDGETS))
    await other.set("tenant", NO_POLICY)

    assert await other.budgets("tenant") == ()


async def test_what_a_budget_counts_wrongly_is_named(till: Till, database: Database) -> None:
    """By window: an amount that is off, and a window in which nothing was counted although calls were made."""
    await till.begin()
    till.pass_(20)
    closed = await till.close(await till.open(reserved=True), COST)
    await till.spending.settle_elsewhere(closed)
    till.pass_(60)
    await till.sweep()
    assert await till.differences() == []
    off = Decimal128(COST + Decimal("1E-22"))
    await database.collection("budgets").update_one({"_id": "tenant"}, {"$set": {"spent.month.2026-08": off}})
    till.now += timedelta(days=1)
    await till.close(await till.open(reserved=False), COST)

    found = await till.differences()

    assert [each.split(":")[0] for each in found] == [f"budget {each.value}" for each in BudgetWindow]
    assert f"in 2026-08-23 counted 0, by the entries {COST}" in found[0]
