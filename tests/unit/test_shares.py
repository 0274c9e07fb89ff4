"""Shares of a resource by owner."""

import asyncio

import pytest

from godoty_service.aio.shares import Shares


async def test_owner_waits_for_its_own_holders_alone() -> None:
    """In the order of their requests; owners that hold nothing take no memory."""
    shares, order, go_on = Shares(1), list[str](), asyncio.Event()

    async def hold(owner: str, name: str) -> None:
        async with shares.hold(owner):
            order.append(name)
            await go_on.wait()

    tasks = [asyncio.create_task(hold(*each)) for each in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"))]
    for _ in range(3):
        await asyncio.sleep(0)
    assert (order, len(shares)) == (["a1", "b1"], 2)

    go_on.set()
    await asyncio.gather(*tasks)
    assert (order, len(shares)) == (["a1", "b1", "a2", "a3"], 0)


async def test_cancelled_wait_leaves_the_share_as_it_was() -> None:
    """Also if it is cancelled at the moment at which a part is free."""
    shares = Shares(1)

    async def hold() -> None:
        async with shares.hold("a"):
            pass

    async with shares.hold("a"):
        waiting = [asyncio.create_task(hold()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await waiting[1]

    assert len(shares) == 0
