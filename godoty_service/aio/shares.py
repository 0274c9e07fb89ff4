"""Shares of a resource: each owner holds a bounded part of it, so that one cannot use up what all need."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Shares:
    """Counts what each owner holds; who wants more than its share waits for its own holders alone."""

    def __init__(self, size: int) -> None:
        """Create it without a holder.

        Args:
            size: How many holders an owner has at the same time.
        """
        self._size = size
        self._owners: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}  # with its holders and those that wait

    def __len__(self) -> int:
        """Return the number of owners that hold something, or wait."""
        return len(self._owners)

    @asynccontextmanager
    async def hold(self, owner: Hashable) -> AsyncIterator[None]:
        """Hold a part of the owner's share while the block runs; wait until one is free."""
        semaphore, users = self._owners.get(owner) or (asyncio.Semaphore(self._size), 0)
        self._owners[owner] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            _, users = self._owners[owner]
            if users > 1:
                self._owners[owner] = (semaphore, users - 1)
            else:
                del self._owners[owner]
