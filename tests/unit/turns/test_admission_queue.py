"""The admission queue admits a few at a time in their order, and its wait is bounded."""

import asyncio
from contextlib import suppress

import pytest

from godoty_service.aio import admission
from godoty_service.aio.admission import AdmissionQueue


async def is_free(queue: AdmissionQueue) -> bool:
    """Return whether the queue admits at once; the place is not released."""
    entering = asyncio.create_task(queue.acquire())
    await asyncio.sleep(0)
    entering.cancel()
    with suppress(asyncio.CancelledError):
        await entering
    return not entering.cancelled()


async def test_burst_is_admitted_in_order_a_few_at_a_time() -> None:
    """A later caller waits for a release; a second release has no effect; a cancelled caller delays no other."""
    queue = AdmissionQueue(3)
    admitted: list[int] = []
    leaves = [await queue.acquire() for _ in range(3)]

    async def turn(number: int) -> None:
        leave = await queue.acquire()
        admitted.append(number)
        leave()

    waiting = [asyncio.create_task(turn(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert admitted == []
    assert len(queue) == 3 + 5
    waiting[1].cancel()
    leaves[0]()
    leaves[0]()
    await asyncio.wait(waiting)
    assert len(queue) == 2

    assert admitted == [0, 2, 3, 4]
    leaves[1]()
    for _ in range(2):
        assert await is_free(queue)
    assert not await is_free(queue)


async def test_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that hangs delays the next caller for a bounded time only, and its late release admits no additional one."""
    monkeypatch.setattr(admission, "_MAX_WAIT", 1.0)
    queue = AdmissionQueue(1)
    leave_first = await queue.acquire()
    leave_second = await queue.acquire()
    assert len(queue) == 2
    leave_second()
    leave_second()
    assert len(queue) == 1
    assert not await is_free(queue)
    leave_first()
    assert await is_free(queue)


async def test_queue_behind_busy_queue_admits_one() -> None:
    """While the first queue is in use, the queue behind it admits one at a time; afterwards up to its own limit."""
    first = AdmissionQueue(1)
    behind = AdmissionQueue(3, behind=first)
    leave_first = await first.acquire()
    leave_behind = await behind.acquire()
    assert not await is_free(behind)

    waiting = [asyncio.create_task(behind.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    leave_behind()
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True, False, False]
    leave_first()
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True, True, True]


async def test_cancelled_admission_is_released() -> None:
    """Its place is free again."""
    queue = AdmissionQueue(1)
    leave = await queue.acquire()
    waiting = asyncio.create_task(queue.acquire())
    await asyncio.sleep(0)
    leave()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert await is_free(queue)
