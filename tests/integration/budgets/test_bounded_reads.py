"""Operations read bounded numbers of entries, however many a tenant has, and the sum of the pieces is exact."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.calendar import UTC_CALENDAR
from godoty_service.budgets.entry_sums import DaySums, EntrySums
from godoty_service.budgets.opening_balance import OpeningBalanceJob
from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.states import CallState
from godoty_service.ledger.unsettled_calls import UnsettledCalls
from godoty_service.mongo.client import Database
from godoty_service.pricing import money
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.usage.rollup_store import RollupStore
from tests.integration.billing.harness import Server, Tenant
from tests.integration.budgets.conftest import NOON, BudgetHarness

PIECE = 40
CALLS = 400


@asynccontextmanager
async def read_sizes(uri: str, database: Database) -> AsyncIterator[list[int]]:
    """Collect how many ledger documents each operation examines."""
    sizes: list[int] = []
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri)
    profiled = client[database.name]
    await profiled.command("profile", 2)
    yield sizes
    await profiled.command("profile", 0)
    async for each in profiled["system.profile"].find({"ns": f"{database.name}.ledger"}):
        sizes.append(each.get("docsExamined", 0))  # noqa: PERF401 - the caller's list
    await client.close()


async def write_settled(harness: BudgetHarness, *, calls: int, over: timedelta) -> Decimal:
    """Insert settled calls that started before now; return their cost."""
    end, total = harness.now, Decimal(0)
    for number in range(calls):
        harness.now = end - over + over * number / calls
        harness.now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
        cost = Decimal(number + 1).scaleb(-12)
        await harness.close(await harness.open(reserved=False), cost)
        total += cost
    harness.now = end
    return total


@pytest.mark.parametrize("rolled_up", [False, True])
async def test_first_budget_and_its_verification_read_bounded_pieces(
    mongodb_uri: str, database: Database, harness: BudgetHarness, *, rolled_up: bool
) -> None:
    """When it is set, balanced finally and verified: the entries of hours in pieces, or their roll-ups instead."""
    large = BudgetHarness(database, piece=PIECE)
    total = await write_settled(harness, calls=CALLS, over=timedelta(hours=6))
    if rolled_up:
        await large.rollup_job.roll_up("tenant")
    async with read_sizes(mongodb_uri, database) as stating:
        await large.begin()
        large.advance(60)
        await large.run_maintenance()
    async with read_sizes(mongodb_uri, database) as verifying:
        differences = await large.differences()

    assert (await large.status()).spent == total
    assert differences == []
    assert max(stating) <= PIECE
    assert sum(stating) <= (CALLS // 10 if rolled_up else 4 * CALLS)
    assert max(verifying) <= PIECE
    assert sum(verifying) >= CALLS


async def test_entries_of_one_start_time_are_in_one_piece(harness: BudgetHarness) -> None:
    """More than a piece has, with others before and after: each is summed once."""
    for number in range(30):
        await harness.close(await harness.open(reserved=False), Decimal(2**number))
        if number in (3, 25):
            harness.advance(1)
    sums = DaySums()
    await harness.sums.add_entries(sums, "tenant")

    assert sums.amounts == {UTC_CALENDAR.day(NOON): Decimal(2**30 - 1)}


@pytest.mark.parametrize("write", range(6))
@pytest.mark.parametrize("done", [False, True], ids=["lost", "done-unanswered"])
async def test_half_rolled_up_batch_of_a_dead_server_counts_once(database: Database, write: int, *, done: bool) -> None:
    """Whichever write was its last: a balance has each call of two days, and each adjustment made before its end."""
    await database.collection("usage_rollups").ensure(RollupStore.INDEXES)
    await database.collection("usage_rollup_state").ensure(RollupJob.INDEXES)
    await database.collection("ledger").ensure(Ledger.INDEXES)
    server = Server(database, "one")
    tenant = Tenant(database, server.ledger, random.Random(7))
    calls = [await tenant.open(NOON - timedelta(hours=number), session_uid=f"s{number}") for number in range(30)]
    for number, call in enumerate(calls[:20]):
        state = CallState.UNRESOLVED if number % 3 == 0 else CallState.SETTLED
        calls[number] = await tenant.close(call, NOON, state=state)
    await server.rollup_job.roll_up(tenant.tenant_id)
    early = await tenant.adjust(calls[0], NOON)
    late = await tenant.adjust(calls[3], NOON + timedelta(hours=3))
    for call in calls[20:25]:
        await tenant.close(call, NOON, state=CallState.SETTLED)
    server.faults.writes, server.faults.done = write, done
    with suppress(StorageUnavailable):
        await server.rollup_job.roll_up(tenant.tenant_id, include_pending=True)
    balance = OpeningBalanceJob(
        database=database,
        rollup_job=server.rollup_job,
        rollups=server.rollups,
        entries=EntrySums(database.collection("ledger"), piece=3),
    )
    end = NOON + timedelta(hours=2)
    statement = await balance.before(tenant.tenant_id, end, at=end)
    settled = [call for call in tenant.calls.values() if call.state is CallState.SETTLED]
    unresolved = [call for call in calls[:20] if call.state is CallState.UNRESOLVED and call.call_id != early.corrects]
    bounds = [call.upper_bound or money.ZERO for call in unresolved]
    expected = money.total([early.cost, *(call.cost or money.ZERO for call in settled), *bounds])

    assert statement.spent[BudgetWindow.TOTAL] == {"all": expected}
    assert {each.call_id for each in statement.reservations} == {call.call_id for call in calls[25:]}
    assert late.cost


async def test_open_and_unresolved_calls_are_found_among_many_closed(
    mongodb_uri: str, database: Database, harness: BudgetHarness
) -> None:
    """By the partial indexes: no operation examines a closed call."""
    await write_settled(harness, calls=CALLS, over=timedelta(hours=6))
    calls = UnsettledCalls(database.collection("ledger"))
    async with read_sizes(mongodb_uri, database) as without:
        assert not await calls.any_open("tenant")
        assert not await calls.any_unresolved("tenant", provider_key_ids={"key"}, since=NOON - timedelta(days=1))
    await harness.open(reserved=False)
    async with read_sizes(mongodb_uri, database) as with_one:
        assert await calls.any_open("tenant")
        assert not await calls.any_open("another")
        assert await harness.ledger.count() == (1, 0)

    assert without == [0, 0]
    assert max(with_one) <= 1
