"""Heartbeats for the readers of a turn: one event for each period without events."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

from godoty_service.aio.tasks import retrieve_exception
from godoty_service.clock import Clock, milliseconds_of
from godoty_service.turns.event_log.events import HEARTBEAT, ReadEvent, StoredEvent


class SilenceTimer:
    """Wakes one reader after a period of silence, with one timer for any number of events.

    Attributes:
        waiting: The future that the reader awaits, or awaited last; the timer sets it to True.
        since: The loop's time at which the reader began to await it.
    """

    def __init__(self, silence: timedelta) -> None:
        self._seconds = silence.total_seconds()
        self._loop = asyncio.get_running_loop()
        self.waiting: asyncio.Future[bool] | None = None
        self.since = self._loop.time()
        self._timer = self._loop.call_later(self._seconds, self._check)

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _check(self) -> None:
        remaining = self.since + self._seconds - self._loop.time()
        if remaining <= 0 and self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(True)
            remaining = self._seconds
        self._timer = self._loop.call_later(max(remaining, self._seconds / 10), self._check)


async def with_heartbeats(
    source: AsyncGenerator[StoredEvent, None], *, silence: timedelta, after: int, clock: Clock
) -> AsyncGenerator[ReadEvent, None]:
    """Yield events, and a heartbeat with the last sequence after each silence.

    Each event takes a task, so this is for events that are read from the database.

    Args:
        source: The events; the caller closes it.
        silence: The time without events before a heartbeat; zero: no heartbeats.
        after: The sequence of the last event that the reader has.
        clock: The current time.
    """
    reading: asyncio.Task[StoredEvent | None] | None = None
    try:
        while True:
            reading = asyncio.create_task(_next(source))
            while not (await asyncio.wait({reading}, timeout=silence.total_seconds() or None))[0]:
                yield after, HEARTBEAT, milliseconds_of(clock())
            found = reading.result()
            if found is None:
                return
            after = found[0]
            yield found
    finally:
        if reading is not None and not reading.done():
            reading.cancel()
            await asyncio.wait({reading})
            retrieve_exception(reading)


async def _next(source: AsyncGenerator[StoredEvent, None]) -> StoredEvent | None:
    return await anext(source, None)
