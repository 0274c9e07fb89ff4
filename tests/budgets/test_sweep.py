"""The sweep of reservations: whose is released, and that one tenant's trouble is not another one's."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.errors import StorageUnavailable
from godoty_service.ids import new_id
from godoty_service.metering.budget_document import UNKNOWN
from godoty_service.metering.charges import Statement
from godoty_service.metering.ledger import Ledger
from godoty_service.mongo import Database
from tests.budgets.conftest import BOUND, BUDGETS, Till
from tests.budgets.test_counting import COST


async def reserved_only(till: Till, database: Database) -> str:
    """Reserve a call whose entry is not there yet; returns its id."""
    call = await till.open(reserved=True)
    await database.collection("ledger").delete_one({"_id": call.call_id})
    return call.call_id


async def test_a_sweeper_whose_clock_is_ahead_releases_no_reservation_of_this_moment(
    till: Till, database: Database
) -> None:
    """Age is by the database's clock, which is the same for all: the entry may land in a moment."""
    await till.begin()
    till.pass_(60)
    await till.sweep()
    await reserved_only(till, database)
    till.now += timedelta(minutes=2)

    assert await till.sweeper().sweep() == 0

    assert (await till.status()).reserved == BOUND


async def test_a_living_servers_reservation_is_never_released(till: Till, database: Database) -> None:
    """However old: its entry may be waiting for the database. When the server is dead, it is released."""
    await till.begin()
    till.pass_(60)
    await till.sweep()
    await reserved_only(till, database)
    till.living = {"server"}
    till.pass_(600)
    await till.sweep()
    while_it_lived = (await till.status()).reserved
    till.living = set()
    await till.sweep()

    assert while_it_lived == BOUND
    assert (await till.status()).reserved == 0


async def test_a_server_releases_its_own_reservation_once_it_is_no_longer_busy_with_the_call(
    till: Till, database: Database
) -> None:
    """Its entry could not be written and its turn is over: the server knows by itself."""
    await till.begin()
    till.pass_(60)
    await till.sweep()
    call_id = await reserved_only(till, database)
    till.living = {"server"}
    till.pass_(60)
    await till.sweep()
    own = Ledger(database.collection("ledger"))
    own.open_calls.add(call_id)
    busy = await till.sweeper("server", ledger=own).sweep()
    own.open_calls.clear()
    idle = await till.sweeper("server", ledger=own).sweep()

    assert (busy, idle) == (0, 1)


async def test_a_call_that_closed_by_a_clock_far_ahead_is_settled(till: Till) -> None:
    """Its server died between the entry's end and the budget's: a wrong `settle_time` does not keep it reserved."""
    await till.begin()
    till.pass_(20)
    call = await till.open(reserved=True)
    till.now += timedelta(days=31)
    await till.close(call, COST)
    till.now -= timedelta(days=31)
    till.pass_(60)

    await till.sweep()

    status = await till.status()
    assert (status.spent, status.reserved) == (COST, Decimal(0))


async def test_a_tenant_whose_statement_fails_holds_up_no_other_tenants_sweep(
    till: Till, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the reservations of others nor their statements; and its own is made as soon as it can be."""
    await till.begin()
    async with till.spending.counting("aaa"):
        pass
    till.pass_(20)
    await till.close(await till.open(reserved=True), COST)
    till.pass_(60)
    real = till.balance.until

    async def failing(tenant_id: str, end: datetime, *, at: datetime) -> Statement:
        if tenant_id == "aaa":
            raise StorageUnavailable("too slow")
        return await real(tenant_id, end, at=at)

    monkeypatch.setattr(till.balance, "until", failing)
    await till.sweep()

    assert (await till.status()).reserved == 0
    assert await till.budgets.counted("tenant") is not None
    assert await till.budgets.counted("aaa") is None
    monkeypatch.undo()
    await till.sweep()
    assert await till.budgets.counted("aaa") is not None


async def test_a_sweep_ends_where_the_database_is_out_of_reach(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some tenants in a row, not after each of thousands has waited for its timeout."""
    for number in range(8):
        async with till.spending.counting(f"tenant{number}"):
            pass
    till.pass_(60)
    tried = []

    async def failing(tenant_id: str, _: datetime, **__: datetime) -> Statement:
        tried.append(tenant_id)
        raise StorageUnavailable("out of reach")

    monkeypatch.setattr(till.balance, "until", failing)
    with pytest.raises(StorageUnavailable):
        await till.sweeper().sweep()

    assert len(tried) == 3


async def test_a_sweep_finishes_what_the_writer_of_a_first_budget_left(till: Till) -> None:
    """It died between the policy and the time since when all calls are counted: that is set, and then stated."""
    await till.close(await till.open(reserved=False), COST)
    till.pass_(1)
    await till.spending.begin("tenant")
    early = await till.close(await till.open(reserved=True), COST)
    await till.spending.settle_elsewhere(early)
    assert await till.budgets.since("tenant") == UNKNOWN
    await till.sweep()
    since = await till.budgets.since("tenant")
    till.pass_(60)
    await till.sweep()

    assert since is not None
    assert since < till.now
    assert (await till.status()).spent == 2 * COST
    assert await till.differences() == []


async def test_a_budget_that_came_no_further_than_its_balance_is_balanced_anew(till: Till) -> None:
    """The policy could not be written, and is set again much later: what was spent meanwhile counts at once."""
    await till.spending.begin("tenant")
    till.pass_(3600)
    await till.close(await till.open(reserved=False), COST)
    till.pass_(1)
    await till.begin()

    assert (await till.status()).spent == COST


async def test_reservations_of_many_calls_begin_counting_once(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy is in force without a balance: the first calls wait for one statement, not each for its own."""
    stated = 0
    real = till.balance.until

    async def counted(tenant_id: str, end: datetime, *, at: datetime) -> Statement:
        nonlocal stated
        stated += 1
        return await real(tenant_id, end, at=at)

    monkeypatch.setattr(till.balance, "until", counted)
    call = await till.open(reserved=False)
    others = [replace(call, call_id=new_id("call"), upper_bound=Decimal("0.1")) for _ in range(20)]
    for each in others:
        await till.ledger.insert(each)

    await asyncio.gather(*(till.spending.reserve(each, BUDGETS) for each in others))

    assert stated == 1
    assert (await till.status()).reserved == BOUND + Decimal("0.1") * 20
