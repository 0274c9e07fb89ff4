"""No operation reads more entries the more a tenant has, and what the pieces come to is exact."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from godoty_service.budget import BudgetWindow
from godoty_service.errors import StorageUnavailable
from godoty_service.metering import booking, money, rollups
from godoty_service.metering import ledger as ledgers
from godoty_service.metering.call import CallState
from godoty_service.metering.entry_sums import DaySums, EntrySums
from godoty_service.metering.opening_balance import OpeningBalance
from godoty_service.mongo import Database
from tests.billing.books import Server, Tenant
from tests.budgets.conftest import NOON, Till

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


async def write_settled(till: Till, *, calls: int, over: timedelta) -> Decimal:
    """Write settled calls of the time before now; returns what they cost."""
    end, total = till.now, Decimal(0)
    for number in range(calls):
        till.now = end - over + over * number / calls
        till.now = till.now.replace(microsecond=till.now.microsecond // 1000 * 1000)
        cost = Decimal(number + 1).scaleb(-12)
        await till.close(await till.open(reserved=False), cost)
        total += cost
    till.now = end
    return total


@pytest.mark.parametrize("rolled_up", [False, True])
async def test_a_first_budget_and_its_proof_read_entries_in_bounded_pieces(
    mongodb_uri: str, database: Database, till: Till, *, rolled_up: bool
) -> None:
    """When it is set, stated for good and verified: the entries of hours in pieces, or their roll-ups instead."""
    large = Till(database, piece=PIECE)
    total = await write_settled(till, calls=CALLS, over=timedelta(hours=6))
    if rolled_up:
        await large.booking.take_up("tenant")
    async with read_sizes(mongodb_uri, database) as stating:
        await large.begin()
        large.pass_(60)
        await large.sweep()
    async with read_sizes(mongodb_uri, database) as verifying:
        differences = await large.differences()

    assert (await large.status()).spent == total
    assert differences == []
    assert max(stating) <= PIECE
    assert sum(stating) <= (CALLS // 10 if rolled_up else 4 * CALLS)
    assert max(verifying) <= PIECE
    assert sum(verifying) >= CALLS


async def test_entries_of_one_moment_are_in_one_piece(till: Till) -> None:
    """More than a piece holds, with others before and after: each is summed once."""
    for number in range(30):
        await till.close(await till.open(reserved=False), Decimal(2**number))
        if number in (3, 25):
            till.pass_(1)
    sums = DaySums()
    await till.sums.add_entries(sums, "tenant")

    assert sums.amounts == {BudgetWindow.DAY.key(NOON): Decimal(2**30 - 1)}


@pytest.mark.parametrize("write", range(6))
@pytest.mark.parametrize("done", [False, True], ids=["lost", "done-unanswered"])
async def test_a_batch_that_a_dead_server_left_half_rolled_up_counts_once(
    database: Database, write: int, *, done: bool
) -> None:
    """Whatever write was its last: a statement has each call of two days, and each adjustment made before its end."""
    await database.collection("usage_quarters").ensure(rollups.INDEXES)
    await database.collection("usage_books").ensure(booking.INDEXES)
    await database.collection("ledger").ensure(ledgers.INDEXES)
    server = Server(database, "one")
    tenant = Tenant(database, server.ledger, random.Random(7))
    calls = [await tenant.open(NOON - timedelta(hours=number), session_uid=f"s{number}") for number in range(30)]
    for number, call in enumerate(calls[:20]):
        state = CallState.UNRESOLVED if number % 3 == 0 else CallState.SETTLED
        calls[number] = await tenant.close(call, NOON, state=state)
    await server.booking.take_up(tenant.tenant_id)
    early = await tenant.adjust(calls[0], NOON)
    late = await tenant.adjust(calls[3], NOON + timedelta(hours=3))
    for call in calls[20:25]:
        await tenant.close(call, NOON, state=CallState.SETTLED)
    server.trouble.writes, server.trouble.done = write, done
    with suppress(StorageUnavailable):
        await server.booking.take_up(tenant.tenant_id, note=True)
    balance = OpeningBalance(
        database=database,
        booking=server.booking,
        rollups=server.rollups,
        entries=EntrySums(database.collection("ledger"), piece=3),
    )
    end = NOON + timedelta(hours=2)
    statement = await balance.until(tenant.tenant_id, end, at=end)
    settled = [call for call in tenant.calls.values() if call.state is CallState.SETTLED]
    unresolved = [call for call in calls[:20] if call.state is CallState.UNRESOLVED and call.call_id != early.corrects]
    bounds = [call.upper_bound or money.ZERO for call in unresolved]
    expected = money.total([early.cost, *(call.cost or money.ZERO for call in settled), *bounds])

    assert statement.spent[BudgetWindow.TOTAL] == {"all": expected}
    assert {each.call_id for each in statement.held} == {call.call_id for call in calls[25:]}
    assert late.cost
