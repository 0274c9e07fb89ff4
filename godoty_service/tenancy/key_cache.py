"""Caches API key documents, and ids that do not exist, each kind within its own bound."""

import time
from collections.abc import Awaitable, Callable

from godoty_service.aio.caching import CoalescedLoads, TtlCache
from godoty_service.mongo.collection import Document

FRESH_FOR = 3.0  # seconds until a revocation applies on every server
MOST_KEYS = 10_000
MOST_UNKNOWN = 10_000  # guessed ids evict each other, never a key


class KeyCache:
    """Key documents by id, evicted least recently used first."""

    def __init__(self, *, tick: Callable[[], float] = time.monotonic) -> None:
        self._known: TtlCache[str, Document] = TtlCache(size=MOST_KEYS, ttl=FRESH_FOR, tick=tick)
        self._unknown: TtlCache[str, None] = TtlCache(size=MOST_UNKNOWN, ttl=FRESH_FOR, tick=tick)
        self._loads: CoalescedLoads[str, Document | None] = CoalescedLoads(self._put, ttl=FRESH_FOR, tick=tick)

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def peek(self, key_id: str) -> tuple[Document | None, bool]:
        """Return the cached document, and whether it is fresh; None and True: the id is unknown.

        The document of an existing key is returned after that, too; it may be out of date.
        """
        document, fresh = self._known.peek(key_id)
        return (document, fresh) if document is not None else self._unknown.peek(key_id)

    async def load(self, key_id: str, read: Callable[[], Awaitable[Document | None]]) -> Document | None:
        """Read and cache what the database has under an id, as `CoalescedLoads.load` does; None: no such key."""
        return await self._loads.load(key_id, read)

    def forget(self, key_id: str) -> None:
        """Remove an id, so that its next use reads the database."""
        self._known.forget(key_id)
        self._unknown.forget(key_id)
        self._loads.forget(key_id)

    def _put(self, key_id: str, document: Document | None, read_at: float) -> None:
        if document is None:
            self._known.forget(key_id)
            self._unknown.put(key_id, None, read_at)
        else:
            self._unknown.forget(key_id)
            self._known.put(key_id, document, read_at)
