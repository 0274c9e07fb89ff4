"""An admission queue admits a bounded number of holders in their order, and no wait lasts longer than its limit."""

import asyncio
from contextlib import suppress

import pytest

from godoty_service.aio import admission
from godoty_service.aio.admission import AdmissionQueue


async def is_free(queue: AdmissionQueue) -> bool:
    """Return whether the queue admits a holder at once; if so, it stays."""
    acquiring = asyncio.create_task(queue.acquire())
    await asyncio.sleep(0)
    acquiring.cancel()
    with suppress(asyncio.CancelledError):
        await acquiring
    return not acquiring.cancelled()


async def test_burst_is_admitted_in_order() -> None:
    """Waiters are admitted when holders release; a second release has no effect; a cancelled waiter blocks no other."""
    queue = AdmissionQueue(3)
    admitted: list[int] = []
    releases = [await queue.acquire() for _ in range(3)]

    async def turn(number: int) -> None:
        release = await queue.acquire()
        admitted.append(number)
        release()

    waiting = [asyncio.create_task(turn(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert admitted == []
    waiting[1].cancel()
    releases[0]()
    releases[0]()
    await asyncio.wait(waiting)

    assert admitted == [0, 2, 3, 4]
    releases[1]()
    for _ in range(2):
        assert await is_free(queue)
    assert not await is_free(queue)


async def test_wait_for_a_hanging_holder_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter goes on without admission after the longest wait, and its release admits no other."""
    monkeypatch.setattr(admission, "_MAX_WAIT", 0.05)
    queue = AdmissionQueue(1)
    release_first = await queue.acquire()
    release_second = await queue.acquire()
    release_second()
    assert not await is_free(queue)
    release_first()
    assert await is_free(queue)


async def test_queue_behind_a_busy_one_admits_one_holder() -> None:
    """While the priority queue is busy, the queue behind it admits one holder at a time, otherwise its limit."""
    first = AdmissionQueue(1)
    behind = AdmissionQueue(3, behind=first)
    release_first = await first.acquire()
    release_behind = await behind.acquire()
    assert not await is_free(behind)

    waiting = [asyncio.create_task(behind.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    release_behind()
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True, False, False]
    release_first()
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True, True, True]


async def test_waiter_cancelled_on_admission_releases() -> None:
    """A waiter that is admitted and cancelled at the same time does not stay a holder."""
    queue = AdmissionQueue(1)
    release = await queue.acquire()
    waiting = asyncio.create_task(queue.acquire())
    await asyncio.sleep(0)
    release()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert await is_free(queue)
