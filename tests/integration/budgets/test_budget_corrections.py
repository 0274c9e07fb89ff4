"""Adjustments in budgets: each counts exactly once, for any failure between the ledger's insert and the budget."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.service import BudgetService
from godoty_service.budgets.store import BudgetStore
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.adjustment_order import AdjustmentOrder
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.metering.adjustments import Adjustments
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection
from godoty_service.sessions.store import SessionStore
from tests.integration.budgets.conftest import BOUND, BudgetHarness

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


class AdjustmentServer:
    """One server's adjustments on the harness's ledger, whose budget updates can be made to fail."""

    def __init__(self, harness: BudgetHarness, database: Database) -> None:
        self.collection = Failing(database.collection("budgets")._collection)
        budgets = BudgetStore(self.collection, clock=harness._now)
        spending = BudgetService(
            budgets=budgets,
            balance=harness.balance,
            adjustments=harness.ledger.adjustments,
            budgets_of=harness.budgets_of,
            now=harness.database_now,
        )
        replicas = ReplicaHeartbeats(
            database.collection("replicas"), replica_id="server", lease=harness.now - harness.now
        )
        sessions = SessionStore(database.collection("sessions"), replicas=replicas)
        updater = SessionTotalsUpdater(sessions, harness.ledger)
        self.adjustments = Adjustments(harness.ledger, updater, budget_service=spending, clock=harness._now)


@pytest.fixture
def server(harness: BudgetHarness, database: Database) -> AdjustmentServer:
    """A server that applies adjustments."""
    return AdjustmentServer(harness, database)


@pytest.fixture
def other(harness: BudgetHarness, database: Database) -> AdjustmentServer:
    """Another one."""
    return AdjustmentServer(harness, database)


def order(call: ModelCall, amount: str, request_id: str = "r1", **changes: Any) -> AdjustmentOrder:
    """Return an order to add an amount to a call's cost."""
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


async def _settled(harness: BudgetHarness, cost: Decimal | None = COST) -> ModelCall:
    """Settle a call in a budget whose opening balance is final."""
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()
    call = await harness.close(await harness.open(reserved=True), cost)
    await harness.budget_service.settle_reconciled(call)
    return call


async def _marked(database: Database) -> list[str]:
    found = await database.collection("ledger").find({"unapplied": True}, fields={"_id": 1})
    return [each["_id"] for each in found]


async def test_adjustments_change_every_window(
    harness: BudgetHarness, server: AdjustmentServer, database: Database
) -> None:
    """Up, down and to a new cost: the day, the month and the total have the call's cost after each."""
    call = await _settled(harness)
    for number, (amount, is_new_cost, total) in enumerate(
        [("0.5", False, "0.5625"), ("-0.0625", False, "0.5"), ("0.25", True, "0.25"), ("0", True, "0")]
    ):
        await server.adjustments.adjust(order(call, amount, f"r{number}", is_new_cost=is_new_cost))

        assert {each.window: each.spent for each in await harness.budget_service.status("tenant")} == dict.fromkeys(
            BudgetWindow, Decimal(total)
        )
        assert await harness.differences() == []
    assert await _marked(database) == []


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done all the same"])
@pytest.mark.parametrize("fail_at", [0, 1])
async def test_maintenance_applies_adjustment_after_a_failed_update(
    harness: BudgetHarness, server: AdjustmentServer, other: AdjustmentServer, fail_at: int, *, done: bool
) -> None:
    """The budget's update fails after the ledger's insert: two concurrent runs and a replay apply it exactly once."""
    call = await _settled(harness)
    server.collection.fail_at, server.collection.done = fail_at, done

    with pytest.raises(StorageUnavailable):
        await server.adjustments.adjust(order(call, "0.5"))
    assert await harness.differences() == []  # what is on its way is no difference

    await asyncio.gather(server.adjustments.apply_pending(), other.adjustments.apply_pending())
    again = await server.adjustments.adjust(order(call, "0.5"))

    assert again.cost == Decimal("0.5")
    assert (await harness.status()).spent == COST + Decimal("0.5")
    assert await harness.differences() == []
    assert await server.adjustments.apply_pending() == 0


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done all the same"])
@pytest.mark.parametrize("fail_at", [0, 1])
async def test_replay_applies_adjustment_after_a_failed_update(
    harness: BudgetHarness, server: AdjustmentServer, fail_at: int, *, done: bool
) -> None:
    """The caller repeats the request before any maintenance: the same adjustment, applied once."""
    call = await _settled(harness)
    server.collection.fail_at, server.collection.done = fail_at, done
    with pytest.raises(StorageUnavailable):
        await server.adjustments.adjust(order(call, "0.5"))

    first = await server.adjustments.adjust(order(call, "0.5"))
    second = await server.adjustments.adjust(order(call, "0.5"))

    assert first == second
    assert (await harness.status()).spent == COST + Decimal("0.5")
    assert await harness.differences() == []


async def test_maintenance_replaces_the_bound_of_a_resolved_call(
    harness: BudgetHarness, server: AdjustmentServer, other: AdjustmentServer
) -> None:
    """The budget's update fails after a resolution: the bound counts until maintenance applies the cost."""
    call = await _settled(harness, None)
    server.collection.fail_at = 0
    with pytest.raises(StorageUnavailable):
        await server.adjustments.resolve(call, cost=COST, why="the invoice", by="ann")
    assert (await harness.status()).spent == BOUND

    await asyncio.gather(*(each.adjustments.apply_pending() for each in (server, other)))

    assert (await harness.status()).spent == COST
    assert await harness.differences() == []


async def test_concurrent_adjustments_count_once_each(
    harness: BudgetHarness, server: AdjustmentServer, other: AdjustmentServer
) -> None:
    """Eight on two servers, each repeated, during maintenance on both: the budget has their sum."""
    call = await _settled(harness)
    orders = [order(call, f"0.{number}", f"r{number}", above_bound=True) for number in range(1, 9)]

    await asyncio.gather(
        *(each.adjustments.adjust(one) for one in orders for each in (server, other)),
        *(each.adjustments.apply_pending() for each in (server, other) for _ in range(3)),
    )

    assert await server.adjustments.total("tenant", call.call_id) == COST + Decimal("3.6")
    assert (await harness.status()).spent == COST + Decimal("3.6")
    assert await harness.differences() == []


@pytest.mark.parametrize("later", [2, 20, 120], ids=["before all know", "before it is stated for good", "afterwards"])
async def test_adjustment_counts_once_whenever_tracking_started(
    harness: BudgetHarness, server: AdjustmentServer, later: float
) -> None:
    """Made before or after the opening balance is final: it is in the balance or applied, never both."""
    call = await harness.close(await harness.open(reserved=False), COST)
    harness.advance(1)
    await harness.begin()
    harness.advance(later)
    await harness.run_maintenance()
    await server.adjustments.adjust(order(call, "0.5"))
    harness.advance(60)
    await harness.run_maintenance()
    await server.adjustments.apply_pending()

    assert (await harness.status()).spent == COST + Decimal("0.5")
    assert await harness.differences() == []


async def test_tenant_without_a_budget_has_no_unapplied_adjustment(
    harness: BudgetHarness, server: AdjustmentServer, database: Database
) -> None:
    """Nothing is tracked, so nothing is pending; the first budget then starts with the adjusted cost."""
    call = await harness.close(await harness.open(reserved=False), COST)
    await server.adjustments.adjust(order(call, "0.5"))
    assert await _marked(database) == []

    harness.advance(1)
    await harness.begin()

    assert (await harness.status()).spent == COST + Decimal("0.5")


async def test_adjustment_before_the_call_is_settled_in_the_budget(
    harness: BudgetHarness, server: AdjustmentServer
) -> None:
    """The server that closed the call died before settling it: adjusted first, settled later, both count."""
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()
    call = await harness.close(await harness.open(reserved=True), COST)
    await server.adjustments.adjust(order(call, "-0.0125"))
    harness.advance(60)
    await harness.run_maintenance()

    assert (await harness.status()).spent == Decimal("0.05")
    assert await harness.differences() == []
