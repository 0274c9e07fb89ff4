"""Bytes in memory: first come, first served, and no owner has more than half of them."""

import asyncio
from contextlib import AsyncExitStack

from godoty_service.aio.byte_limiter import ByteLimiter


class Holder:
    """Holds bytes until it is released."""

    def __init__(self, limiter: ByteLimiter, size: int, owner: str) -> None:
        self._stack = AsyncExitStack()
        self.task = asyncio.ensure_future(self._stack.enter_async_context(limiter.hold(size, owner=owner)))

    async def holds(self) -> bool:
        """Return whether it was admitted."""
        for _ in range(3):
            await asyncio.sleep(0)
        return self.task.done()

    async def release(self) -> None:
        """Release its bytes."""
        await self._stack.aclose()


async def test_owner_that_has_its_half_delays_no_other() -> None:
    """Its own others wait, however large they are; another owner's are admitted before them."""
    limiter = ByteLimiter(100)
    first, second = Holder(limiter, 1_000, "slow"), Holder(limiter, 10, "slow")
    assert [await first.holds(), await second.holds()] == [True, False]
    other = Holder(limiter, 50, "other")
    assert await other.holds()
    await first.release()
    assert await second.holds()


async def test_those_who_wait_for_all_are_served_in_order() -> None:
    """A small holder does not overtake a large one of a third owner, which would never be admitted."""
    limiter = ByteLimiter(100)
    holders = [Holder(limiter, 40, "a"), Holder(limiter, 40, "b")]
    large, small = Holder(limiter, 50, "c"), Holder(limiter, 10, "d")
    assert [await each.holds() for each in (*holders, large, small)] == [True, True, False, False]
    await holders[0].release()
    assert [await large.holds(), await small.holds()] == [True, True]


async def test_cancelled_holder_leaves_its_place() -> None:
    """Also if it was admitted at that moment."""
    limiter = ByteLimiter(100)
    first, waiting, last = (Holder(limiter, 50, "a") for _ in range(3))
    assert [await first.holds(), await waiting.holds()] == [True, False]
    await first.release()
    waiting.task.cancel()
    assert await last.holds()
    await last.release()
    assert not limiter._in_use
    assert not limiter._waiting
