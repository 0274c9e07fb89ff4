"""Verification of budgets while a tenant always has open calls."""

from decimal import Decimal

from bson.decimal128 import Decimal128

from godoty_service.mongo.client import Database
from tests.integration.budgets.conftest import BOUND, BudgetHarness
from tests.integration.budgets.test_tracking import COST


async def set_first_budget(harness: BudgetHarness) -> None:
    """Set a first budget, with calls before and after it, one of each still open."""
    await harness.close(await harness.open(reserved=False), COST)
    await harness.open(reserved=False)
    harness.advance(1)
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()
    await harness.budget_service.settle_reconciled(await harness.close(await harness.open(reserved=True), COST))
    await harness.open(reserved=True)


async def test_wrong_charge_is_reported_while_calls_are_open(harness: BudgetHarness, database: Database) -> None:
    """A tenant that always has open calls is verified like the others."""
    await set_first_budget(harness)
    clean = await harness.differences()
    off = {"$set": {"before.total.all": Decimal128(COST + Decimal("1E-22"))}}
    await database.collection("budgets").update_one({"_id": "tenant"}, off)

    found = await harness.differences()

    assert clean == []
    assert (await harness.status()).reserved == 2 * BOUND
    assert found == [f"budget total: in all counted {2 * COST + Decimal('1E-22')}, by the entries {2 * COST}"]


async def test_closed_call_that_is_not_settled_yet_is_no_difference(harness: BudgetHarness) -> None:
    """It is about to be settled, or its server died before."""
    await set_first_budget(harness)
    await harness.close(await harness.open(reserved=True), Decimal(3))
    await harness.close(await harness.open(reserved=True), None)

    assert await harness.differences() == []


async def test_open_call_without_reservation_is_reported(harness: BudgetHarness) -> None:
    """Its cost would be missing in the budget."""
    await set_first_budget(harness)
    call = await harness.open(reserved=False)

    assert await harness.differences() == [f"budget: call {call.call_id} is open and not reserved"]


async def test_reservation_that_differs_from_the_entry_is_reported(harness: BudgetHarness, database: Database) -> None:
    """A hard budget is only enforced if each call is reserved with its whole upper bound."""
    await set_first_budget(harness)
    call = await harness.open(reserved=True)
    less = {"$set": {f"open.{call.call_id}.bound": Decimal128("0.5")}}
    await database.collection("budgets").update_one({"_id": "tenant"}, less)

    assert await harness.differences() == [f"budget: for call {call.call_id} is reserved 0.5, by its entry {BOUND}"]
