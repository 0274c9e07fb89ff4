"""Breaks the database connection at a given write, before or after the write is applied."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import pytest
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect, PyMongoError

_LATE = 0.15  # seconds
_WRITES = (
    *("insert_one", "insert_many", "update_one", "update_many", "bulk_write"),
    *("find_one_and_update", "delete_one", "delete_many"),
)
# Collections that turns, takeovers and deletions write to; heartbeats, prices, keys and roll-ups are independent.
_BESIDE = ("ledger.update_many",)  # written by reconciliation
_COLLECTIONS = ("sessions", "messages", "turns", "turn_logs", "ledger", "budgets", "turn_limits")


Loss = Literal["write", "answer", "late"]


class LossyDriver:
    """Fails one write of the driver.

    Attributes:
        seen: The number of writes of each kind (collection and method) since it was armed.
        failed: The armed write has failed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: Counter[str] = Counter()
        self.failed = False
        self._kind, self._at = "", 0
        self._loss: Loss = "write"
        self._late: set[asyncio.Task[Any]] = set()
        for name in _WRITES:
            monkeypatch.setattr(AsyncCollection, name, self._lossy(getattr(AsyncCollection, name)))

    def arm(self, kind: str = "", at: int = 0, *, loss: Loss = "write") -> None:
        """Fail a write; by default none.

        Args:
            kind: Its collection and method.
            at: Its number among the writes of its kind, from 1.
            loss: The loss: of the write, of its answer, or a delay until after its caller has given up.
        """
        self.seen.clear()
        self.failed = False
        self._kind, self._at, self._loss = kind, at, loss

    async def wait_applied(self) -> bool:
        """Wait until all late writes have been applied; return whether there were any."""
        late, self._late = self._late, set()
        if late:
            await asyncio.wait(late)
        return bool(late)

    def _lossy(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def write(collection: Any, *given: Any, **named: Any) -> Any:
            if not self._strikes(collection.name, original.__name__):
                return await original(collection, *given, **named)
            if self._loss == "answer":
                await original(collection, *given, **named)
            elif self._loss == "late":
                self._late.add(asyncio.create_task(_later(original, collection, *given, **named)))
            raise AutoReconnect("connection closed")

        return write

    def _strikes(self, collection: str, method: str) -> bool:
        kind = f"{collection}.{method}"
        if collection in _COLLECTIONS and kind not in _BESIDE:
            self.seen[kind] += 1
        if self.failed or kind != self._kind or self.seen[kind] != self._at:
            return False
        self.failed = True
        return True


async def _later(write: Callable[..., Any], *given: Any, **named: Any) -> None:
    await asyncio.sleep(_LATE)
    with suppress(PyMongoError):
        await write(*given, **named)
