"""Writes that finish although their waiter was cancelled."""

import asyncio
import gc
from typing import Any

import pytest

from godoty_service.metering.shielded_writes import ShieldedWrites


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
