"""A turn's event log in memory: one writer, and any number of readers, each at its own pace."""

import asyncio
import time
from array import array
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime, timedelta

from godoty_service.clock import milliseconds_of, utc_now
from godoty_service.errors import GodotyError, TurnTooLarge
from godoty_service.turns.event_log.events import (
    HEARTBEAT,
    ActionRequired,
    Annotations,
    Event,
    ModelCallFinished,
    ReadEvent,
    ReasoningDelta,
    SubAgentEvent,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
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

    Times are recorded when an event is first read or stored, not with each delta: an event has the first time that was
    recorded at or after its number.

    Attributes:
        readers: The number of its readers in this server.
        left_at: The monotonic clock at which a reader has left last, or the log was created.
        error: The error that the turn failed with.
        end_time: The time of its end in milliseconds since 1970; None: it has not ended.
    """

    def __init__(self, start: datetime | None = None) -> None:
        """Create an empty log.

        Args:
            start: The current time; its times are this one and what has passed since. None: the system clock's.
        """
        self._events: list[Event] = []
        self._size = 0
        self._ended = False
        self._waiting: list[asyncio.Future[bool]] = []
        self._origin = milliseconds_of(start or utc_now())
        self._origin_tick = time.monotonic()
        self._timed = array("q")  # numbers of events, increasing
        self._times = array("q")  # the time of each of them
        self.readers = 0
        self.left_at = self._origin_tick
        self.error: GodotyError | None = None
        self.end_time: int | None = None

    @property
    def ended(self) -> bool:
        """Whether no event follows."""
        return self._ended

    @property
    def sequence(self) -> int:
        """The number of the last event; 0 if there is none."""
        return len(self._events)

    @property
    def last(self) -> Event | None:
        """The last event."""
        return self._events[-1] if self._events else None

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
            self.end_time = now = self._now()
            if not self._timed or self._timed[-1] < len(self._events):
                self._record(now)
            self._wake()

    def time_of(self, sequence: int) -> int:
        """Return the time of an event in milliseconds since 1970: now, if none was recorded at or after it."""
        if self._timed and sequence <= self._timed[-1]:
            return self._times[bisect_left(self._timed, sequence)]
        now = self._now()
        self._record(now)
        return now

    def _record(self, time: int) -> None:
        """Record the time of all events that have none."""
        if self._timed and time == self._times[-1]:
            self._timed[-1] = len(self._events)
        else:
            self._timed.append(len(self._events))
            self._times.append(time)

    def times(self, first: int, last: int) -> tuple[tuple[int, int], ...]:
        """Return the times that events in a range have, each with the number of the last event that has it."""
        if first > last:
            return ()
        end = self.time_of(last)
        low, high = bisect_left(self._timed, first), bisect_left(self._timed, last)
        return (*zip(self._timed[low:high], self._times[low:high], strict=True), (last, end))

    def _now(self) -> int:
        return self._origin + int((time.monotonic() - self._origin_tick) * 1000)

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

    async def read(self, *, after: int = 0, heartbeat: timedelta = timedelta()) -> AsyncGenerator[ReadEvent, None]:
        """Yield the events after a number as they are appended, with their numbers and times.

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
                    yield index, event, self.time_of(index)
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
                        yield index, HEARTBEAT, self._now()
        finally:
            self.readers -= 1
            self.left_at = time.monotonic()
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
        case ToolCallStarted(tool_call_id=name, name=tool, input_json=text, sub_agent_path=path):
            return _OVERHEAD + _bytes(name) + _bytes(tool) + _bytes(text) + len(path)
        case ToolProgress(tool_call_id=name, message=text) | ToolCallFinished(tool_call_id=name, output=text):
            return _OVERHEAD + _bytes(name) + _bytes(text)
        case ModelCallFinished(call=call):
            texts = (call.served_model, call.provider, call.generation_id, call.finish_reason, call.error)
            return _FIXED + sum(len(each) * 4 for each in texts if each)  # a character takes at most four bytes
        case SubAgentEvent(path=path, event=inner):
            return _OVERHEAD + len(path) + _size(inner)
        case _:
            tools, text = (event.tools, event.output_json or "") if isinstance(event, TurnFinished) else ((), "")
            citations = event.citations if isinstance(event, Annotations) else ()
            actions = event.actions if isinstance(event, TurnFinished) else ()
            actions = (event.action,) if isinstance(event, ActionRequired) else actions
            sizes = (*(len(tool.name) * 4 for tool in tools), *(each.size for each in citations))
            return (
                _FIXED
                + sum(sizes)
                + _bytes(text)
                + sum(_FIXED + _bytes(each.input_json) + _bytes(each.why) for each in actions)
            )


def _bytes(text: str) -> int:
    """Return a text's length in UTF-8; a lone surrogate counts, and fails when it is stored."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
