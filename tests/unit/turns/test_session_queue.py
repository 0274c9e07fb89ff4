"""The session queue: one holder, a line in order of arrival, and immediate refusal of turns that do not wait."""

import asyncio
from contextlib import ExitStack

import pytest

from godoty_service.errors import SessionBusy
from godoty_service.sessions.queue import SessionQueue


async def test_session_that_is_handed_over_is_busy() -> None:
    """Between the end of one holder and the first step of the next, a caller that does not wait is refused."""
    queue = SessionQueue()
    with ExitStack() as stack:
        first = ExitStack()
        first.enter_context(queue.join("tenant", "talk", wait=False))
        position = stack.enter_context(queue.join("tenant", "talk", wait=True))
        waiting = asyncio.ensure_future(position)
        await asyncio.sleep(0)
        assert not waiting.done()
        first.close()
        with pytest.raises(SessionBusy):
            stack.enter_context(queue.join("tenant", "talk", wait=False))
        await waiting


async def test_cancelled_turn_leaves_line() -> None:
    """A turn that leaves the line, at its head or in its middle, does not block the others."""
    queue = SessionQueue()
    order: list[int] = []

    async def use(number: int) -> None:
        with queue.join("tenant", "talk", wait=True) as position:
            await position
            order.append(number)
            await asyncio.sleep(0.01)

    users = [asyncio.create_task(use(number)) for number in range(6)]
    await asyncio.sleep(0)
    for number in (0, 3):
        users[number].cancel()
    await asyncio.gather(*users, return_exceptions=True)

    assert order == [0, 1, 2, 4, 5]
    with queue.join("tenant", "talk", wait=False) as position:  # the line is empty
        await position


async def test_tenants_have_separate_lines() -> None:
    """The same session id of two tenants has two lines."""
    queue = SessionQueue()
    with queue.join("one", "talk", wait=False) as first, queue.join("two", "talk", wait=False) as second:
        await first
        await second
