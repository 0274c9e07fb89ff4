"""The short memory of keys: it spares the database, forgets in time, and cannot be filled."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from godoty_service.errors import InvalidApiKey
from godoty_service.tenancy.key_cache import KeyCache
from godoty_service.tenancy.keys import ApiKeys
from godoty_service.tenancy.principal import Scope


class Counting:
    """Stands in for the collection, and counts reads."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.reads = 0

    async def insert_one(self, document: dict[str, Any]) -> None:
        """Keep a key."""
        self.documents[document["_id"]] = document

    async def find_one(self, query: dict[str, Any]) -> dict[str, Any] | None:
        """Read a key."""
        self.reads += 1
        return self.documents.get(query["_id"])


@pytest.fixture
def collection() -> Counting:
    return Counting()


@pytest.fixture
def keys(collection: Counting) -> ApiKeys:
    stand_in: Any = collection
    return ApiKeys(stand_in)


async def test_a_key_in_use_is_read_once_in_a_while(keys: ApiKeys, collection: Counting) -> None:
    """Many calls in a moment cost one read."""
    _, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    for _ in range(20):
        await keys.verify(text)

    assert collection.reads == 1


async def test_a_key_is_read_again_after_seconds(keys: ApiKeys, collection: Counting) -> None:
    """So that a revocation is felt."""
    now = [100.0]
    keys._cache = KeyCache(tick=lambda: now[0])
    _, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    for moment in (100.0, 102.0, 103.5, 105.0, 107.0):
        now[0] = moment
        await keys.verify(text)

    assert collection.reads == 3


async def test_malformed_keys_are_not_looked_up(keys: ApiKeys, collection: Counting) -> None:
    """What cannot be a key costs no read."""
    for text in ("", "gdt_", "gdt_x_y", "sk-or-v1-abc", "gdt_" + "g" * 16 + "_" + "a" * 43, "x" * 9999, "gdt_ü"):
        with pytest.raises(InvalidApiKey):
            await keys.verify(text)

    assert collection.reads == 0


async def test_guessed_keys_neither_fill_the_memory_nor_evict_good_keys(keys: ApiKeys, collection: Counting) -> None:
    """The memory has a bound, whoever tries ids; a key that is in use is not read again for them."""
    _, text = await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE}))
    await keys.verify(text)
    for number in range(25_000):
        with pytest.raises(InvalidApiKey):
            await keys.verify(f"gdt_{number:016x}_{'a' * 43}")
    await keys.verify(text)

    assert len(keys._cache) <= 20_000
    assert collection.reads == 25_001


async def test_keys_in_use_are_bounded_and_the_latest_stay(keys: ApiKeys, collection: Counting) -> None:
    """More good keys than the cache holds: the least recently used of them is read again."""
    texts = [(await keys.issue("tenant", scopes=frozenset({Scope.CONVERSE})))[1] for _ in range(10_001)]
    for text in texts:
        await keys.verify(text)
        await keys.verify(texts[0])

    assert len(keys._cache) == 10_000
    assert collection.reads == 10_001


async def test_lookup_is_asked_for_unproven_keys_only(keys: ApiKeys, collection: Counting) -> None:
    """A key that was good is read again without asking; a wrong secret of its id, and a new key, are not."""
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
