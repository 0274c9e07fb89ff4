"""Tracked charges: each call counts once, whichever server settles it and whenever the budget was set."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from bson.decimal128 import Decimal128

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.charges import OpeningBalance
from godoty_service.budgets.turn_budget import TurnBudget
from godoty_service.errors import BudgetReserved
from godoty_service.ledger.entries import ModelCall
from godoty_service.mongo.client import Database
from godoty_service.tenancy.policies import NO_POLICY, Policies, Policy
from tests.integration.budgets.conftest import BOUND, BUDGETS, BudgetHarness

COST = Decimal("0.0000525")


@dataclass
class CallCourse:
    """The course of a call.

    Attributes:
        start: The phase in which it is opened.
        reserved: Whether its server knows the budgets.
        end: The phase in which it is closed.
        settled: How often its server settles it: never if it dies, twice if it retries.
        cost: Its cost; None: it is unresolved.
    """

    start: int
    reserved: bool
    end: int
    settled: int
    cost: Decimal | None
    call: ModelCall | None = None


# The phases: 0 before the budget is set; 1 while the first opening balance is summed; 2 when the policy is written, but
# not the start of tracking; 3 when that is written, but servers do not know it yet; 4 when all know it; 5 while the
# final opening balance is summed; 6 afterwards.
LAST = 6
STARTS = [(0, False), (2, False), (2, True), (3, False), (3, True), (4, True), (6, True)]


def all_courses() -> list[CallCourse]:
    """Return every course of a call, each with a cost of its own, so that a sum shows which are included."""
    drawn = [
        (start, reserved, end, settled)
        for start, reserved in STARTS
        for end in range(start, LAST + 1)
        for settled in (0, 1, 2)
    ]
    return [
        CallCourse(*each, cost=None if index % 7 == 0 else Decimal(2**index).scaleb(-25))
        for index, each in enumerate(drawn)
    ]


async def run_phase(harness: BudgetHarness, number: int, every: Sequence[CallCourse]) -> None:
    """Open and close the calls of a phase."""
    for course in every:
        if course.start == number:
            course.call = await harness.open(reserved=course.reserved)
    for course in every:
        if course.end == number and course.call is not None:
            closed = await harness.close(course.call, course.cost)
            for _ in range(course.settled):
                await harness.budget_service.settle_reconciled(closed)


@pytest.mark.parametrize("rolled_up", [False, True])
async def test_each_call_counts_once_whenever_it_started_and_ended(harness: BudgetHarness, *, rolled_up: bool) -> None:
    """Before, while and after a budget was set and servers knew of it; settled once, twice or by maintenance.

    Also if the calls closed before each opening balance are rolled up.
    """
    every = all_courses()
    await run_phase(harness, 0, every)
    harness.advance(1)
    if rolled_up:
        await harness.rollup_job.roll_up("tenant", include_pending=True)
    harness.balance.between = lambda: run_phase(harness, 1, every)
    async with harness.budget_service.tracking("tenant"):
        await run_phase(harness, 2, every)
    harness.advance(4)
    await run_phase(harness, 3, every)
    harness.advance(10)
    await run_phase(harness, 4, every)
    harness.advance(30)
    if rolled_up:
        await harness.rollup_job.roll_up("tenant")
    harness.balance.between = lambda: run_phase(harness, 5, every)
    await harness.run_maintenance()
    harness.advance(1)
    await run_phase(harness, 6, every)
    harness.advance(60)
    await harness.run_maintenance()
    await harness.run_maintenance()

    status = await harness.status()
    assert status.reserved == 0
    assert status.spent == sum((BOUND if course.cost is None else course.cost for course in every), Decimal(0))
    assert await harness.differences() == []


async def test_earlier_calls_count_as_soon_as_a_budget_is_set(harness: BudgetHarness) -> None:
    """Charges until then are spent, and open calls are reserved."""
    closed, _ = await harness.open(reserved=False), await harness.open(reserved=False)
    await harness.close(closed, COST)
    harness.advance(1)

    await harness.begin()

    status = await harness.status()
    assert (status.spent, status.reserved) == (COST, BOUND)


async def test_two_maintenance_runs_settle_a_dead_servers_call_once(harness: BudgetHarness) -> None:
    """Both see its reservation; one finds it gone when it settles."""
    await harness.begin()
    harness.advance(20)
    for _ in range(10):
        await harness.close(await harness.open(reserved=True), COST)
    harness.advance(60)

    await harness.run_maintenance(servers=4)

    status = await harness.status()
    assert (status.spent, status.reserved) == (10 * COST, Decimal(0))
    assert await harness.differences() == []


async def test_settling_after_maintenance_adds_nothing(harness: BudgetHarness) -> None:
    """The server was paused between closing and settling; maintenance ran meanwhile."""
    await harness.begin()
    harness.advance(20)
    closed = await harness.close(await harness.open(reserved=True), COST)
    harness.advance(60)
    await harness.run_maintenance()

    assert await harness.budget_service.settle(closed, BUDGETS) == []

    assert (await harness.status()).spent == COST
    assert await harness.differences() == []


async def test_reservation_without_an_entry_is_released(harness: BudgetHarness, database: Database) -> None:
    """Its server died before inserting the entry: nothing was sent, and nothing stays reserved."""
    await harness.begin()
    harness.advance(20)
    call = await harness.open(reserved=True)
    await database.collection("ledger").delete_one({"_id": call.call_id})
    harness.advance(60)

    await harness.run_maintenance()

    status = await harness.status()
    assert (status.spent, status.reserved) == (Decimal(0), Decimal(0))


async def test_reservation_under_an_untracked_budget_starts_tracking(harness: BudgetHarness) -> None:
    """Its writer got no further than the policy: the first server that applies it sums the earlier charges."""
    await harness.close(await harness.open(reserved=False), COST)
    harness.advance(1)

    await asyncio.gather(*(harness.open(reserved=True) for _ in range(3)))

    status = await harness.status()
    assert (status.spent, status.reserved) == (COST, 3 * BOUND)


@pytest.mark.parametrize("later", [2, 20, 120], ids=["before all know", "before it is stated for good", "afterwards"])
async def test_adjustment_counts_once(harness: BudgetHarness, later: float) -> None:
    """An unresolved call counts with its bound, and with its cost as soon as that is resolved."""
    call = await harness.close(await harness.open(reserved=False), None)
    harness.advance(1)
    await harness.begin()
    assert (await harness.status()).spent == BOUND
    harness.advance(later)
    await harness.run_maintenance()
    await harness.resolve(call, COST)
    harness.advance(60)
    await harness.run_maintenance()

    assert (await harness.status()).spent == COST
    assert await harness.differences() == []


async def test_tenant_is_tracked_from_its_first_budget_on(database: Database) -> None:
    """On every server, also while it has no budget; and not before."""
    policies, other = (Policies(database.collection("policies")) for _ in range(2))
    never = await other.budgets("tenant")
    await policies.set("tenant", Policy(budgets=BUDGETS))
    await policies.set("tenant", NO_POLICY)
    await other.read("tenant")

    assert never is None
    assert (await policies.budgets("tenant"), await other.budgets("tenant")) == ((), ())
    assert await policies.budgets("else") is None


async def test_server_that_removes_the_last_budget_continues_tracking(database: Database) -> None:
    """Also if another server set it, and this one has only read that there was none."""
    policies, other = (Policies(database.collection("policies")) for _ in range(2))
    assert await other.budgets("tenant") is None
    await policies.set("tenant", Policy(budgets=BUDGETS))
    await other.set("tenant", NO_POLICY)

    assert await other.budgets("tenant") == ()


async def test_wrong_charges_are_reported(harness: BudgetHarness, database: Database) -> None:
    """By window: a wrong amount, and a window without charges although calls were made."""
    await harness.begin()
    harness.advance(20)
    closed = await harness.close(await harness.open(reserved=True), COST)
    await harness.budget_service.settle_reconciled(closed)
    harness.advance(60)
    await harness.run_maintenance()
    assert await harness.differences() == []
    off = Decimal128(COST + Decimal("1E-22"))
    await database.collection("budgets").update_one({"_id": "tenant"}, {"$set": {"spent.month.2026-08": off}})
    harness.now += timedelta(days=1)
    await harness.close(await harness.open(reserved=False), COST)

    found = await harness.differences()

    assert [each.split(":")[0] for each in found] == [f"budget {each.value}" for each in BudgetWindow]
    assert f"in 2026-08-23 counted 0, by the entries {COST}" in found[0]


async def test_reservation_that_an_opening_balance_includes_counts_once(harness: BudgetHarness) -> None:
    """An entry may be inserted before tracking starts and reserve its bound afterwards: its call fits the budget."""
    tight = [Budget(window=BudgetWindow.TOTAL, limit=BOUND * Decimal("1.5"), hard=True)]
    call = await harness.open(reserved=False)
    await harness.begin()

    await harness.budget_service.reserve(call, tight)

    with pytest.raises(BudgetReserved):
        await harness.open(reserved=True, budgets=tight)


async def test_call_that_waited_is_reserved_if_tracking_began_meanwhile(harness: BudgetHarness) -> None:
    """Its request was made when the tenant had no budget; it waited for another call of its turn to end."""
    turn_budget, harness.in_force = TurnBudget(harness.budget_service, budgets=(), max_cost=None), None
    await turn_budget.refresh("tenant")
    harness.in_force = BUDGETS
    await harness.begin()
    harness.advance(60)

    await turn_budget.refresh_tracking("tenant")
    await turn_budget.reserve(await harness.open(reserved=False, budgeted=turn_budget.tracked))

    assert (await harness.status()).reserved == BOUND


@pytest.mark.parametrize("change", ["call", "resolution"])
async def test_what_happens_while_the_start_is_written_late_counts(harness: BudgetHarness, change: str) -> None:
    """The database is so slow that the start of tracking lies in the past when it is written."""
    first = await harness.close(await harness.open(reserved=False), None)
    summed, slow = harness.balance.from_start, True

    async def from_start(tenant_id: str, start: datetime) -> OpeningBalance:
        nonlocal slow
        balance = await summed(tenant_id, start)
        if slow:
            slow = False
            harness.advance(11)
            if change == "call":
                call = await harness.close(await harness.open(reserved=True), COST)
                await harness.budget_service.settle_reconciled(call)
            else:
                await harness.resolve(first, COST)
            harness.advance(1)
        return balance

    harness.balance.from_start = from_start  # type: ignore[method-assign] # it is delayed
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()

    assert await harness.differences() == []
    assert (await harness.status()).spent == COST + (BOUND if change == "call" else 0)


async def test_calls_of_a_server_that_has_just_read_that_there_is_no_budget_count(
    harness: BudgetHarness, database: Database
) -> None:
    """Its maintenance sees that tracking is about to start, and caches for 3 seconds the policy before its change."""
    seconds = 0.0
    collection = database.collection("policies")
    here, other = Policies(collection), Policies(collection, tick=lambda: seconds)
    harness.budget_service.budgets_of = other.budgets
    turn_budget = TurnBudget(harness.budget_service, budgets=(), max_cost=None)
    async with harness.budget_service.tracking("tenant"):
        await harness.run_maintenance()
        await here.set("tenant", Policy(budgets=BUDGETS))
    seconds = 2.9
    harness.advance(seconds)
    await turn_budget.refresh("tenant")
    tracked_early = turn_budget.tracked
    early = await harness.open(reserved=tracked_early)
    seconds = 3.1
    harness.advance(7.1)
    await turn_budget.refresh_tracking("tenant")
    late = await harness.open(reserved=turn_budget.tracked)
    for call in (early, late):
        await turn_budget.settle(await harness.close(call, COST))
    harness.advance(60)
    await harness.run_maintenance()
    await harness.run_maintenance()

    assert (tracked_early, turn_budget.tracked) == (False, True)
    assert (await harness.status()).spent == 2 * COST
    assert await harness.differences() == []
