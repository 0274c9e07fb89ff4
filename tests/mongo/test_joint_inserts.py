"""Documents that are inserted side by side leave together, and each keeps its own fate."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from godoty_service.errors import DuplicateKey, StorageError
from godoty_service.mongo import Collection, Database, Index
from tests.service.surroundings import Surroundings


@pytest.fixture
async def things(database: Database) -> Collection:
    """A collection whose `name` is unique."""
    collection = database.collection("things")
    await collection.ensure([Index(keys=[("name", 1)], unique=True)])
    return collection


async def _insert(things: Collection, *documents: dict[str, Any]) -> list[BaseException | None]:
    return await asyncio.gather(*(things.insert_one(each) for each in documents), return_exceptions=True)


async def test_many_at_once_are_few_operations(things: Collection, surroundings: Surroundings) -> None:
    """All are there as they were; fifty that come in one step of the loop take one operation."""
    money = Decimal128(Decimal("0.0000000000000000000000000000000001"))
    database = surroundings.mongo[things._collection.database.name]
    before = _operations(database)
    documents = [{"_id": number, "name": str(number), "money": money} for number in range(50)]
    assert await _insert(things, *documents) == [None] * 50

    assert await things.find({}, sort=[("_id", 1)]) == documents
    assert _operations(database) - before == 1


async def test_one_that_is_refused_takes_nobody_with_it(things: Collection) -> None:
    """A second of its name, one that no document can hold, one that is too large: the others are there."""
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


async def test_one_that_gives_up_is_written_all_the_same(things: Collection) -> None:
    """As with any operation that has begun."""
    inserting = [asyncio.create_task(things.insert_one({"_id": number, "name": str(number)})) for number in range(3)]
    await asyncio.sleep(0)
    inserting[2].cancel()
    await asyncio.wait(inserting)
    await things.insert_one({"_id": 3, "name": "3"})

    assert await things.count({}) == 4


def _operations(database: Any) -> int:
    (found,) = database["things"].aggregate([{"$collStats": {"latencyStats": {}}}])
    return int(found["latencyStats"]["writes"]["ops"])
