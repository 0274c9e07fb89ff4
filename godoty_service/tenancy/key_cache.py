"""Caches API key documents, and ids that do not exist, each kind within its own bound."""

import time
from collections import OrderedDict
from collections.abc import Callable

from godoty_service.mongo.collection import Document

FRESH_FOR = 3.0  # seconds until a revocation applies on every server
MOST_KEYS = 10_000
MOST_UNKNOWN = 10_000  # guessed ids evict each other, never a key


class KeyCache:
    """Key documents by id, evicted least recently used first."""

    def __init__(self, *, tick: Callable[[], float] = time.monotonic) -> None:
        self._tick = tick
        self._known: OrderedDict[str, tuple[float, Document]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def get(self, key_id: str) -> tuple[bool, Document | None]:
        """Return whether the cached result is fresh, and the document; None: the id was unknown.

        The document of an existing key is returned after that, too; it may be out of date.
        """
        now = self._tick()
        if (known := self._known.get(key_id)) is not None:
            self._known.move_to_end(key_id)
            return now - known[0] < FRESH_FOR, known[1]
        unknown_at = self._unknown.get(key_id)
        return unknown_at is not None and now - unknown_at < FRESH_FOR, None

    def put(self, key_id: str, document: Document | None) -> None:
        """Cache what the database has under an id; None: no such key."""
        self.forget(key_id)
        if document is None:
            self._unknown[key_id] = self._tick()
        else:
            self._known[key_id] = (self._tick(), document)
        if len(self._known) > MOST_KEYS:
            self._known.popitem(last=False)
        if len(self._unknown) > MOST_UNKNOWN:
            self._unknown.popitem(last=False)

    def forget(self, key_id: str) -> None:
        """Remove an id, so that its next use reads the database."""
        self._known.pop(key_id, None)
        self._unknown.pop(key_id, None)
