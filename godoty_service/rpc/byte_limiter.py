"""Limits how many bytes are held in memory at the same time by those that announce them: a weighted semaphore."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteLimiter:
    """Lets holders in, first come, first served, while their bytes fit together."""

    def __init__(self, most: int) -> None:
        """Build it.

        Args:
            most: Bytes that all holders may have together; one that has more counts as this many, and is alone.
        """
        self._most = most
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold so many bytes while the block runs; wait for others first if they do not fit."""
        weight = min(size, self._most)
        await self._acquire(weight)
        try:
            yield
        finally:
            self._held -= weight
            self._admit()

    async def _acquire(self, weight: int) -> None:
        if not self._waiting and self._held + weight <= self._most:
            self._held += weight
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((weight, admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # let in at the moment of the cancel
                self._held -= weight
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting:
            weight, admitted = self._waiting[0]
            if admitted.done():  # cancelled
                self._waiting.popleft()
            elif self._held + weight <= self._most:
                self._waiting.popleft()
                self._held += weight
                admitted.set_result(None)
            else:
                return
