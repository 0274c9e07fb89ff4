"""A turnstile: work of many turns is done a few at a time, in their order, and not all of it side by side.

Side by side, a burst of turns would all ask their models when the last of them is ready to. With one turnstile before
the first request and one before the end, a busy server answers first and tidies up afterwards.
"""

import asyncio
from collections.abc import Callable

_LONGEST = 1.0  # seconds to wait; work that hangs in front must not hold up the rest


class Turnstile:
    """Lets so many through at once, in the order of their coming.

    Args:
        at_once: How many.
    """

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    async def enter(self) -> Callable[[], None]:
        """Wait to be let in, but not for ever; returns how to leave, which may be called more than once."""
        try:
            async with asyncio.timeout(_LONGEST):
                await self._free.acquire()
        except TimeoutError:
            return _nothing
        inside = True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                self._free.release()

        return leave


def _nothing() -> None:
    """Leave where nobody went in."""
