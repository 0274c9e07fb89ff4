"""A turn's event log: each reader gets all events at its own pace."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.clock import utc_now
from godoty_service.errors import SessionBusy, TurnTooLarge
from godoty_service.ledger.totals import Totals
from godoty_service.turns.event_log.events import (
    HEARTBEAT,
    Event,
    Heartbeat,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFinished,
)
from godoty_service.turns.event_log.log import LARGEST_LOG, RECOVERY_SEQUENCE, EventLog
from godoty_service.turns.event_log.store import Chunk

TOOL = ToolCallStarted(tool_call_id="t", name="f", input_json="{}")
END = TurnFinished(
    stop_reason=StopReason.END_TURN,
    turn_totals=Totals(),
    session_totals=Totals(),
    cycle_durations=(),
    tools=(),
)
EVENTS = st.lists(
    st.one_of(st.text(max_size=3).map(TextDelta), st.text(max_size=3).map(ReasoningDelta), st.just(TOOL)), max_size=12
)


async def read(log: EventLog, after: int = 0) -> list[tuple[int, Event]]:
    """Read a log that has ended."""
    return [(place, event) async for place, event, _ in log.read(after=after) if not isinstance(event, Heartbeat)]


def write(log: EventLog, event: Event, *, times: int) -> None:
    """Append an event a number of times."""
    for _ in range(times):
        log.append(event)


def chunk_of(log: EventLog, first: int, last: int) -> Chunk:
    """Return a log's events from one number to another as a chunk."""
    return Chunk(
        turn_id="turn",
        tenant_id="tenant",
        index=0,
        first=first,
        events=log.chunk(first - 1, 0)[0],
        ended=False,
        error=None,
        writer="replica",
        expire_time=utc_now(),
        times=log.times(first, last),
    )


def joined(events: list[Event]) -> list[Event]:
    """Return the events with adjacent deltas of a kind joined."""
    whole: list[Event] = []
    for event in events:
        last = whole[-1] if whole else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            whole[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            whole[-1] = ReasoningDelta(last.text + event.text)
        else:
            whole.append(event)
    return whole


@given(events=EVENTS)
def test_late_reader_gets_adjacent_deltas_merged(events: list[Event]) -> None:
    """Nothing is lost or reordered; a merged message has the number of its last delta."""
    log = EventLog()
    for event in events:
        log.append(event)
    log.end()
    got = asyncio.run(read(log))

    assert [event for _, event in got] == joined(events)
    numbers = [number for number, _ in got]
    assert numbers == sorted(set(numbers))
    assert (numbers[-1] if numbers else 0) == log.sequence == len(events)


@given(events=EVENTS, after=st.integers(0, 12))
def test_reader_may_begin_at_any_number(events: list[Event], after: int) -> None:
    """A reader gets the events after its number, and no others."""
    log = EventLog()
    for event in events:
        log.append(event)
    log.end()

    assert [event for _, event in asyncio.run(read(log, after))] == joined(events[after:])


async def test_reader_that_keeps_up_gets_each_delta() -> None:
    """No delta is delayed while a reader waits for it."""
    log, got = EventLog(), []

    async def follow() -> None:
        async for numbered in log.read():
            got.append(numbered[:2])  # noqa: PERF401 - the list is read while it grows

    reading = asyncio.create_task(follow())
    for text in "abc":
        await asyncio.sleep(0)
        log.append(TextDelta(text))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    log.end()
    await reading
    assert got == [(1, TextDelta("a")), (2, TextDelta("b")), (3, TextDelta("c"))]


async def test_readers_are_independent() -> None:
    """A reader that leaves, one that lags and one that keeps up each get their own events."""
    log = EventLog()
    early = asyncio.create_task(read(log))
    leaver = log.read()
    log.append(TextDelta("a"))
    assert (await anext(leaver))[:2] == (1, TextDelta("a"))
    await leaver.aclose()
    log.append(TextDelta("b"))
    log.end()

    assert joined([event for _, event in await early]) == [TextDelta("ab")]
    assert await read(log) == [(2, TextDelta("ab"))]


async def test_error_follows_all_events() -> None:
    """A failed turn's readers get its events first, then its error; only the first end counts."""
    log = EventLog()
    log.append(TextDelta("so far"))
    log.end(SessionBusy("no"))
    log.end(None)
    reading = log.read()

    assert (await anext(reading))[:2] == (1, TextDelta("so far"))
    with pytest.raises(SessionBusy):
        await anext(reading)
    assert log.ended


async def test_merged_message_is_bounded() -> None:
    """Deltas are joined to at most 64 Ki characters, and a larger one is not cut."""
    log = EventLog()
    sizes = [40_000, 20_000, 10_000, 100_000, 5]
    for size in sizes:
        log.append(TextDelta("x" * size))
    log.end()
    got = await read(log)

    texts = [event.text for _, event in got if isinstance(event, TextDelta)]
    assert [len(text) for text in texts] == [60_000, 10_000, 100_000, 5]
    assert [number for number, _ in got] == [2, 3, 4, 5]


def test_log_is_bounded() -> None:
    """A turn that writes without end is stopped; its last event still fits."""
    log = EventLog()
    with pytest.raises(TurnTooLarge):
        write(log, TextDelta("x" * 100_000), times=1_000)
    log.append(END)

    assert log.sequence <= LARGEST_LOG // 100_000 + 1


def test_no_log_reaches_recovery_sequence() -> None:
    """The smallest events fill a log before their numbers reach the reserved ones."""
    log = EventLog()
    with pytest.raises(TurnTooLarge):
        write(log, TextDelta("x"), times=RECOVERY_SEQUENCE + 1)
    log.append(END)

    assert log.sequence < RECOVERY_SEQUENCE


def test_tool_data_counts_towards_log_limit() -> None:
    """Large inputs and outputs of tools count towards the log's limit."""
    output = ToolCallFinished(tool_call_id="t", succeeded=True, output="x" * 1_000_000, duration=timedelta())
    for event in (output, replace(TOOL, input_json="x" * 1_000_000)):
        with pytest.raises(TurnTooLarge):
            write(EventLog(), event, times=20)


async def test_reader_of_a_silent_log_gets_heartbeats() -> None:
    """Each period of silence yields one heartbeat with the number of the last event, and later events follow."""
    log, loop = EventLog(), asyncio.get_running_loop()
    write(log, TOOL, times=500)
    reader = log.read(heartbeat=timedelta(seconds=0.1))
    for number in range(1, 501):
        assert (await anext(reader))[:2] == (number, TOOL)
    begun = loop.time()
    received = [(await anext(reader))[:2] for _ in range(3)]
    silent = loop.time() - begun
    log.append(TOOL)

    assert received == [(500, HEARTBEAT)] * 3
    assert 0.29 <= silent < 20
    assert (await anext(reader))[:2] == (501, TOOL)
    await reader.aclose()


@pytest.mark.parametrize("ended", [False, True])
async def test_event_concurrent_with_heartbeat_is_read_instead(*, ended: bool) -> None:
    """The timer has woken the reader, and before it runs an event or the end arrives: there is no silence to report."""
    log = EventLog()
    reader = log.read(heartbeat=timedelta(hours=1))
    reading = asyncio.ensure_future(anext(reader, None))
    await asyncio.sleep(0)
    (waiting,) = log._waiting
    waiting.set_result(True)  # as the timer does
    if ended:
        log.end()
    else:
        log.append(TOOL)

    received = await reading
    assert (received and received[:2]) == (None if ended else (1, TOOL))
    assert log._waiting == []
    await reader.aclose()


@given(events=EVENTS, reads=st.sets(st.integers(0, 12)))
def test_event_has_one_time_for_all_readers(events: list[Event], reads: set[int]) -> None:
    """Whenever it is read first or again; times do not decrease, and the last event's is that of the end."""
    log, shown = EventLog(), {}
    for number, event in enumerate(events, 1):
        log.append(event)
        log._origin += 7  # milliseconds that have passed
        if number in reads:
            shown[number] = log.time_of(number)
    log.end()
    final = [log.time_of(number) for number in range(1, len(events) + 1)]

    assert final == sorted(final)
    assert {number: final[number - 1] for number in shown} == shown
    if events and len(events) not in reads:
        assert final[-1] == log.end_time


def test_last_event_has_the_time_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the clock advances while the log ends."""
    log, ticks = EventLog(), iter(range(1, 100))
    log.append(TOOL)
    monkeypatch.setattr(log, "_now", lambda: next(ticks))
    log.end()

    assert log.time_of(1) == log.end_time == 1


@given(events=EVENTS, reads=st.sets(st.integers(0, 12)), cuts=st.sets(st.integers(1, 12)))
def test_stored_chunks_have_the_times_that_readers_saw(events: list[Event], reads: set[int], cuts: set[int]) -> None:
    """A chunk's times give each of its events the time that a reader of the log in memory gets."""
    log, chunks, last = EventLog(), [], 0
    for number, event in enumerate(events, 1):
        log.append(event)
        log._origin += 7  # milliseconds that have passed
        if number in reads:
            log.time_of(number)
        if number in cuts or number == len(events):
            chunks.append(chunk_of(log, last + 1, number))
            last = number
    log.end()

    found = [each.time_of(number) for each in chunks for number in range(each.first, each.first + len(each.events))]
    assert found == [log.time_of(number) for number in range(1, len(events) + 1)]


def test_delta_costs_no_clock() -> None:
    """Appending an event records no time: only a reader's message and a stored chunk do."""
    log = EventLog()
    write(log, TextDelta("x"), times=1_000)
    assert len(log._timed) == 0

    log.time_of(10)
    log.time_of(1_000)
    assert list(log._timed) == [1_000]
