"""Adjustments in budgets: each counts exactly once, whatever fails between the ledger's insert and the budget."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.budget import BudgetWindow
from godoty_service.errors import StorageUnavailable
from godoty_service.metering.adjustment_order import AdjustmentOrder
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.budgets import Budgets
from godoty_service.metering.call import ModelCall
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.spending import Spending
from godoty_service.mongo import Collection, Database
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.store import Sessions
from tests.budgets.conftest import BOUND, Till

COST = Decimal("0.0625")


class Failing(Collection):
    """A collection whose n-th update fails, before it is done or after.

    Attributes:
        fail_at: Counts down to the update that fails; None: none does.
        done: The failing update reaches the database all the same.
    """

    fail_at: int | None = None
    done = False

    async def update_one(
        self,
        query: Mapping[str, Any],
        update: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        upsert: bool = False,
    ) -> bool:
        """Update, or fail."""
        if self.fail_at is not None:
            self.fail_at -= 1
            if self.fail_at < 0:
                self.fail_at = None
                if self.done:
                    await super().update_one(query, update, upsert=upsert)
                raise StorageUnavailable("a test cut the line")
        return await super().update_one(query, update, upsert=upsert)


class Desk:
    """One server's adjustments on the till's ledger, whose budget updates can be made to fail."""

    def __init__(self, till: Till, database: Database) -> None:
        self.collection = Failing(database.collection("budgets")._collection)
        budgets = Budgets(self.collection, clock=till._now)
        spending = Spending(
            budgets=budgets,
            balance=till.balance,
            adjustments=till.ledger.adjustments,
            budgets_of=till.budgets_of,
            now=till.database_now,
        )
        replicas = Replicas(database.collection("replicas"), replica_id="desk", lease=till.now - till.now)
        sessions = Sessions(database.collection("sessions"), replicas=replicas)
        folds = SessionFolds(sessions, till.ledger)
        self.adjustments = Adjustments(till.ledger, folds, spending=spending, clock=till._now)


@pytest.fixture
def desk(till: Till, database: Database) -> Desk:
    """A server that adjusts."""
    return Desk(till, database)


@pytest.fixture
def other(till: Till, database: Database) -> Desk:
    """Another one."""
    return Desk(till, database)


def order(call: ModelCall, amount: str, request_id: str = "r1", **changes: Any) -> AdjustmentOrder:
    """Ask for something to be added to a call's cost."""
    return replace(
        AdjustmentOrder(
            tenant_id="tenant",
            call_id=call.call_id,
            amount=Decimal(amount),
            is_new_cost=False,
            why="a test",
            by="ann",
            request_id=request_id,
        ),
        **changes,
    )


async def _settled(till: Till, cost: Decimal | None = COST) -> ModelCall:
    """Settle a call in a budget that is counted for good."""
    await till.begin()
    till.pass_(60)
    await till.sweep()
    call = await till.close(await till.open(reserved=True), cost)
    await till.spending.settle_elsewhere(call)
    return call


async def _marked(database: Database) -> list[str]:
    found = await database.collection("ledger").find({"unapplied": True}, fields={"_id": 1})
    return [each["_id"] for each in found]


async def test_adjustments_move_every_window(till: Till, desk: Desk, database: Database) -> None:
    """Up, down and to a new cost: the day, the month and the whole show the call's cost after each."""
    call = await _settled(till)
    for number, (amount, is_new_cost, total) in enumerate(
        [("0.5", False, "0.5625"), ("-0.0625", False, "0.5"), ("0.25", True, "0.25"), ("0", True, "0")]
    ):
        await desk.adjustments.adjust(order(call, amount, f"r{number}", is_new_cost=is_new_cost))

        assert {each.window: each.spent for each in await till.spending.status("tenant")} == dict.fromkeys(
            BudgetWindow, Decimal(total)
        )
        assert await till.differences() == []
    assert await _marked(database) == []


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done all the same"])
@pytest.mark.parametrize("fail_at", [0, 1])
async def test_sweep_counts_what_a_failed_update_left(
    till: Till, desk: Desk, other: Desk, fail_at: int, *, done: bool
) -> None:
    """The budget's update fails after the ledger's insert: two sweeps at once and a replay count it exactly once."""
    call = await _settled(till)
    desk.collection.fail_at, desk.collection.done = fail_at, done

    with pytest.raises(StorageUnavailable):
        await desk.adjustments.adjust(order(call, "0.5"))
    assert await till.differences() == []  # what is on its way is no difference

    await asyncio.gather(desk.adjustments.apply_left(), other.adjustments.apply_left())
    again = await desk.adjustments.adjust(order(call, "0.5"))

    assert again.cost == Decimal("0.5")
    assert (await till.status()).spent == COST + Decimal("0.5")
    assert await till.differences() == []
    assert await desk.adjustments.apply_left() == 0


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done all the same"])
@pytest.mark.parametrize("fail_at", [0, 1])
async def test_replay_counts_what_a_failed_update_left(till: Till, desk: Desk, fail_at: int, *, done: bool) -> None:
    """The caller repeats the request before any sweep: the same adjustment, and the budget has it once."""
    call = await _settled(till)
    desk.collection.fail_at, desk.collection.done = fail_at, done
    with pytest.raises(StorageUnavailable):
        await desk.adjustments.adjust(order(call, "0.5"))

    first = await desk.adjustments.adjust(order(call, "0.5"))
    second = await desk.adjustments.adjust(order(call, "0.5"))

    assert first == second
    assert (await till.status()).spent == COST + Decimal("0.5")
    assert await till.differences() == []


async def test_sweep_frees_the_bound_of_a_resolved_call(till: Till, desk: Desk, other: Desk) -> None:
    """The budget's update fails after a resolution: the bound stays counted until a sweep counts the cost."""
    call = await _settled(till, None)
    desk.collection.fail_at = 0
    with pytest.raises(StorageUnavailable):
        await desk.adjustments.resolve(call, cost=COST, why="the invoice", by="ann")
    assert (await till.status()).spent == BOUND

    await asyncio.gather(*(each.adjustments.apply_left() for each in (desk, other)))

    assert (await till.status()).spent == COST
    assert await till.differences() == []


async def test_many_adjustments_at_once_count_once_each(till: Till, desk: Desk, other: Desk) -> None:
    """Eight on two servers, each repeated, while both sweep: the budget has their sum."""
    call = await _settled(till)
    orders = [order(call, f"0.{number}", f"r{number}", above_bound=True) for number in range(1, 9)]

    await asyncio.gather(
        *(each.adjustments.adjust(one) for one in orders for each in (desk, other)),
        *(each.adjustments.apply_left() for each in (desk, other) for _ in range(3)),
    )

    assert await desk.adjustments.total("tenant", call.call_id) == COST + Decimal("3.6")
    assert (await till.status()).spent == COST + Decimal("3.6")
    assert await till.differences() == []


@pytest.mark.parametrize("later", [2, 20, 120], ids=["before all know", "before it is stated for good", "afterwards"])
async def test_adjustment_counts_once_whenever_counting_began(till: Till, desk: Desk, later: float) -> None:
    """Made before the first statement is final or after it: the statement has it, or the correction, never both."""
    call = await till.close(await till.open(reserved=False), COST)
    till.pass_(1)
    await till.begin()
    till.pass_(later)
    await till.sweep()
    await desk.adjustments.adjust(order(call, "0.5"))
    till.pass_(60)
    await till.sweep()
    await desk.adjustments.apply_left()

    assert (await till.status()).spent == COST + Decimal("0.5")
    assert await till.differences() == []


async def test_tenant_without_a_budget_keeps_no_mark(till: Till, desk: Desk, database: Database) -> None:
    """Nothing is counted, so nothing is left to do; the first budget then begins with the adjusted cost."""
    call = await till.close(await till.open(reserved=False), COST)
    await desk.adjustments.adjust(order(call, "0.5"))
    assert await _marked(database) == []

    till.pass_(1)
    await till.begin()

    assert (await till.status()).spent == COST + Decimal("0.5")


async def test_adjustment_before_the_call_is_settled_in_the_budget(till: Till, desk: Desk) -> None:
    """The server that closed the call died before it told the budget: adjusted first, swept later, both count."""
    await till.begin()
    till.pass_(60)
    await till.sweep()
    call = await till.close(await till.open(reserved=True), COST)
    await desk.adjustments.adjust(order(call, "-0.0125"))
    till.pass_(60)
    await till.sweep()

    assert (await till.status()).spent == Decimal("0.05")
    assert await till.differences() == []
