"""Documents that are updated side by side are updated together, and each update is told whether it was the one."""

import asyncio
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from godoty_service.errors import StorageError, StorageUnavailable
from godoty_service.mongo import Collection, Database, Index

MANY = 50


@pytest.fixture
async def things(database: Database) -> Collection:
    """A collection of things that are open, and whose names are unique."""
    collection = database.collection("things")
    await collection.ensure([Index(keys=[("name", 1)], unique=True, where={"name": {"$exists": True}})])
    await collection.insert_many([{"_id": number, "state": "open"} for number in range(MANY)])
    return collection


async def close(things: Collection, number: int, by: str, **more: Any) -> bool:
    """Close a thing."""
    return await things.update_once(
        {"_id": number, "state": "open"},
        {"$set": {"state": "closed", "by": by, **more}},
        done={"_id": number, "by": by},
    )


async def test_many_at_once_are_few_operations(things: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty that come in one step of the loop: one operation."""
    driver = type(things._collection)
    calls = []
    for method in ("bulk_write", "update_one"):
        original = getattr(driver, method)

        def counted(*given: Any, original: Any = original, **named: Any) -> Any:
            calls.append(original.__name__)
            return original(*given, **named)

        monkeypatch.setattr(driver, method, counted)
    assert await asyncio.gather(*(close(things, number, "me") for number in range(MANY))) == [True] * MANY

    assert len(calls) == 1
    assert await things.count({"state": "closed", "by": "me"}) == MANY


async def test_each_is_told_whether_it_was_the_one(things: Collection) -> None:
    """Somebody else was there before, or nobody ever was; two who close the same: one of them did."""
    await things.update_many({"_id": {"$in": [3, 4]}}, {"$set": {"state": "closed", "by": "them"}})
    numbers = [*range(8), MANY]
    told = await asyncio.gather(*(close(things, number, "me") for number in numbers), close(things, 5, "you"))

    assert told[:5] == [True, True, True, False, False]
    assert told[6:9] == [True, True, False]
    assert sorted([told[5], told[9]]) == [False, True]
    assert await things.count({"by": "them"}) == 2
    assert await things.count({"state": "closed"}) == 8


async def test_one_that_cannot_be_made_takes_nobody_with_it(things: Collection) -> None:
    """A name that is taken, a value that no document can hold, a document that grows too large."""
    await things.insert_one({"_id": "other", "name": "taken"})
    large = "x" * (17 * 1024 * 1024)
    told = await asyncio.gather(
        close(things, 0, "me"),
        close(things, 1, "me", name="taken"),
        close(things, 2, "me", name=2**64),
        close(things, 3, "me", name=large),
        close(things, 4, "me"),
        return_exceptions=True,
    )

    assert [told[0], told[4]] == [True, True]
    assert all(isinstance(each, StorageError) for each in told[1:4])
    assert sorted([each["_id"] for each in await things.find({"state": "closed"})]) == [0, 4]


async def test_where_the_database_is_away_nobody_is_told_anything(
    things: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not known then who was updated: it is not tried again behind anybody's back."""
    asked = 0

    async def gone(*_: Any, **__: Any) -> None:
        nonlocal asked
        asked += 1
        raise AutoReconnect("gone")

    driver = things._updates._collection
    for method in ("bulk_write", "update_one"):
        monkeypatch.setattr(type(driver), method, gone)
    told = await asyncio.gather(*(close(things, number, "me") for number in range(5)), return_exceptions=True)

    assert [type(each) for each in told] == [StorageUnavailable] * 5
    assert asked == 1
