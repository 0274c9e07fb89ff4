"""A weighted semaphore: limits how many bytes are in memory at the same time, by their announced size."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_SHARE: Final = 2  # one owner's holders have at most one part in this many of the bytes


class ByteLimiter:
    """Admits holders while their bytes fit together, first come, first served; an owner gets at most half of them.

    So an owner whose holders stay for long, as their callers read slowly, delays no other's.
    """

    def __init__(self, limit: int) -> None:
        """Create a limiter without holders.

        Args:
            limit: The most bytes of all holders together; one that is larger than an owner's half counts as that.
        """
        self._limit = limit
        self._in_use: Counter[str] = Counter()  # by owner
        self._waiting: deque[tuple[str, int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int, *, owner: str) -> AsyncIterator[None]:
        """Hold `size` bytes while the block runs; wait first if they do not fit."""
        weight = min(size, self._limit // _SHARE)
        await self._acquire(owner, weight)
        try:
            yield
        finally:
            self._release(owner, weight)

    async def _acquire(self, owner: str, weight: int) -> None:
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, weight, admitted))
        self._admit()
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # admitted at the moment of the cancellation
                self._release(owner, weight)
            else:
                self._admit()
            raise

    def _release(self, owner: str, weight: int) -> None:
        self._in_use[owner] -= weight
        if not self._in_use[owner]:
            del self._in_use[owner]
        self._admit()

    def _admit(self) -> None:
        """Admit those who fit, in order; who waits for others of the same owner is passed by."""
        passed: list[tuple[str, int, asyncio.Future[None]]] = []
        while self._waiting:
            owner, weight, admitted = self._waiting.popleft()
            if admitted.done():  # cancelled
                continue
            if self._in_use[owner] + weight > self._limit // _SHARE:
                passed.append((owner, weight, admitted))
            elif self._in_use.total() + weight <= self._limit:
                self._in_use[owner] += weight
                admitted.set_result(None)
            else:
                passed.append((owner, weight, admitted))
                break
        self._waiting.extendleft(reversed(passed))
