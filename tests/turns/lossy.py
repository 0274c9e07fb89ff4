"""Breaks the connection to the database at the write that a test names, before or after the write has landed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect

_WRITES = (
    *("insert_one", "insert_many", "update_one", "bulk_write"),
    *("find_one_and_update", "delete_one", "delete_many"),
)
# What turns, takeovers and deletions write to; heartbeats, prices, keys and roll-ups are written beside them.
_COLLECTIONS = ("sessions", "messages", "turns", "turn_logs", "ledger", "budgets", "gates")


class LossyDriver:
    """Fails one write of the driver.

    Attributes:
        seen: How many writes there were of each kind (collection and method) since it was armed.
        failed: The armed write has failed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: Counter[str] = Counter()
        self.failed = False
        self._kind, self._at, self._lands = "", 0, False
        for name in _WRITES:
            monkeypatch.setattr(AsyncCollection, name, self._lossy(getattr(AsyncCollection, name)))

    def arm(self, kind: str = "", at: int = 0, *, lands: bool = False) -> None:
        """Fail a write; by default none.

        Args:
            kind: Its collection and method.
            at: Its number among the writes of its kind, counted from 1.
            lands: The write reaches the database, and only its answer is lost.
        """
        self.seen.clear()
        self.failed = False
        self._kind, self._at, self._lands = kind, at, lands

    def _lossy(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def write(collection: Any, *given: Any, **named: Any) -> Any:
            if not self._strikes(collection.name, original.__name__):
                return await original(collection, *given, **named)
            if self._lands:
                await original(collection, *given, **named)
            raise AutoReconnect("connection closed")

        return write

    def _strikes(self, collection: str, method: str) -> bool:
        kind = f"{collection}.{method}"
        if collection in _COLLECTIONS:
            self.seen[kind] += 1
        if self.failed or kind != self._kind or self.seen[kind] != self._at:
            return False
        self.failed = True
        return True
