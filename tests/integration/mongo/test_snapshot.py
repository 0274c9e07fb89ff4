"""Reads at a snapshot are consistent; `upsert_each` skips documents in another state."""

import pytest

from godoty_service.errors import StorageError
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection


@pytest.fixture
def database_name(new_database: str) -> str:
    """The name of a new database: the collections of these tests are not the service's."""
    return new_database


@pytest.fixture
async def things(database: Database) -> Collection:
    """A collection that exists."""
    collection = database.collection("things")
    await collection.insert_many([{"_id": number, "size": 1} for number in range(5)])
    return collection


async def test_snapshot_does_not_change(database: Database, things: Collection) -> None:
    """Every kind of read sees the time of the first read, despite later writes; the next snapshot sees them."""
    others = database.collection("others")
    await others.insert_one({"_id": 1})
    async with database.snapshot() as snapshot:
        seen, beside = things.read_at(snapshot), others.read_at(snapshot)
        assert await seen.count({}) == 5
        await things.update_many({}, {"$set": {"size": 2}})
        await things.insert_one({"_id": 9, "size": 3})
        await others.insert_one({"_id": 2})

        assert await seen.find_one({"_id": 9}) is None
        assert [each["size"] for each in await seen.find({})] == [1] * 5
        assert [each["size"] async for each in seen.iterate({})] == [1] * 5
        assert await seen.aggregate([{"$group": {"_id": None, "size": {"$sum": "$size"}}}]) == [
            {"_id": None, "size": 5}
        ]
        assert await beside.count({}) == 1
        assert await things.count({"size": 2}) == 5, "other sessions see the later write"
    async with database.snapshot() as snapshot:
        assert await things.read_at(snapshot).count({}) == 6


async def test_snapshot_has_acknowledged_writes(database: Database, things: Collection) -> None:
    """A write that was acknowledged before is always in it."""
    for number in range(20):
        await things.insert_one({"_id": f"new{number}"})
        async with database.snapshot() as snapshot:
            assert await things.read_at(snapshot).find_one({"_id": f"new{number}"}) is not None


async def test_writes_do_not_use_the_snapshot(database: Database, things: Collection) -> None:
    """Its collections write outside of it, and it does not see these writes."""
    async with database.snapshot() as snapshot:
        seen = things.read_at(snapshot)
        assert await seen.count({}) == 5
        await seen.insert_one({"_id": 7})
        assert await seen.count({}) == 5


async def test_upsert_each_skips_other_states(things: Collection) -> None:
    """A match is updated, an absent document inserted, and a document in another state skipped."""
    await things.upsert_each(
        [
            ({"_id": 0, "size": 1}, {"$set": {"size": 2}}),
            ({"_id": 1, "size": 8}, {"$set": {"size": 9}}),
            ({"_id": "new", "size": 0}, {"$set": {"size": 1}}),
            ({"_id": 2, "size": 1}, {"$set": {"size": 3}}),
        ]
    )

    sizes = {each["_id"]: each["size"] for each in await things.find({})}
    assert sizes == {0: 2, 1: 1, 2: 3, 3: 1, 4: 1, "new": 1}
    with pytest.raises(StorageError):
        await things.upsert_each([({"_id": 3}, {"$nonsense": 1})])
