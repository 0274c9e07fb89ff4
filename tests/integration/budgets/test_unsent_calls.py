"""Calls whose server died between their entry and their reservation, which are written side by side."""

from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from decimal import Decimal
from typing import cast

import pytest

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.ledger.states import CallState
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.reconciler import Reconciler
from godoty_service.metering.settlement import RecordTimeouts
from godoty_service.mongo.client import Database
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.sessions.store import SessionStore
from tests.integration.budgets.conftest import BOUND, BudgetHarness

Reconcile = Callable[[], Awaitable[object]]


@pytest.fixture
def reconcile(harness: BudgetHarness, database: Database) -> Reconcile:
    """Runs the reconciler of another server once, after the server of the calls died."""
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id="other", lease=timedelta(seconds=15))
    updater = SessionTotalsUpdater(SessionStore(database.collection("sessions"), replicas=replicas), harness.ledger)

    async def alive(_: Collection[str]) -> set[str]:
        return set()

    async def keys() -> list[str]:
        return ["key"]

    async def no_record(_: str, __: str) -> None:
        return None

    return Reconciler(
        ledger=harness.ledger,
        oracle=cast("PricingOracle", None),  # nothing is priced: no usage is known
        totals_updater=updater,
        adjustments=Adjustments(harness.ledger, updater, budget_service=harness.budget_service),
        read_generation=no_record,
        alive=alive,
        owner="other",
        readable_keys=keys,
        record=lambda _: None,
        timeouts=RecordTimeouts(),
        keeps_records=lambda: True,
        now=database.now,
        budget_service=harness.budget_service,
    ).tick


async def state_of(harness: BudgetHarness, call: ModelCall) -> CallState:
    """Return the state of a call's entry."""
    entry = await harness.ledger.get(call.tenant_id, call.call_id)
    assert entry is not None
    return entry.state


async def test_call_without_its_reservation_was_never_sent(harness: BudgetHarness, reconcile: Reconcile) -> None:
    """It is void: unresolved, its bound would be in the ledger's sums and in no budget."""
    await harness.begin()
    harness.advance(60)
    lost = await harness.open(reserved=False, budgeted=True)
    reserved = await harness.open(reserved=True, budgeted=True)

    await reconcile()
    await harness.run_maintenance()

    assert (await state_of(harness, lost), await state_of(harness, reserved)) == (CallState.VOID, CallState.UNRESOLVED)
    assert (await harness.status()).spent == BOUND
    assert await harness.differences() == []


async def test_reservation_that_arrives_after_its_call_is_void_is_released(
    harness: BudgetHarness, reconcile: Reconcile
) -> None:
    """The server died after it had sent it to the database."""
    await harness.begin()
    harness.advance(60)
    lost = await harness.open(reserved=False, budgeted=True)
    await reconcile()

    await harness.budget_service.reserve(lost, ())
    harness.advance(60)
    await harness.run_maintenance()

    status = await harness.status()
    assert (status.spent, status.reserved) == (Decimal(0), Decimal(0))
    assert await harness.differences() == []


async def test_call_of_a_server_that_knew_no_budget_is_unresolved(harness: BudgetHarness, reconcile: Reconcile) -> None:
    """It needed no reservation, so it may have been sent; its bound is in the opening balance."""
    early = await harness.open(reserved=False)
    await harness.begin()
    late = await harness.open(reserved=False)
    harness.advance(60)

    await reconcile()
    await harness.run_maintenance()

    assert [await state_of(harness, each) for each in (early, late)] == [CallState.UNRESOLVED] * 2
    assert (await harness.status()).spent == 2 * BOUND
    assert await harness.differences() == []


async def test_call_that_started_before_tracking_needs_no_reservation(
    harness: BudgetHarness, reconcile: Reconcile
) -> None:
    """Its server knew the budget early; the opening balance has its bound."""
    await harness.begin()
    early = await harness.open(reserved=False, budgeted=True)
    harness.advance(60)

    await reconcile()
    await harness.run_maintenance()

    assert await state_of(harness, early) is CallState.UNRESOLVED
    assert (await harness.status()).spent == BOUND
    assert await harness.differences() == []


async def test_call_that_another_server_settles_meanwhile_is_not_resolved(
    harness: BudgetHarness, reconcile: Reconcile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no reservation any more, which does not show that it was never sent: its bound stays counted."""
    await harness.begin()
    harness.advance(60)
    call = await harness.open(reserved=True, budgeted=True)
    real = harness.budget_service.was_never_sent

    async def late(due: ModelCall) -> bool:
        await harness.budget_service.settle_reconciled(await harness.close(call, None))
        return await real(due)

    monkeypatch.setattr(harness.budget_service, "was_never_sent", late)
    await reconcile()
    await harness.run_maintenance()

    assert await state_of(harness, call) is CallState.UNRESOLVED
    assert await harness.ledger.adjustments.of_call(call) == []
    assert (await harness.status()).spent == BOUND
    assert await harness.differences() == []
