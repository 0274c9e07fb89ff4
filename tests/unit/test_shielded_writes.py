"""Writes that finish although their waiter was cancelled."""

import asyncio
import gc
from typing import Any

import pytest

from godoty_service.aio.shielded_writes import ShieldedWrites


async def test_write_that_fails_after_its_waiter_was_cancelled_is_no_unretrieved_error() -> None:
    """The turn's task has ended: an error in the log would name nothing that can be acted on."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    writes, may_fail = ShieldedWrites(), asyncio.Event()

    async def write() -> None:
        await may_fail.wait()
        raise RuntimeError("the database is away")

    waiting = asyncio.create_task(writes.shielded(write()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_fail.set()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()

    assert errors == []


async def test_cancelling_the_wait_for_all_writes_cancels_none() -> None:
    """A write finishes whichever of its waiters leaves."""
    writes, may_end = ShieldedWrites(), asyncio.Event()
    written = writes.start(may_end.wait())
    waiting = asyncio.create_task(writes.wait_all())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_end.set()
    await writes.wait_all()

    assert await written
