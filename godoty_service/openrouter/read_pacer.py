"""Paces the reads of a busy process: what arrives waits for a common tick, and is handled in fewer, larger pieces.

A token by itself costs a wake-up, a read and a write. While the processor is free, or has few streams to read, nothing
waits. When the process is busy, all streams are read at one tick, 50 times a second; when it falls behind or has little
time left, the ticks slow down, so that more tokens arrive together instead of the delay growing. While many turns
begin, there are few ticks: each turn that waits for its first token waits for what the others' tokens cost. Ticks lower
the load that they are there for, so they end at a lower one than they begin at.
"""

import asyncio
import time
from collections.abc import Callable, Sized

from godoty_service.aio.periodic import run_every

_SAMPLE = 0.1  # seconds between two measurements of the load
# Shares of one core's time: ticks begin at the first and end below the second; they quicken below the third, and slow
# down above the fourth.
_BUSY, _FREE, _HALF, _FULL = 0.25, 0.15, 0.5, 0.65
_FEW = 8  # streams: fewer have too little that could be read together
_MIN_INTERVAL = 0.02  # seconds between two ticks
_MAX_INTERVAL = 0.25  # the same
_MANY = 8  # turns that begin at the same time
_BURST_INTERVAL = 0.1  # seconds between two ticks while many turns begin
_BEHIND = 0.02  # seconds of delay from which the process counts as falling behind
_SLOWER, _FASTER = 1.5, 0.8


class ReadPacer:
    """The tick that all streams of a process share.

    Attributes:
        streams: The number of streams that are being read.
    """

    def __init__(self) -> None:
        self.streams = 0
        self._interval = 0.0
        self._sampled = (0.0, 0.0)  # the thread's CPU time and the monotonic clock at the last sample
        self._waiting: list[tuple[asyncio.Future[None], Callable[[], bool]]] = []

    async def wait(self, ready: Callable[[], bool]) -> None:
        """Wait for the first tick at which `ready` returns True; return at once if there are no ticks."""
        if not self._interval:
            return
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(self._interval, self._tick, loop)
        woken = loop.create_future()
        self._waiting.append((woken, ready))
        await woken

    async def run(self, beginning: Sized) -> None:
        """Adjust the ticks to the load of the loop's thread, until cancelled.

        Args:
            beginning: The turns of this process that have not sent their first request.
        """
        self._sampled = time.thread_time(), time.monotonic()
        await run_every(_SAMPLE, lambda: self._sample(beginning), failure="load_not_sampled")

    async def _sample(self, beginning: Sized) -> None:
        """Measure the load since the last sample."""
        (worked_before, started), (worked, now) = self._sampled, (time.thread_time(), time.monotonic())
        self._sampled = worked, now
        took = now - started
        self._set(busy_share=(worked - worked_before) / took, delay=took - _SAMPLE, beginning=len(beginning))

    def _set(self, *, busy_share: float, delay: float, beginning: int) -> None:
        if delay > _BEHIND or busy_share > _FULL:
            self._interval = min(_MAX_INTERVAL, max(_MIN_INTERVAL, self._interval * _SLOWER))
        elif busy_share < _FREE or self.streams < _FEW:
            self._interval = 0.0
        elif not self._interval:
            self._interval = _MIN_INTERVAL if busy_share >= _BUSY else 0.0
        elif busy_share < _HALF:
            self._interval = max(_MIN_INTERVAL, self._interval * _FASTER)
        if beginning >= _MANY and self.streams >= _FEW:
            self._interval = max(self._interval, _BURST_INTERVAL)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the streams that are ready; wake all of them if there are no ticks from now on."""
        waiting, self._waiting = self._waiting, []
        for woken, ready in waiting:
            if woken.done():  # it was cancelled
                continue
            if not self._interval or ready():
                woken.set_result(None)
            else:
                self._waiting.append((woken, ready))
        if self._waiting:
            loop.call_later(self._interval, self._tick, loop)
