"""Records of refused turns are deleted concurrently by the turn and by the retry loop."""

import asyncio
from datetime import timedelta

import pytest

from godoty_service.mongo.client import Database
from godoty_service.turns.turn_store import TurnRecord, TurnStore

RECORD = TurnRecord(
    turn_id="turn", tenant_id="tenant", session_id="talk", request_id="one", fingerprint="", replica_id="here"
)


@pytest.fixture
async def records(database: Database) -> TurnStore:
    """Return the records of an empty database."""
    collection = database.collection("turns")
    await collection.ensure(TurnStore.INDEXES)
    return TurnStore(collection, retention=timedelta(hours=1), max_duration=timedelta(hours=1))


async def test_refused_record_is_deleted_while_the_loop_deletes_it(records: TurnStore) -> None:
    """Two concurrent deletions: neither fails, and nothing remains to retry."""
    await records.begin(RECORD)
    forgetting = asyncio.create_task(records.delete_refused(RECORD))
    await asyncio.sleep(0)
    assert records.is_refused(RECORD)
    await asyncio.gather(forgetting, records.reap())

    assert not records.is_refused(RECORD)
    assert await records.of_request("tenant", "one") is None


async def test_lost_records_have_remote_reader_and_do_not_run(records: TurnStore) -> None:
    """Of one server, without its running turns and those without a remote reader."""
    await records.begin(RECORD)
    assert await records.remotely_read("here", excluding=[]) == []
    await records.mark_remote_reader(RECORD)

    assert await records.remotely_read("here", excluding=[]) == [RECORD]
    assert await records.remotely_read("here", excluding=["turn"]) == []
    assert await records.remotely_read("there", excluding=[]) == []
