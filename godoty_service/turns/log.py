"""A turn's event log: one writer, any number of readers, each at its own pace."""

import asyncio
from collections.abc import AsyncGenerator

from godoty_service.errors import GodotyError
from godoty_service.turns.events import Event, ReasoningDelta, TextDelta

_LARGEST_MERGED = 64 * 1024  # characters


class EventLog:
    """The events of a turn, numbered 1, 2, 3 and so on."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._ended = False
        self._error: GodotyError | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def ended(self) -> bool:
        """Nothing follows."""
        return self._ended

    @property
    def sequence(self) -> int:
        """The number of the last event."""
        return len(self._events)

    def append(self, event: Event) -> None:
        """Add an event; it never waits."""
        self._events.append(event)
        self._wake()

    def end(self, error: GodotyError | None = None) -> None:
        """Say that nothing follows; with an error, readers that have read all get it raised."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    async def read(self, *, after: int = 0) -> AsyncGenerator[tuple[int, Event], None]:
        """Read the events after a number as they come.

        A reader that has fallen behind gets adjacent deltas as one; its number is that of the last of them.

        Raises:
            GodotyError: The turn failed.
        """
        place = after
        while True:
            if place < len(self._events):
                place, event = self._next(place)
                yield place, event
            elif self._ended:
                if self._error is not None:
                    raise self._error
                return
            else:
                await self._more()

    def _next(self, place: int) -> tuple[int, Event]:
        event = self._events[place]
        place += 1
        kind = type(event)
        if not isinstance(event, (TextDelta, ReasoningDelta)):
            return place, event
        texts, size = [event.text], len(event.text)
        while place < len(self._events):
            follower = self._events[place]
            if not isinstance(follower, (TextDelta, ReasoningDelta)) or type(follower) is not kind:
                break
            size += len(follower.text)
            if size > _LARGEST_MERGED:
                break
            texts.append(follower.text)
            place += 1
        if len(texts) == 1:
            return place, event
        text = "".join(texts)
        return place, TextDelta(text) if isinstance(event, TextDelta) else ReasoningDelta(text)

    async def _more(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
