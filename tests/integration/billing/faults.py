"""Writes that fail: before they are done, or after."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from godoty_service.errors import StorageUnavailable
from godoty_service.mongo.collection import Collection


class FaultyCollection(Collection):
    """A collection whose writes can be made to fail: before they are done, or after."""

    def __init__(self, real: Collection, faults: "FaultInjector") -> None:
        super().__init__(real._collection, real._session)
        self._trouble = faults

    async def update_one(self, *args: Any, **others: Any) -> bool:
        """Update, or not."""
        return bool(await self._trouble.write(lambda: Collection.update_one(self, *args, **others)))

    async def update_many(self, *args: Any, **others: Any) -> int:
        """Update, or not."""
        return int(await self._trouble.write(lambda: Collection.update_many(self, *args, **others)))

    async def upsert_each(self, *args: Any, **others: Any) -> None:
        """Write, or not."""
        await self._trouble.write(lambda: Collection.upsert_each(self, *args, **others))


@dataclass
class FaultInjector:
    """Makes one write fail.

    Attributes:
        writes: The number of writes that succeed before it; None: all.
        done: Whether the failing write reaches the database all the same.
    """

    writes: int | None = None
    done: bool = False

    async def write(self, write: Callable[[], Awaitable[Any]]) -> Any:
        """Do a write, or not."""
        if self.writes is None:
            return await write()
        self.writes -= 1
        if self.writes >= 0:
            return await write()
        self.writes = None
        if self.done:
            await write()
        raise StorageUnavailable("a test cut the line")
