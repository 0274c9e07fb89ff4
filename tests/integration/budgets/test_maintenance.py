"""Budget maintenance: which reservations it releases, and that one tenant's failure does not block another tenant."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.budgets.charges import OpeningBalance
from godoty_service.budgets.document import UNKNOWN
from godoty_service.errors import StorageUnavailable
from godoty_service.ids import new_id
from godoty_service.ledger.ledger import Ledger
from godoty_service.mongo.client import Database
from tests.integration.budgets.conftest import BOUND, BUDGETS, BudgetHarness
from tests.integration.budgets.test_tracking import COST


async def reserved_only(harness: BudgetHarness, database: Database) -> str:
    """Reserve a call whose entry does not exist yet; return its id."""
    call = await harness.open(reserved=True)
    await database.collection("ledger").delete_one({"_id": call.call_id})
    return call.call_id


async def test_server_with_fast_clock_releases_no_new_reservation(harness: BudgetHarness, database: Database) -> None:
    """Age is measured by the database's clock, which all servers share: the entry may be inserted soon."""
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()
    await reserved_only(harness, database)
    harness.now += timedelta(minutes=2)

    assert await harness.maintenance().run_once() == 0

    assert (await harness.status()).reserved == BOUND


async def test_reservation_of_a_live_server_is_never_released(harness: BudgetHarness, database: Database) -> None:
    """However old: its entry may be waiting for the database. Once the server is dead, it is released."""
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()
    await reserved_only(harness, database)
    harness.living = {"server"}
    harness.advance(600)
    await harness.run_maintenance()
    while_it_lived = (await harness.status()).reserved
    harness.living = set()
    await harness.run_maintenance()

    assert while_it_lived == BOUND
    assert (await harness.status()).reserved == 0


async def test_server_releases_its_own_reservation_after_its_call_ended(
    harness: BudgetHarness, database: Database
) -> None:
    """Its entry could not be inserted and its turn is over: the server knows that itself."""
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()
    call_id = await reserved_only(harness, database)
    harness.living = {"server"}
    harness.advance(60)
    await harness.run_maintenance()
    own = Ledger(database.collection("ledger"))
    own.open_calls.add(call_id)
    busy = await harness.maintenance("server", ledger=own).run_once()
    own.open_calls.clear()
    idle = await harness.maintenance("server", ledger=own).run_once()

    assert (busy, idle) == (0, 1)


async def test_call_closed_by_a_fast_clock_is_settled(harness: BudgetHarness) -> None:
    """Its server died between closing and settling: a wrong `settle_time` does not keep it reserved."""
    await harness.begin()
    harness.advance(20)
    call = await harness.open(reserved=True)
    harness.now += timedelta(days=31)
    await harness.close(call, COST)
    harness.now -= timedelta(days=31)
    harness.advance(60)

    await harness.run_maintenance()

    status = await harness.status()
    assert (status.spent, status.reserved) == (COST, Decimal(0))


async def test_failed_opening_balance_does_not_block_other_tenants(
    harness: BudgetHarness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither their reservations nor their balances; its own balance is set as soon as possible."""
    await harness.begin()
    async with harness.budget_service.tracking("aaa"):
        pass
    harness.advance(20)
    await harness.close(await harness.open(reserved=True), COST)
    harness.advance(60)
    real = harness.balance.before

    async def failing(tenant_id: str, end: datetime, *, at: datetime) -> OpeningBalance:
        if tenant_id == "aaa":
            raise StorageUnavailable("too slow")
        return await real(tenant_id, end, at=at)

    monkeypatch.setattr(harness.balance, "before", failing)
    await harness.run_maintenance()

    assert (await harness.status()).reserved == 0
    assert await harness.budgets.tracked("tenant") is not None
    assert await harness.budgets.tracked("aaa") is None
    monkeypatch.undo()
    await harness.run_maintenance()
    assert await harness.budgets.tracked("aaa") is not None


async def test_maintenance_stops_if_the_database_cannot_be_reached(
    harness: BudgetHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tenants in a row, not after each of thousands has waited for its timeout."""
    for number in range(8):
        async with harness.budget_service.tracking(f"tenant{number}"):
            pass
    harness.advance(60)
    tried = []

    async def failing(tenant_id: str, _: datetime, **__: datetime) -> OpeningBalance:
        tried.append(tenant_id)
        raise StorageUnavailable("out of reach")

    monkeypatch.setattr(harness.balance, "before", failing)
    with pytest.raises(StorageUnavailable):
        await harness.maintenance().run_once()

    assert len(tried) == 3


async def test_maintenance_completes_an_unfinished_first_budget(harness: BudgetHarness) -> None:
    """Its writer died between the policy and the start of tracking: that is set, and then the final balance."""
    await harness.close(await harness.open(reserved=False), COST)
    harness.advance(1)
    await harness.budget_service.start_tracking("tenant")
    early = await harness.close(await harness.open(reserved=True), COST)
    await harness.budget_service.settle_reconciled(early)
    assert await harness.budgets.since("tenant") == UNKNOWN
    await harness.run_maintenance()
    since = await harness.budgets.since("tenant")
    harness.advance(60)
    await harness.run_maintenance()

    assert since is not None
    assert since < harness.now
    assert (await harness.status()).spent == 2 * COST
    assert await harness.differences() == []


async def test_budget_whose_policy_was_not_written_is_balanced_again(harness: BudgetHarness) -> None:
    """The policy is set again much later: the spending in between counts at once."""
    await harness.budget_service.start_tracking("tenant")
    harness.advance(3600)
    await harness.close(await harness.open(reserved=False), COST)
    harness.advance(1)
    await harness.begin()

    assert (await harness.status()).spent == COST


async def test_concurrent_first_reservations_start_tracking_once(
    harness: BudgetHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy is in force without a balance: the first calls share one balance."""
    stated = 0
    real = harness.balance.before

    async def counted(tenant_id: str, end: datetime, *, at: datetime) -> OpeningBalance:
        nonlocal stated
        stated += 1
        return await real(tenant_id, end, at=at)

    monkeypatch.setattr(harness.balance, "before", counted)
    call = await harness.open(reserved=False)
    others = [replace(call, call_id=new_id("call"), upper_bound=Decimal("0.1")) for _ in range(20)]
    for each in others:
        await harness.ledger.insert(each)

    await asyncio.gather(*(harness.budget_service.reserve(each, BUDGETS) for each in others))

    assert stated == 1
    assert (await harness.status()).reserved == BOUND + Decimal("0.1") * 20


async def test_final_balance_is_dropped_if_the_document_was_rebuilt_meanwhile(harness: BudgetHarness) -> None:
    """It ends where tracking began before: the calls since then would be in no sum."""
    await harness.begin()
    harness.advance(20)
    call = await harness.close(await harness.open(reserved=True), COST)
    await harness.budget_service.settle_reconciled(call)
    harness.advance(40)
    harness.balance.between = lambda: harness.budget_service.rebuild("tenant")

    await harness.maintenance().run_once()
    while_rebuilt = (await harness.status()).spent
    harness.advance(60)
    await harness.run_maintenance()

    assert (while_rebuilt, (await harness.status()).spent) == (COST, COST)
    assert await harness.differences() == []
