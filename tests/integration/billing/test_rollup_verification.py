"""Verification reports every difference between the roll-ups and the ledger, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from godoty_service.ledger.states import CallState
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection, Snapshot
from godoty_service.pricing import money
from godoty_service.usage.entries import EntryWithState, UsageEntries
from tests.integration.billing.harness import Server, Tenant
from tests.integration.billing.sample_day import NOON, fill

Tamper = Callable[[Database], Any]


async def _more_cost(database: Database) -> None:
    curve = await database.collection("usage_rollups").find_one({"level": "curve"})
    assert curve is not None
    more = money.add(Decimal(curve["amounts"]["cost"][0]), Decimal("0.0000000000000000000001"))
    await database.collection("usage_rollups").update_one(
        {"_id": curve["_id"]}, {"$set": {"amounts.cost.0": str(more)}}
    )


async def _more_tokens(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "detail"}, {"$inc": {"usage.input_tokens": 1}})


async def _no_day(database: Database) -> None:
    await database.collection("usage_rollups").delete_one({"level": "day"})


async def _one_more(database: Database) -> None:
    found = await database.collection("usage_rollups").find_one({"level": "curve"})
    assert found is not None
    time = found["time"] + timedelta(days=3)
    await database.collection("usage_rollups").insert_one(found | {"_id": "forged", "time": time})


async def _less_late(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "curve"}, {"$set": {"known.0": NOON}})


async def _less_late_in_all(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "curve"}, {"$set": {"latest": NOON}})


async def _cheaper_call(database: Database) -> None:
    cost = Decimal128(Decimal(0))
    await database.collection("ledger").update_one({"state": "settled"}, {"$set": {"cost": cost}})


async def _no_entry(database: Database) -> None:
    await database.collection("ledger").delete_one({"state": "settled"})


async def _unmarked_pending(database: Database) -> None:
    await database.collection("ledger").update_many({"rollup_state": "pending"}, {"$unset": {"rollup_state": ""}})


async def _marked_ready(database: Database) -> None:
    await database.collection("ledger").update_one({"state": "settled"}, {"$set": {"rollup_state": "ready"}})


async def _other_turn(database: Database) -> None:
    await database.collection("ledger").update_one({"opens_turn": True}, {"$unset": {"opens_turn": ""}})


async def _no_hour(database: Database) -> None:
    await database.collection("usage_rollups").delete_one({"level": "detail_hour"})


async def _dearer_hour(database: Database) -> None:
    await database.collection("usage_rollups").update_one(
        {"level": "detail_hour"}, {"$set": {"cost": Decimal128(Decimal(7))}}
    )


async def _later_day(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "day"}, {"$set": {"latest": NOON}})


async def _quarter_beyond_the_day(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "curve"}, {"$inc": {"quarters.0": 200}})


def _forged(level: str) -> Tamper:
    async def forge(database: Database) -> None:
        found = await database.collection("usage_rollups").find_one({"level": level})
        assert found is not None
        await database.collection("usage_rollups").insert_one(found | {"_id": "forged", "agent": "forged"})

    return forge


TAMPERINGS = {
    "usage detail_hour 2026-05-04T12:00:00+00:00": _no_hour,
    "cost: stored 7, by the quarters": _dearer_hour,
    "latest: stored 2026-05-04T12:00:00.001000+00:00, by the hours": _later_day,
    "usage quarter 2026-05-06": _quarter_beyond_the_day,
    "forged: is stored, but has no entries": _forged("detail"),
    "usage detail_hour 2026-05-04T12:00:00+00:00 ": _forged("detail_hour"),
    "usage day 2026-05-04T00:00:00+00:00": _forged("day"),
    "cost: stored": _more_cost,
    "usage: stored": _more_tokens,
    "is missing": _no_day,
    "is stored, but has no entries": _one_more,
    "latest: stored": _less_late,
    "latest: stored 2026-05-04T12:00:00.001000+00:00": _less_late_in_all,
    "quarter 2026-05-04": _cheaper_call,
    "by the entries": _no_entry,
    "is rolled up and pending": _unmarked_pending,
    "model_calls: stored": _marked_ready,
    "is not marked as its turn's first": _other_turn,
}


@pytest.mark.parametrize("piece", [2, 50_000])
@pytest.mark.parametrize("said", TAMPERINGS)
async def test_tampered_document_is_reported(
    server: Server, database: Database, tenant: Tenant, said: str, piece: int
) -> None:
    """Clean roll-ups pass; a document, an entry or a mark that was changed by hand does not."""
    for number in range(6):
        call = await tenant.open(NOON + timedelta(minutes=7 * number))
        await tenant.close(call, NOON + timedelta(hours=1), state=CallState.SETTLED)
    await server.rollup_job.run_once()
    await tenant.open(NOON)
    assert await server.differences() == []
    await TAMPERINGS[said](database)
    found = await server.differences(piece=piece)

    assert any(said in each for each in found), found
    assert await server.differences(tenant.tenant_id, piece=piece) == found


class _Counting(UsageEntries):
    """Entries that count what is read of each snapshot."""

    def __init__(self, collection: Collection, read: list[int]) -> None:
        super().__init__(collection)
        self._read = read

    def read_at(self, snapshot: Snapshot) -> "_Counting":
        """Start a new count."""
        self._read.append(0)
        return _Counting(self._entries.read_at(snapshot), self._read)

    async def iterate_by_time(
        self, tenant_id: str, start: datetime, end: datetime
    ) -> AsyncIterator[list[EntryWithState]]:
        """Count entries."""
        async for page in super().iterate_by_time(tenant_id, start, end):
            self._read[-1] += len(page)
            yield page


async def test_day_is_verified_in_pieces_each_in_a_snapshot_of_its_own(
    server: Server, database: Database, tenant: Tenant
) -> None:
    """No snapshot reads more entries than a piece may have, or a quarter of an hour has; all entries are read."""
    await fill(tenant, 60)  # in the first hour: 15 in each quarter
    for hours in range(2, 8):
        await tenant.close(await tenant.open(NOON + timedelta(hours=hours)), NOON + timedelta(hours=8))
    await server.rollup_job.run_once()
    for piece, most in ((1, 15), (40, 40), (50_000, 66)):
        read: list[int] = []
        server.entries = _Counting(database.collection("ledger"), read)
        assert await server.differences(piece=piece) == []
        assert sum(read) == 66
        assert max(read) <= most


async def test_busy_roll_ups_verified_in_pieces_are_clean(server: Server, other: Server, tenant: Tenant) -> None:
    """While entries are inserted and rolled up, no piece differs, whenever it is read."""

    async def write() -> None:
        for _ in range(12):
            await fill(tenant, 25)
            await other.rollup_job.roll_up(tenant.tenant_id, include_pending=True)

    writing = asyncio.create_task(write())
    rounds = 0
    while not writing.done():
        assert await server.differences(piece=20) == []
        rounds += 1
    await writing

    assert rounds > 1
    assert await server.differences(piece=20) == []
