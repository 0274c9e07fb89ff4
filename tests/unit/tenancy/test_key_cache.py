"""The cache of API keys: it saves database reads, expires in time, and is bounded."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from godoty_service.errors import InvalidApiKey
from godoty_service.tenancy.api_keys import ApiKeys
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.key_cache import KeyCache


class Counting:
    """A stand-in for the collection that counts reads."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.reads = 0
        self.delay = 0.0  # seconds of a read
        self.failures = 0  # reads that fail first

    async def insert_one(self, document: dict[str, Any]) -> None:
        """Insert a key."""
        self.documents[document["_id"]] = document

    async def aggregate(self, pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Read a key, whose tenant has no state."""
        self.reads += 1
        await asyncio.sleep(self.delay)
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        found = self.documents.get(pipeline[0]["$match"]["_id"])
        return [] if found is None else [found]


@pytest.fixture
def collection() -> Counting:
    return Counting()


@pytest.fixture
def keys(collection: Counting) -> ApiKeys:
    stand_in: Any = collection
    keys = ApiKeys(stand_in)
    keys._cache = KeyCache(tick=lambda: 100.0)  # no time passes
    return keys


async def test_key_in_use_is_read_once_per_interval(keys: ApiKeys, collection: Counting) -> None:
    """Many calls at once cost one read."""
    _, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    for _ in range(20):
        await keys.verify(text)

    assert collection.reads == 1


async def test_burst_with_a_new_key_is_one_lookup(keys: ApiKeys, collection: Counting) -> None:
    """Calls that start together share one read, and one lookup counts against their source."""
    _, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    collection.delay, entered = 0.01, []

    @contextmanager
    def lookup() -> Iterator[None]:
        entered.append(1)
        yield

    found = await asyncio.gather(*(keys.verify(text, lookup()) for _ in range(50)))

    assert {each.tenant_id for each in found} == {"tenant"}
    assert (collection.reads, len(entered)) == (1, 1)


async def test_failed_read_of_a_burst_is_repeated_by_the_others(keys: ApiKeys, collection: Counting) -> None:
    """A call whose shared read failed reads the key itself."""
    _, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    collection.delay, collection.failures = 0.01, 1

    found = await asyncio.gather(*(keys.verify(text) for _ in range(5)), return_exceptions=True)

    assert [type(each).__name__ for each in found] == ["ConnectionError", *["Principal"] * 4]


async def test_key_is_read_again_after_three_seconds(keys: ApiKeys, collection: Counting) -> None:
    """So a revocation takes effect."""
    now = [100.0]
    keys._cache = KeyCache(tick=lambda: now[0])
    _, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    for moment in (100.0, 102.0, 103.5, 105.0, 107.0):
        now[0] = moment
        await keys.verify(text)

    assert collection.reads == 3


async def test_malformed_keys_are_not_looked_up(keys: ApiKeys, collection: Counting) -> None:
    """A malformed key costs no read."""
    for text in ("", "gdt_", "gdt_x_y", "sk-or-v1-abc", "gdt_" + "g" * 16 + "_" + "a" * 43, "x" * 9999, "gdt_ü"):
        with pytest.raises(InvalidApiKey):
            await keys.verify(text)

    assert collection.reads == 0


async def test_guessed_keys_neither_fill_the_cache_nor_evict_valid_keys(keys: ApiKeys, collection: Counting) -> None:
    """Unknown ids have a bound of their own; a key in use is not read again because of them."""
    _, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    await keys.verify(text)
    for number in range(25_000):
        with pytest.raises(InvalidApiKey):
            await keys.verify(f"gdt_{number:016x}_{'a' * 43}")
    await keys.verify(text)

    assert len(keys._cache) <= 20_000
    assert collection.reads == 25_001


async def test_least_recently_used_key_is_evicted(keys: ApiKeys, collection: Counting) -> None:
    """With more valid keys than the cache holds, the least recently used one is read again."""
    texts = [(await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE})))[1] for _ in range(10_001)]
    for text in texts:
        await keys.verify(text)
        await keys.verify(texts[0])

    assert len(keys._cache) == 10_000
    assert collection.reads == 10_001


async def test_only_unproven_keys_enter_the_lookup(keys: ApiKeys, collection: Counting) -> None:
    """A key that was valid is read again without it; a wrong secret of its id, and a new key, are not."""
    now = [100.0]
    keys._cache = KeyCache(tick=lambda: now[0])
    key, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    asked: list[str] = []

    @contextmanager
    def lookup() -> Iterator[None]:
        asked.append("asked")
        yield

    await keys.verify(text, lookup())
    assert len(asked) == 1
    now[0] += 10
    await keys.verify(text, lookup())
    assert len(asked) == 1
    now[0] += 10
    with pytest.raises(InvalidApiKey):
        await keys.verify(f"gdt_{key.key_id}_{'a' * 43}", lookup())
    assert len(asked) == 2


async def test_key_that_is_revoked_while_it_is_read_is_not_cached(keys: ApiKeys, collection: Counting) -> None:
    """The read may be older than the revocation: the next call reads the key again."""
    key, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    collection.delay = 0.01
    call = asyncio.create_task(keys.verify(text))
    while not collection.reads:
        await asyncio.sleep(0)
    keys._cache.forget(key.key_id)
    await call
    await keys.verify(text)

    assert collection.reads == 2
