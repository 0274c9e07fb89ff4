"""Divides a long computation, so that it does not block the event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_BATCH_SIZE = 100  # at 10 to 30 us each: a few milliseconds


async def yielding_batches(items: Sequence[T], *, size: int = _BATCH_SIZE) -> AsyncIterator[Sequence[T]]:
    """Yield the items in batches, giving the event loop a turn between them."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
        await asyncio.sleep(0)
