"""Long work in pieces: what computes for long must let the loop serve others in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_AT_ONCE = 100  # at 10 to 30 us each: a few milliseconds


async def in_pieces(items: Sequence[T], *, at_once: int = _AT_ONCE) -> AsyncIterator[Sequence[T]]:
    """Give some of them at a time, and before the next let the loop do what else is due."""
    for start in range(0, len(items), at_once):
        yield items[start : start + at_once]
        await asyncio.sleep(0)
