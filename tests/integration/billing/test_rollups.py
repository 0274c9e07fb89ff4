"""Each entry is rolled up exactly once, whichever server does it and whenever it dies."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.states import CallState
from godoty_service.mongo.client import Database
from tests.integration.billing.harness import Server, Tenant, report_sums, scan, usage_query
from tests.integration.billing.sample_day import DAY, NOON, fill


@pytest.mark.parametrize("done", [False, True], ids=["lost", "done-unanswered"])
@pytest.mark.parametrize("write", range(6))
async def test_death_between_any_two_writes_adds_nothing_twice(
    server: Server, other: Server, tenant: Tenant, write: int, *, done: bool
) -> None:
    """Whichever write was the last, the next server completes the batch, and the sums are exact."""
    await fill(tenant, 20)
    await tenant.open(NOON)
    server.faults.writes, server.faults.done = write, done
    try:
        await server.query.run(tenant.tenant_id, DAY)
    except StorageUnavailable:
        died = True
    else:
        died = False
    assert died == (write < 6)
    assert await other.differences() == []
    report = await other.query.run(tenant.tenant_id, DAY)

    assert report_sums(report) == scan(await tenant.documents(), DAY)
    assert await other.differences() == []


async def test_paused_server_that_resumes_later_adds_nothing(server: Server, other: Server, tenant: Tenant) -> None:
    """Writes of a batch that arrive after it was completed, and after the next batch, change nothing."""
    await fill(tenant, 5)
    add_batch = server.rollups.add_batch
    paused, resumed = asyncio.Event(), asyncio.Event()

    async def pause_first(*args: Any) -> None:
        paused.set()
        await resumed.wait()
        await add_batch(*args)

    server.rollups.add_batch = pause_first  # type: ignore[method-assign, assignment] # a pause
    slow = asyncio.create_task(server.rollup_job.roll_up(tenant.tenant_id))
    await paused.wait()
    await other.rollup_job.roll_up(tenant.tenant_id)
    await fill(tenant, 5)
    await other.rollup_job.roll_up(tenant.tenant_id)
    resumed.set()
    await slow

    assert await other.differences() == []
    assert report_sums(await other.query.run(tenant.tenant_id, DAY)) == scan(await tenant.documents(), DAY)


async def test_concurrent_servers_add_each_entry_once(database: Database, tenant: Tenant) -> None:
    """More than a batch of entries, rolled up by five servers while more are inserted."""
    servers = [Server(database, f"server {number}") for number in range(5)]
    await fill(tenant, 700)
    await asyncio.gather(
        *(each.rollup_job.roll_up(tenant.tenant_id, include_pending=True) for each in servers), fill(tenant, 100)
    )
    report = await servers[0].query.run(tenant.tenant_id, DAY)

    assert report_sums(report) == scan(await tenant.documents(), DAY)
    assert await servers[0].differences() == []
    assert await database.collection("ledger").count({"rollup_state": {"$exists": True}}) == 0


async def test_server_with_the_lease_rolls_up_all_tenants(
    database: Database, server: Server, other: Server, tenant: Tenant
) -> None:
    """While one has the lease, the other does nothing; the lease of a dead server expires."""
    second = Tenant(database, server.ledger, tenant.chance)
    await fill(tenant, 3)
    await fill(second, 3)

    assert await server.rollup_job.run_once()
    assert not await other.rollup_job.run_once()
    assert await database.collection("ledger").count({"rollup_state": {"$exists": True}}) == 0

    async def later() -> datetime:
        return await database.now() + timedelta(minutes=1)

    heir = Server(database, "heir", now=later)
    assert await heir.rollup_job.run_once()
    assert not await server.rollup_job.run_once()


async def test_tenant_whose_sums_fail_does_not_block_others(database: Database, server: Server, tenant: Tenant) -> None:
    """A sum that needs more than 34 digits is a fault of that tenant alone."""
    broken = Tenant(database, server.ledger, tenant.chance)
    broken.tenant_id = "tnt_0"  # comes first
    for cost in ("1E+20", "1E-20"):
        call = await broken.open(NOON)
        await broken.close(call, NOON, state=CallState.SETTLED)
        await database.collection("ledger").update_one(
            {"_id": call.call_id}, {"$set": {"cost": Decimal128(Decimal(cost))}}
        )
    await fill(tenant, 3)
    await server.rollup_job.run_once()

    assert report_sums(await server.query.run(tenant.tenant_id, DAY)) == scan(await tenant.documents(), DAY)
    queued = await database.collection("ledger").find({"rollup_state": {"$exists": True}})
    assert {each["tenant_id"] for each in queued} == {"tnt_0"}


async def test_settle_time_in_the_future_does_not_advance_as_of(server: Server, other: Server, tenant: Tenant) -> None:
    """A call settled "tomorrow" is in the report, whose `as_of` is now; later calls are in later reports."""
    call = await tenant.open(NOON)
    pending = await tenant.open(datetime.now(UTC).replace(microsecond=0) + timedelta(days=31))
    await tenant.close(call, datetime.now(UTC).replace(microsecond=0) + timedelta(days=1), state=CallState.SETTLED)
    first = await server.query.run(tenant.tenant_id, DAY)
    slow = await tenant.open(NOON)
    await tenant.close(slow, datetime.now(UTC).replace(microsecond=0), state=CallState.SETTLED)
    second = await other.query.run(tenant.tenant_id, DAY)
    again = await other.query.run(tenant.tenant_id, usage_query(DAY.start, DAY.end, as_of=first.as_of))

    assert first.as_of < second.as_of <= datetime.now(UTC)
    assert [each.totals.model_calls for each in (first, second)] == [1, 2]
    assert (again.totals, again.rows) == (first.totals, first.rows)
    assert again.later_cost == tenant.calls[slow.call_id].cost
    assert await server.differences() == []
    tomorrow = usage_query(pending.start_time, pending.start_time + timedelta(days=1))
    assert (await server.query.run(tenant.tenant_id, tomorrow)).totals.pending_calls == 1
