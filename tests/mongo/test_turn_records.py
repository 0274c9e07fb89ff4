"""Records of refused turns are deleted, by the turn and by the loop that tries again, side by side."""

import asyncio
from datetime import timedelta

import pytest

from godoty_service.mongo import Database
from godoty_service.turns import records as turn_records
from godoty_service.turns.records import TurnRecord, TurnRecords

RECORD = TurnRecord(
    turn_id="turn", tenant_id="tenant", session_id="talk", request_id="one", fingerprint="", replica_id="here"
)


@pytest.fixture
async def records(database: Database) -> TurnRecords:
    """Records in an empty database."""
    collection = database.collection("turns")
    await collection.ensure(turn_records.INDEXES)
    return TurnRecords(collection, keep_for=timedelta(hours=1), longest=timedelta(hours=1))


async def test_refused_record_is_deleted_while_the_loop_deletes_it(records: TurnRecords) -> None:
    """Deleted twice at once: neither fails, and nothing is left to try."""
    await records.begin(RECORD)
    forgetting = asyncio.create_task(records.forget(RECORD))
    await asyncio.sleep(0)
    assert records.is_refused(RECORD)
    await asyncio.gather(forgetting, records.reap())

    assert not records.is_refused(RECORD)
    assert await records.of_request("tenant", "one") is None


async def test_lost_records_are_those_that_are_read_and_do_not_run(records: TurnRecords) -> None:
    """Of one server, without those that it runs; a record that nobody reads is not asked for."""
    await records.begin(RECORD)
    assert await records.followed_of("here", but=[]) == []
    await records.follow(RECORD)

    assert await records.followed_of("here", but=[]) == [RECORD]
    assert await records.followed_of("here", but=["turn"]) == []
    assert await records.followed_of("there", but=[]) == []
