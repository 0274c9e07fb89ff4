"""Concurrent inserts are batched, and each has its own result."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from godoty_service.errors import DuplicateKey, StorageError
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection, Index
from tests.support.backends import Backends


@pytest.fixture
def database_name(new_database: str) -> str:
    """The name of a new database: the collections of these tests are not the service's."""
    return new_database


@pytest.fixture
async def things(database: Database) -> Collection:
    """A collection whose `name` is unique."""
    collection = database.collection("things")
    await collection.ensure([Index(keys=[("name", 1)], unique=True)])
    return collection


async def _insert(things: Collection, *documents: dict[str, Any]) -> list[BaseException | None]:
    return await asyncio.gather(*(things.insert_one(each) for each in documents), return_exceptions=True)


async def test_concurrent_inserts_share_an_operation(things: Collection, backends: Backends) -> None:
    """Fifty inserts in one step of the event loop take one operation, and all are stored unchanged."""
    money = Decimal128(Decimal("0.0000000000000000000000000000000001"))
    database = backends.mongo[things._collection.database.name]
    before = _operations(database)
    documents = [{"_id": number, "name": str(number), "money": money} for number in range(50)]
    assert await _insert(things, *documents) == [None] * 50

    assert await things.find({}, sort=[("_id", 1)]) == documents
    assert _operations(database) - before == 1


async def test_refused_insert_does_not_fail_the_others(things: Collection) -> None:
    """A duplicate, an unencodable and a too large document fail alone; the others are stored."""
    await things.insert_one({"_id": 0, "name": "taken"})
    found = await _insert(
        things,
        {"_id": 1, "name": "first"},
        {"_id": 2, "name": "taken"},
        {"_id": 3, "name": 2**64},
        {"_id": 4, "name": "x" * (17 * 1024 * 1024)},
        {"_id": 5, "name": "last"},
        {"_id": 5, "name": "its id is taken"},
    )

    refused = [type(None), DuplicateKey, StorageError, StorageError, type(None), DuplicateKey]
    assert [type(each) for each in found] == refused
    assert {each["_id"] for each in await things.find({})} == {0, 1, 5}


async def test_cancelled_insert_is_stored(things: Collection) -> None:
    """Cancelling the wait does not withdraw the document."""
    inserting = [asyncio.create_task(things.insert_one({"_id": number, "name": str(number)})) for number in range(3)]
    await asyncio.sleep(0)
    inserting[2].cancel()
    await asyncio.wait(inserting)
    await things.insert_one({"_id": 3, "name": "3"})

    assert await things.count({}) == 4


def _operations(database: Any) -> int:
    (found,) = database["things"].aggregate([{"$collStats": {"latencyStats": {}}}])
    return int(found["latencyStats"]["writes"]["ops"])
