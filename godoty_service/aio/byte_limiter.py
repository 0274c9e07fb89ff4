"""A weighted semaphore: limits how many bytes are in memory at the same time, by their announced size."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteLimiter:
    """Admits holders while their bytes fit together, first come, first served."""

    def __init__(self, limit: int) -> None:
        """Create a limiter without holders.

        Args:
            limit: The most bytes of all holders together; a larger holder counts as this many, and is admitted alone.
        """
        self._limit = limit
        self._in_use = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes while the block runs; wait first if they do not fit."""
        weight = min(size, self._limit)
        await self._acquire(weight)
        try:
            yield
        finally:
            self._in_use -= weight
            self._admit()

    async def _acquire(self, weight: int) -> None:
        if not self._waiting and self._in_use + weight <= self._limit:
            self._in_use += weight
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((weight, admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # admitted at the moment of the cancellation
                self._in_use -= weight
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting:
            weight, admitted = self._waiting[0]
            if admitted.done():  # cancelled
                self._waiting.popleft()
            elif self._in_use + weight <= self._limit:
                self._waiting.popleft()
                self._in_use += weight
                admitted.set_result(None)
            else:
                return
