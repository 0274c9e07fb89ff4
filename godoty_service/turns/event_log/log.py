"""A turn's event log in memory: one writer, and any number of readers, each at its own pace."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import timedelta

from godoty_service.errors import GodotyError, TurnTooLarge
from godoty_service.turns.event_log.events import (
    HEARTBEAT,
    Event,
    ModelCallFinished,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFinished,
)
from godoty_service.turns.event_log.heartbeats import SilenceTimer

LARGEST_LOG = 8 * 1024 * 1024  # bytes, approximately
LARGEST_CHUNK = 4 * 1024 * 1024  # bytes of the events in one document; MongoDB's limit is 16 MB
_LARGEST_MERGED = 64 * 1024  # bytes of UTF-8
_OVERHEAD = 32  # bytes counted for the smallest event
_FIXED = 1024  # bytes counted for an event with many fields, beside strings of variable length

# No sequence of a log can exceed this, as each event counts at least its overhead. Recovery ends a dead turn's log
# above it, so that no sequence is ever used twice.
RECOVERY_SEQUENCE = LARGEST_LOG // _OVERHEAD + 1_000


class EventLog:
    """The events of a turn, numbered 1, 2, 3 and so on.

    Attributes:
        readers: The number of its readers in this server.
        error: The error that the turn failed with.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._size = 0
        self._ended = False
        self._waiting: list[asyncio.Future[bool]] = []
        self.readers = 0
        self.error: GodotyError | None = None

    @property
    def ended(self) -> bool:
        """Whether no event follows."""
        return self._ended

    @property
    def sequence(self) -> int:
        """The number of the last event; 0 if there is none."""
        return len(self._events)

    def append(self, event: Event) -> None:
        """Append an event without waiting for any reader.

        Raises:
            TurnTooLarge: The log is full. Its end still fits.
        """
        size = _size(event)
        if self._size + size > LARGEST_LOG and not isinstance(event, TurnFinished):
            raise TurnTooLarge("The turn wrote more than its log may hold.")
        self._size += size
        self._events.append(event)
        self._wake()

    def end(self, error: GodotyError | None = None) -> None:
        """End the log. An error is raised to readers that have read all events."""
        if not self._ended:
            self._ended, self.error = True, error
            self._wake()

    def chunk(self, sequence: int, before: int) -> tuple[tuple[Event, ...], int]:
        """Return the events after a sequence that fit one document, and their bytes.

        Args:
            sequence: The number of the last event that is stored.
            before: The bytes of the events up to that one.
        """
        events = self._events[sequence:]
        size = self._size - before
        if size <= LARGEST_CHUNK:
            return tuple(events), size
        size = 0
        for index, event in enumerate(events):
            if size + _size(event) > LARGEST_CHUNK and index:
                return tuple(events[:index]), size
            size += _size(event)
        return tuple(events), size

    async def read(
        self, *, after: int = 0, heartbeat: timedelta = timedelta()
    ) -> AsyncGenerator[tuple[int, StreamEvent], None]:
        """Yield the events after a number as they are appended.

        A reader that has fallen behind gets adjacent deltas merged, with the number of the last of them.

        Args:
            after: The number of the last event that the reader has.
            heartbeat: The silence after which it gets a heartbeat, with the number of its last event; zero: none.

        Raises:
            GodotyError: The turn failed.
        """
        index, loop = after, asyncio.get_running_loop()
        silence = SilenceTimer(heartbeat) if heartbeat else None
        self.readers += 1
        try:
            while True:
                if index < len(self._events):
                    index, event = merged(self._events, index)
                    yield index, event
                elif self._ended:
                    if self.error is not None:
                        raise self.error
                    return
                else:
                    more: asyncio.Future[bool] = loop.create_future()
                    self._waiting.append(more)
                    if silence is not None:
                        silence.waiting, silence.since = more, loop.time()
                    if await more and index >= len(self._events) and not self._ended:
                        self._waiting.remove(more)
                        yield index, HEARTBEAT
        finally:
            self.readers -= 1
            if silence is not None:
                silence.close()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():  # its reader was cancelled
                future.set_result(False)
        self._waiting.clear()


def merged(events: Sequence[Event], index: int) -> tuple[int, Event]:
    """Merge the event at an index with the deltas of its kind that follow it; return the index after them, and it."""
    event = events[index]
    alone = index + 1 == len(events) or type(events[index + 1]) is not type(event)
    if alone or not isinstance(event, (TextDelta, ReasoningDelta)):
        return index + 1, event
    texts = list(_run(events, index, type(event)))
    if len(texts) == 1:
        return index + 1, event
    joined = "".join(texts)
    return index + len(texts), TextDelta(joined) if isinstance(event, TextDelta) else ReasoningDelta(joined)


def _run(events: Sequence[Event], start: int, kind: type) -> Iterator[str]:
    """Yield the texts of adjacent deltas of a kind that fit one message; always the first."""
    size = 0
    for index in range(start, len(events)):
        event = events[index]
        if type(event) is not kind or not isinstance(event, (TextDelta, ReasoningDelta)):
            return
        size += _bytes(event.text)
        if size > _LARGEST_MERGED and index > start:
            return
        yield event.text


def _size(event: Event) -> int:
    """Return the bytes counted for an event, by its strings of variable length."""
    if isinstance(event, (TextDelta, ReasoningDelta)):  # nearly all events
        return _OVERHEAD + _bytes(event.text)
    match event:
        case ToolCallStarted(tool_call_id=name, name=tool, input_json=text):
            return _OVERHEAD + _bytes(name) + _bytes(tool) + _bytes(text)
        case ToolCallFinished(tool_call_id=name, output=text):
            return _OVERHEAD + _bytes(name) + _bytes(text)
        case ModelCallFinished(call=call):
            texts = (call.served_model, call.provider, call.generation_id, call.finish_reason, call.error)
            return _FIXED + sum(len(each) * 4 for each in texts if each)  # a character takes at most four bytes
        case TurnFinished(tools=tools):
            return _FIXED + sum(len(tool.name) * 4 for tool in tools)
        case _:
            return _FIXED


def _bytes(text: str) -> int:
    """Return a text's length in UTF-8; a lone surrogate counts, and fails when it is stored."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
