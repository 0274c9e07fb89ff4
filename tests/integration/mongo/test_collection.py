"""The operations of a collection have the same results and errors with both drivers."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from bson.decimal128 import Decimal128

from godoty_service.errors import DuplicateKey, StorageError, StorageUnavailable
from godoty_service.mongo.client import Database, Driver, open_database
from godoty_service.mongo.collection import Collection, Index
from openrouter_sandbox.mongodb.mongod import free_port


@pytest.fixture
def database_name(new_database: str) -> str:
    """The name of a new database: the collections of these tests are not the service's."""
    return new_database


@pytest.fixture
async def things(database: Database) -> Collection:
    """A collection whose `name` is unique."""
    collection = database.collection("things")
    await collection.ensure([Index(keys=[("name", 1)], unique=True), Index(keys=[("size", 1)], where={"size": 1})])
    return collection


async def test_stored_documents_read_back_equal(things: Collection) -> None:
    """Documents read back equal, with times in UTC and exact money."""
    time = datetime(2026, 8, 22, 12, 0, 0, 123_000, tzinfo=UTC)
    money = Decimal128(Decimal("0.0000000000000000000000000000000001"))
    document = {"_id": "a", "name": "a", "time": time, "money": money}
    await things.insert_one(dict(document))

    assert await things.find_one({"_id": "a"}) == document
    assert await things.find_one({"_id": "b"}) is None
    assert await things.find_one({"_id": "a"}, fields={"name": 1}) == {"_id": "a", "name": "a"}


async def test_documents_are_found_sorted_limited_and_counted(things: Collection) -> None:
    """`find`, `iterate` and `count` agree; a limit of 0 is none."""
    await things.insert_many([{"_id": number, "name": str(number), "size": number % 2} for number in range(25)])

    found = await things.find({"size": 1}, sort=[("_id", -1)], limit=3)
    assert [each["_id"] for each in found] == [23, 21, 19]
    assert len(await things.find({})) == await things.count({}) == 25
    assert [each["_id"] async for each in things.iterate({"size": 0}, sort=[("_id", 1)])] == list(range(0, 25, 2))
    grouped = await things.aggregate([{"$group": {"_id": "$size", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}])
    assert grouped == [{"_id": 0, "n": 13}, {"_id": 1, "n": 12}]


async def test_iteration_may_stop_early(things: Collection) -> None:
    """An iteration that stops early closes its cursor, and the next one starts at the beginning."""
    await things.insert_many([{"_id": number, "name": str(number)} for number in range(2500)])
    reading = things.iterate({}, sort=[("_id", 1)])
    assert (await anext(reading))["_id"] == 0
    await reading.aclose()

    assert sum([1 async for _ in things.iterate({})]) == 2500


async def test_updates_return_their_matches(things: Collection) -> None:
    """Whether there was a match, how many, or the document before or after."""
    await things.insert_many([{"_id": number, "name": str(number), "size": 0} for number in range(3)])

    assert await things.update_one({"_id": 0}, {"$set": {"size": 5}})
    assert await things.update_one({"_id": 0}, {"$set": {"size": 5}}), "matched, although nothing changed"
    assert not await things.update_one({"_id": 9}, {"$set": {"size": 5}})
    assert await things.update_many({"size": 0}, [{"$set": {"size": {"$add": ["$size", 7]}}}]) == 2
    before = await things.find_one_and_update({"_id": 1}, {"$set": {"size": 8}}, before=True)
    after = await things.find_one_and_update({"_id": 1}, {"$set": {"size": 9}})
    made = await things.find_one_and_update({"_id": "new"}, {"$set": {"name": "new"}}, upsert=True)
    assert before is not None
    assert after is not None
    assert (before["size"], after["size"], made) == (7, 9, {"_id": "new", "name": "new"})
    assert await things.find_one_and_update({"_id": "none"}, {"$set": {"size": 1}}) is None
    last = await things.find_one_and_update({"size": {"$gt": 0}}, {"$set": {"last": 1}}, sort=[("size", -1)])
    assert last is not None
    assert last["_id"] == 1


async def test_deletions_return_their_matches(things: Collection) -> None:
    """Whether one was deleted, or how many."""
    await things.insert_many([{"_id": number, "name": str(number)} for number in range(5)])

    assert await things.delete_one({"_id": 0})
    assert not await things.delete_one({"_id": 0})
    assert await things.delete_many({}) == 4
    assert await things.delete_many({}) == 0


async def test_every_duplicate_raises_duplicate_key(things: Collection) -> None:
    """A unique index refuses inserts, bulk inserts, updates and upserts with the same error."""
    await things.insert_many([{"_id": "a", "name": "a"}, {"_id": "b", "name": "b"}])
    writes: list[Callable[[], Awaitable[object]]] = [
        lambda: things.insert_one({"_id": "c", "name": "a"}),
        lambda: things.insert_one({"_id": "a", "name": "c"}),
        lambda: things.insert_many([{"name": "x"}, {"name": "a"}, {"name": "y"}]),
        lambda: things.update_one({"_id": "b"}, {"$set": {"name": "a"}}),
        lambda: things.update_one({"_id": "b", "name": "z"}, {"$set": {"name": "y"}}, upsert=True),
        lambda: things.find_one_and_update({"_id": "b"}, {"$set": {"name": "a"}}),
        lambda: things.find_one_and_update({"name": "a", "size": 1}, {"$set": {"_x": 1}}, upsert=True),
    ]

    for write in writes:
        with pytest.raises(DuplicateKey):
            await write()
    assert sorted(each["name"] for each in await things.find({})) == ["a", "b", "x"], "in order, until the refused one"


async def test_refused_operation_raises_storage_error(things: Collection) -> None:
    """An invalid operation raises a StorageError without the server's text."""
    attempts: list[Awaitable[object]] = [
        things.update_one({}, {"$nonsense": {"secret": 1}}, upsert=True),
        things.find({"$where": {"secret": 1}}),
        things.aggregate([{"$nonsense": "secret"}]),
        things.find_one({"$nonsense": "secret"}),
    ]
    for attempt in attempts:
        with pytest.raises(StorageError) as caught:
            await attempt
        assert not isinstance(caught.value, StorageUnavailable)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [10**20, object(), "\ud800"], ids=["too large", "no type of its", "half a character"])
async def test_unencodable_value_raises_storage_error(things: Collection, value: object) -> None:
    """Nothing is sent, and no retry helps: it is not StorageUnavailable."""
    await things.insert_one({"_id": "a", "name": "a"})
    attempts: list[Awaitable[object]] = [
        things.insert_one({"name": value}),
        things.update_one({"_id": "a"}, {"$set": {"name": value}}),
        things.find_one_and_update({"name": value}, {"$set": {"size": 1}}),
        things.find({"name": value}),
    ]
    for attempt in attempts:
        with pytest.raises(StorageError) as caught:
            await attempt
        assert not isinstance(caught.value, StorageUnavailable)
    assert await things.find({}) == [{"_id": "a", "name": "a"}]


async def test_indexes_are_created_once(things: Collection, database: Database) -> None:
    """Creating existing indexes, as each server does at its start, changes nothing."""
    wanted = [Index(keys=[("name", 1)], unique=True), Index(keys=[("time", 1)], expire_after=60)]
    await asyncio.gather(*(things.ensure(wanted) for _ in range(3)))
    await database.collection("things").ensure(wanted)

    with pytest.raises(DuplicateKey):
        await things.insert_many([{"name": "a"}, {"name": "a"}])


async def test_absent_database_is_unavailable(driver: Driver) -> None:
    """Without a server on the port, an operation raises StorageUnavailable within its timeout."""
    database = open_database(
        uri=f"mongodb://127.0.0.1:{free_port()}", name="godoty_test_none", driver=driver, timeout=0.1
    )
    things = database.collection("things")
    begun = asyncio.get_running_loop().time()
    for attempt in (things.find({}), things.insert_one({})):
        with pytest.raises(StorageUnavailable):
            await attempt
    assert asyncio.get_running_loop().time() - begun < 20
    await database.close()


async def test_database_time_is_utc(database: Database) -> None:
    """`now` is the database's time in UTC, for all servers."""
    await database.ping()

    before = datetime.now(UTC)
    now = await database.now()

    assert before - timedelta(seconds=1) <= now <= datetime.now(UTC) + timedelta(seconds=1)


async def test_writes_are_acknowledged_by_a_majority_and_journaled(database: Database) -> None:
    """Neither an acknowledged write nor a read can be rolled back."""
    collection = database.collection("things")._collection

    assert collection.write_concern.document == {"w": "majority", "j": True}
    assert collection.read_concern.document == {"level": "majority"}
