"""The proof of budgets, while a tenant always has calls open."""

from decimal import Decimal

from bson.decimal128 import Decimal128

from godoty_service.mongo import Database
from tests.budgets.conftest import BOUND, Till
from tests.budgets.test_counting import COST


async def counted(till: Till) -> None:
    """Set a first budget, with calls before and after, one of each still open."""
    await till.close(await till.open(reserved=False), COST)
    await till.open(reserved=False)
    till.pass_(1)
    await till.begin()
    till.pass_(60)
    await till.sweep()
    await till.spending.settle_elsewhere(await till.close(await till.open(reserved=True), COST))
    await till.open(reserved=True)


async def test_what_is_counted_wrongly_is_named_while_calls_are_open(till: Till, database: Database) -> None:
    """A tenant that always has one is verified like the others."""
    await counted(till)
    clean = await till.differences()
    off = {"$set": {"before.total.all": Decimal128(COST + Decimal("1E-22"))}}
    await database.collection("budgets").update_one({"_id": "tenant"}, off)

    found = await till.differences()

    assert clean == []
    assert (await till.status()).reserved == 2 * BOUND
    assert found == [f"budget total: in all counted {2 * COST + Decimal('1E-22')}, by the entries {2 * COST}"]


async def test_a_call_that_is_closed_and_not_settled_yet_is_no_difference(till: Till) -> None:
    """Its cost is on its way from the ledger to the budget, or was left by a server that died in between."""
    await counted(till)
    await till.close(await till.open(reserved=True), Decimal(3))
    await till.close(await till.open(reserved=True), None)

    assert await till.differences() == []


async def test_an_open_call_that_is_not_reserved_is_named(till: Till) -> None:
    """Its cost would be missing from the budget."""
    await counted(till)
    call = await till.open(reserved=False)

    assert await till.differences() == [f"budget: call {call.call_id} is open and not reserved"]


async def test_a_reservation_of_another_amount_than_the_entry_has_is_named(till: Till, database: Database) -> None:
    """A hard budget holds only where each call is reserved with its whole bound."""
    await counted(till)
    call = await till.open(reserved=True)
    less = {"$set": {f"open.{call.call_id}.bound": Decimal128("0.5")}}
    await database.collection("budgets").update_one({"_id": "tenant"}, less)

    assert await till.differences() == [f"budget: for call {call.call_id} is reserved 0.5, by its entry {BOUND}"]
