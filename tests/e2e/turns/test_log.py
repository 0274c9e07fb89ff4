"""Properties of a log for any events, flushes and readers: nothing is lost, duplicated or reordered."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from godoty_service.errors import TurnTooLarge
from godoty_service.turns.event_log import log as logs
from godoty_service.turns.event_log.events import Event, Heartbeat, ReasoningDelta, TextDelta, ToolCallStarted
from godoty_service.turns.event_log.log import LARGEST_LOG, RECOVERY_SEQUENCE, EventLog
from godoty_service.turns.event_log.store import Chunk, _from_document, _to_document
from godoty_service.turns.resumption import _events_after

TEXT = some.text(min_size=1, max_size=4)
EVENTS = some.lists(
    some.one_of(
        some.builds(TextDelta, TEXT),
        some.builds(ReasoningDelta, TEXT),
        some.builds(ToolCallStarted, tool_call_id=TEXT, name=TEXT, input_json=TEXT),
    ),
    max_size=25,
)


def joined(numbered: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """Join adjacent deltas, with the sequence of the last."""
    found: list[tuple[int, Event]] = []
    for sequence, event in numbered:
        last = found[-1][1] if found else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            found[-1] = (sequence, TextDelta(last.text + event.text))
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            found[-1] = (sequence, ReasoningDelta(last.text + event.text))
        else:
            found.append((sequence, event))
    return found


def chunk(first: int, events: list[Event]) -> Chunk:
    """Return a chunk after a round trip through its document."""
    made = Chunk(
        turn_id="turn",
        tenant_id="tenant",
        index=0,
        first=first,
        events=tuple(events),
        ended=False,
        error=None,
        writer="replica",
        expire_time=datetime.now(UTC) + timedelta(hours=1),
    )
    return _from_document(_to_document(made))


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, ticks=some.sets(some.integers(0, 25)), cut=some.integers(0, 25))
def test_log_flushed_at_any_time_is_readable_from_any_sequence(events: list[Event], ticks: set[int], cut: int) -> None:
    """A log cut into any chunks: the events before a sequence and those after it make the whole."""
    whole = list(enumerate(events, start=1))
    bounds = [0, *sorted(tick for tick in ticks if 0 < tick < len(events)), len(events)]
    kept = [chunk(low + 1, events[low:high]) for low, high in pairwise(bounds)]
    rest = [numbered for each in kept for numbered in _events_after(each, cut)]

    assert joined([*whole[:cut], *rest]) == joined(whole)
    assert all(sequence > cut for sequence, _ in rest)


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, pauses=some.lists(some.booleans(), max_size=25), cut=some.integers(0, 25))
def test_readers_at_any_pace_read_the_same(events: list[Event], pauses: list[bool], cut: int) -> None:
    """A reader that keeps up, a late one, and one that begins in the middle end with the same text."""

    async def play() -> list[list[tuple[int, Event]]]:
        log = EventLog()

        async def read(after: int) -> list[tuple[int, Event]]:
            return [(place, event) async for place, event in log.read(after=after) if not isinstance(event, Heartbeat)]

        readers = [asyncio.create_task(read(after)) for after in (0, 0, cut)]
        for event, pause in zip(events, [*pauses, *[False] * len(events)], strict=False):
            log.append(event)
            if pause:
                await asyncio.sleep(0)
        log.end()
        return [*await asyncio.gather(*readers), await read(0), await read(cut)]

    whole = list(enumerate(events, start=1))
    first, second, middle, late, late_middle = asyncio.run(play())
    assert joined(first) == joined(second) == joined(late) == joined(whole)
    assert joined(middle) == joined(late_middle) == joined(whole[cut:])


def fill(log: EventLog, text: str) -> None:
    """Append deltas to a log until it is full."""
    while True:
        log.append(TextDelta(text))


def test_merged_message_is_bounded() -> None:
    """Deltas are merged up to 64 KiB a message; a larger one is not merged."""
    log: Any = [TextDelta("x" * 1_000)] * 200 + [TextDelta("y" * 100_000), TextDelta("z")]
    sizes, place = [], 0
    while place < len(log):
        place, event = logs.merged(log, place)
        assert isinstance(event, TextDelta)
        sizes.append(len(event.text))

    assert sum(sizes) == 200_000 + 100_001
    assert sizes == [65_000, 65_000, 65_000, 5_000, 100_000, 1]


@pytest.mark.parametrize("text", ["\N{GRINNING FACE}", "x" * 5_000, "\N{EURO SIGN}" * 5_000])
def test_log_is_bounded_in_bytes(text: str) -> None:
    """No log exceeds 8 MiB with any characters, and no sequence of it reaches the reserved ones."""
    log = EventLog()
    with pytest.raises(TurnTooLarge):
        fill(log, text)

    assert log.sequence < RECOVERY_SEQUENCE
    size = sum(len(event.text.encode()) for event in log.chunk(0, 0)[0] if isinstance(event, TextDelta))
    assert size <= LARGEST_LOG
    assert size + 64 * log.sequence > LARGEST_LOG / 2  # and not much less
