"""A turn's event log: one writer, any number of readers, each at its own pace."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

from godoty_service.errors import GodotyError, TurnTooLarge
from godoty_service.turns.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFinished,
)

LARGEST_LOG = 8 * 1024 * 1024  # bytes, more or less
_LARGEST_MERGED = 64 * 1024  # characters
_OVERHEAD = 32  # bytes that the smallest event counts

# No sequence of a log can pass this: each event counts at least its overhead. Who closes a dead turn's log goes on
# above it, so that no sequence is ever used twice.
HIGH_WATER = LARGEST_LOG // _OVERHEAD + 1_000


class EventLog:
    """The events of a turn, numbered 1, 2, 3 and so on.

    Attributes:
        readers: How many read it now.
        error: What the turn failed with.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._size = 0
        self._ended = False
        self._waiting: list[asyncio.Future[None]] = []
        self.readers = 0
        self.error: GodotyError | None = None

    @property
    def ended(self) -> bool:
        """Nothing follows."""
        return self._ended

    @property
    def sequence(self) -> int:
        """The number of the last event."""
        return len(self._events)

    def append(self, event: Event) -> None:
        """Add an event; it never waits.

        Raises:
            TurnTooLarge: The log is full. Its end still fits.
        """
        self._size += _size(event)
        if self._size > LARGEST_LOG and not isinstance(event, TurnFinished):
            raise TurnTooLarge("The turn wrote more than its log may hold.")
        self._events.append(event)
        self._wake()

    def end(self, error: GodotyError | None = None) -> None:
        """Say that nothing follows; with an error, readers that have read all get it raised."""
        if not self._ended:
            self._ended, self.error = True, error
            self._wake()

    def since(self, sequence: int) -> tuple[Event, ...]:
        """Tell the events after a number that are there now."""
        return tuple(self._events[sequence:])

    async def read(self, *, after: int = 0) -> AsyncGenerator[tuple[int, Event], None]:
        """Read the events after a number as they come.

        A reader that has fallen behind gets adjacent deltas as one; its number is that of the last of them.

        Raises:
            GodotyError: The turn failed.
        """
        place, loop = after, asyncio.get_running_loop()
        self.readers += 1
        try:
            while True:
                if place < len(self._events):
                    place, event = merged(self._events, place)
                    yield place, event
                elif self._ended:
                    if self.error is not None:
                        raise self.error
                    return
                else:
                    more = loop.create_future()
                    self._waiting.append(more)
                    await more
        finally:
            self.readers -= 1

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():  # its reader was cancelled
                future.set_result(None)
        self._waiting.clear()


def merged(events: Sequence[Event], place: int) -> tuple[int, Event]:
    """Take the event at a place, and the deltas of its kind that follow it, as one; returns the place after it."""
    event = events[place]
    alone = place + 1 == len(events) or type(events[place + 1]) is not type(event)
    if alone or not isinstance(event, (TextDelta, ReasoningDelta)):
        return place + 1, event
    texts = list(_run(events, place, type(event)))
    if len(texts) == 1:
        return place + 1, event
    joined = "".join(texts)
    return place + len(texts), TextDelta(joined) if isinstance(event, TextDelta) else ReasoningDelta(joined)


def _run(events: Sequence[Event], place: int, kind: type) -> Iterator[str]:
    """Tell the texts of adjacent deltas of a kind, as many as one message takes; always the first."""
    size = 0
    for index in range(place, len(events)):
        event = events[index]
        if type(event) is not kind or not isinstance(event, (TextDelta, ReasoningDelta)):
            return
        size += len(event.text)
        if size > _LARGEST_MERGED and index > place:
            return
        yield event.text


def _size(event: Event) -> int:
    """Tell how much an event counts."""
    if isinstance(event, (TextDelta, ReasoningDelta)):  # nearly all of them are
        return _OVERHEAD + _bytes(event.text)
    match event:
        case ToolCallStarted(input_json=text) | ToolCallFinished(output=text):
            return _OVERHEAD + _bytes(text)
        case _:
            return 1024


def _bytes(text: str) -> int:
    """Tell a text's length in UTF-8: what gathers while logs cannot be kept must fit into a document of MongoDB."""
    return len(text) if text.isascii() else len(text.encode())
