"""A turn's record is never readable without its complete log, and an expired one reserves no request id."""

from datetime import UTC, datetime, timedelta

import pytest

from godoty_service.mongo.client import Database
from godoty_service.turns.event_log.events import TextDelta
from godoty_service.turns.event_log.store import Chunk, EventLogStore
from godoty_service.turns.turn_store import TurnRecord, TurnStore

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
KEPT, LONGEST = timedelta(hours=24), timedelta(hours=1)
# The database deletes expired documents once a minute, one collection after the other; servers' clocks differ.
UNORDERED = timedelta(minutes=10)


class Store:
    """Records and logs at a time that the test sets."""

    def __init__(self, database: Database) -> None:
        self.now = NOON
        self.database = database
        self.records = TurnStore(
            database.collection("turns"), retention=KEPT, max_duration=LONGEST, clock=lambda: self.now
        )
        self.chunks = EventLogStore(database.collection("turn_logs"))

    async def write(self, turn_id: str, request_id: str) -> TurnRecord | None:
        """Insert a turn's record and, at the same time, its only chunk; return the record that existed before."""
        earlier = await self.records.begin(record(turn_id, request_id))
        await self.chunks.append(
            [
                Chunk(
                    turn_id=turn_id,
                    tenant_id="tenant",
                    index=0,
                    first=1,
                    events=(TextDelta("hello"),),
                    ended=True,
                    error=None,
                    writer="server",
                    expire_time=self.records.log_expiry(),
                )
            ]
        )
        return earlier

    async def delete_expired(self, collection: str, *, at: datetime) -> None:
        """Delete the expired documents of a collection, as the database's TTL thread does."""
        await self.database.collection(collection).delete_many({"expire_time": {"$lte": at}})


def record(turn_id: str, request_id: str) -> TurnRecord:
    """Return a record."""
    return TurnRecord(
        turn_id=turn_id,
        tenant_id="tenant",
        session_id="talk",
        request_id=request_id,
        fingerprint="same",
        replica_id="server",
    )


@pytest.fixture
async def store(database: Database) -> Store:
    """Return an empty store with its indexes."""
    await database.collection("turns").ensure(TurnStore.INDEXES)
    await database.collection("turn_logs").ensure(EventLogStore.INDEXES)
    return Store(database)


async def test_readable_record_has_complete_log(store: Store) -> None:
    """At any time at which a record is read, no chunk has been deleted, even with a clock ten minutes ahead."""
    await store.write("turn_1", "first")
    for passed in (KEPT, KEPT + LONGEST - timedelta(seconds=1), KEPT + LONGEST, KEPT + LONGEST + UNORDERED):
        store.now = NOON + passed
        await store.delete_expired("turn_logs", at=store.now + UNORDERED)  # and not yet from `turns`
        found = await store.records.find("tenant", "turn_1")
        assert (found is not None) == (passed < KEPT + LONGEST)
        assert found is None or len(await store.chunks.read("tenant", "turn_1", after=-1)) == 1


async def test_request_id_of_an_expired_record_is_free(store: Store) -> None:
    """It starts a new turn, even while the database has not deleted the old record."""
    await store.write("turn_1", "first")
    assert await store.records.of_request("tenant", "first") == record("turn_1", "first")
    store.now = NOON + KEPT + LONGEST

    assert await store.records.of_request("tenant", "first") is None
    assert await store.write("turn_2", "first") is None
    assert await store.records.of_request("tenant", "first") == record("turn_2", "first")
    assert await store.write("turn_3", "first") == record("turn_2", "first")
