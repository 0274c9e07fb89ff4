"""Concurrent updates are batched, and each one returns whether it matched."""

import asyncio
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from godoty_service.errors import StorageError, StorageUnavailable
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection, Index

MANY = 50


@pytest.fixture
def database_name(new_database: str) -> str:
    """The name of a new database: the collections of these tests are not the service's."""
    return new_database


@pytest.fixture
async def things(database: Database) -> Collection:
    """A collection of open things with unique names."""
    collection = database.collection("things")
    await collection.ensure([Index(keys=[("name", 1)], unique=True, where={"name": {"$exists": True}})])
    await collection.insert_many([{"_id": number, "state": "open"} for number in range(MANY)])
    return collection


async def close(things: Collection, number: int, by: str, **more: Any) -> bool:
    """Close a thing."""
    return await things.update_once(
        {"_id": number, "state": "open"},
        {"$set": {"state": "closed", "by": by, **more}},
        applied_filter={"_id": number, "by": by},
    )


async def test_concurrent_updates_share_an_operation(things: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty updates in one step of the event loop take one operation."""
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


async def test_each_update_returns_whether_it_matched(things: Collection) -> None:
    """An already updated and an absent document do not match; of two updates of the same document, one does."""
    await things.update_many({"_id": {"$in": [3, 4]}}, {"$set": {"state": "closed", "by": "them"}})
    numbers = [*range(8), MANY]
    results = await asyncio.gather(*(close(things, number, "me") for number in numbers), close(things, 5, "you"))

    assert results[:5] == [True, True, True, False, False]
    assert results[6:9] == [True, True, False]
    assert sorted([results[5], results[9]]) == [False, True]
    assert await things.count({"by": "them"}) == 2
    assert await things.count({"state": "closed"}) == 8


async def test_refused_update_does_not_fail_the_others(things: Collection) -> None:
    """A duplicate name, an unencodable value and a document that grows too large fail alone."""
    await things.insert_one({"_id": "other", "name": "taken"})
    large = "x" * (17 * 1024 * 1024)
    results = await asyncio.gather(
        close(things, 0, "me"),
        close(things, 1, "me", name="taken"),
        close(things, 2, "me", name=2**64),
        close(things, 3, "me", name=large),
        close(things, 4, "me"),
        return_exceptions=True,
    )

    assert [results[0], results[4]] == [True, True]
    assert all(isinstance(each, StorageError) for each in results[1:4])
    assert sorted([each["_id"] for each in await things.find({"state": "closed"})]) == [0, 4]


async def test_unavailable_database_fails_all_updates(things: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known which updates were applied, so none is retried."""
    asked = 0

    async def gone(*_: Any, **__: Any) -> None:
        nonlocal asked
        asked += 1
        raise AutoReconnect("gone")

    driver = things._updates._collection
    for method in ("bulk_write", "update_one"):
        monkeypatch.setattr(type(driver), method, gone)
    results = await asyncio.gather(*(close(things, number, "me") for number in range(5)), return_exceptions=True)

    assert [type(each) for each in results] == [StorageUnavailable] * 5
    assert asked == 1
