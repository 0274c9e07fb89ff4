"""The pace of a busy process: what arrives waits for a common beat, and is handled in fewer and larger pieces.

A token by itself costs a wake-up, a read and a write. While the processor is free nothing waits. When the process is
busy, all streams are read on one beat, 50 times a second; when it falls behind or has little time left, the beat slows
down, so that more tokens arrive together, instead of the delay growing.
"""

import asyncio
import time
from collections.abc import Callable

_LOOK = 0.1  # seconds between two looks
_FREE, _HALF, _FULL = 0.3, 0.5, 0.65  # of one core's time: nothing waits, the beat may be faster, must be slower
_BEAT = 0.02  # seconds of the fastest beat
_SLOWEST = 0.25  # seconds of the slowest
_BEHIND = 0.02  # seconds late: the process falls behind
_SLOWER, _FASTER = 1.5, 0.8


class Pace:
    """The beat that all streams of a process share."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._resting: list[tuple[asyncio.Future[None], Callable[[], bool]]] = []

    async def rest(self, ready: Callable[[], bool]) -> None:
        """Wait, where there is a beat, for the first one at which somebody is ready."""
        if not self._pause:
            return
        loop = asyncio.get_running_loop()
        if not self._resting:
            loop.call_later(self._pause, self._strike, loop)
        rested = loop.create_future()
        self._resting.append((rested, ready))
        await rested

    async def run(self) -> None:
        """Set the beat by how busy the loop's thread is, for ever."""
        while True:
            worked, begun = time.thread_time(), time.monotonic()
            await asyncio.sleep(_LOOK)
            took = time.monotonic() - begun
            self._set(busy_share=(time.thread_time() - worked) / took, delay=took - _LOOK)

    def _set(self, *, busy_share: float, delay: float) -> None:
        if delay > _BEHIND or busy_share > _FULL:
            self._pause = min(_SLOWEST, max(_BEAT, self._pause * _SLOWER))
        elif busy_share < _FREE:
            self._pause = 0.0
        elif busy_share < _HALF or not self._pause:
            self._pause = max(_BEAT, self._pause * _FASTER)

    def _strike(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake those who are ready; without a beat from now on, all."""
        resting, self._resting = self._resting, []
        for rested, ready in resting:
            if rested.done():  # it was cancelled
                continue
            if not self._pause or ready():
                rested.set_result(None)
            else:
                self._resting.append((rested, ready))
        if self._resting:
            loop.call_later(self._pause, self._strike, loop)
