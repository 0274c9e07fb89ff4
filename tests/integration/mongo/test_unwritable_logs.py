"""A turn's log that the database cannot encode fails its own turn, and the logs of all other turns are written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from godoty_service.errors import GodotyError, TurnTooLarge
from godoty_service.mongo.client import Database
from godoty_service.turns.event_log import log as logs
from godoty_service.turns.event_log.events import Event, TextDelta, ToolCallFinished, ToolCallStarted
from godoty_service.turns.event_log.flusher import EventLogFlusher
from godoty_service.turns.event_log.log import LARGEST_LOG, EventLog
from godoty_service.turns.event_log.store import EventLogStore
from godoty_service.turns.turn import Turn, TurnRequest

HALF = "\ud83d"  # a lone surrogate: no UTF-8, so no BSON
UNWRITABLE = ToolCallStarted(tool_call_id="call_1", name=HALF, input_json="{}")


@pytest.fixture
def event_logs(database: Database) -> EventLogStore:
    """Return the store of event logs."""
    return EventLogStore(database.collection("turn_logs"))


@pytest.fixture
async def log_flusher(event_logs: EventLogStore) -> AsyncIterator[EventLogFlusher]:
    """Yield a running log writer."""
    log_flusher = EventLogFlusher(event_logs, writer="replica", expiry=lambda: datetime.now(UTC) + timedelta(hours=1))
    running = asyncio.create_task(log_flusher.run(0.02))
    yield log_flusher
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def _turn(number: int, *events: Event) -> Turn:
    request = TurnRequest(session_id="talk", text="hi")
    turn = Turn(tenant_id="tnt_1", turn_id=f"turn_{number}", request=request, epoch=1)
    turn.task = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type] # it stands for the turn's task
    for event in events:
        turn.log.append(event)
    return turn


async def _stored(event_logs: EventLogStore, turn: Turn) -> tuple[list[Event], GodotyError | None, bool]:
    found = await event_logs.read(turn.tenant_id, turn.turn_id, after=-1)
    return [event for each in found for event in each.events], found[-1].error, found[-1].ended


async def test_unwritable_event_fails_its_own_turn_and_no_other(
    log_flusher: EventLogFlusher, event_logs: EventLogStore
) -> None:
    """The other turn's log is stored to its end; the failed one has the earlier events and an error."""
    bad = _turn(1, TextDelta("kept "), UNWRITABLE, TextDelta("not kept"))
    good, later = _turn(2, TextDelta("whole")), _turn(3, TextDelta("later"))
    log_flusher.track(bad)
    log_flusher.track(good)
    good.log.end()
    await asyncio.wait_for(log_flusher.wait_flushed(good), 180)
    await asyncio.wait_for(log_flusher.wait_flushed(bad), 180)
    log_flusher.track(later)
    later.log.end()
    await asyncio.wait_for(log_flusher.wait_flushed(later), 180)

    assert await _stored(event_logs, good) == ([TextDelta("whole")], None, True)
    assert await _stored(event_logs, later) == ([TextDelta("later")], None, True)
    events, error, ended = await _stored(event_logs, bad)
    assert (events, ended) == ([TextDelta("kept ")], True)
    assert error is not None
    assert error.reason == "INTERNAL"
    assert bad.cancelled_by is not None
    assert bad.cancelled_by.reason == "INTERNAL"


async def test_finished_turn_with_unwritable_event_is_not_waited_for(
    log_flusher: EventLogFlusher, event_logs: EventLogStore
) -> None:
    """A turn that had ended is stored up to the event, with an error as its end: a drain does not wait."""
    bad = _turn(1, TextDelta("kept"), UNWRITABLE)
    bad.log.end()
    log_flusher.track(bad)
    await asyncio.wait_for(log_flusher.wait_flushed(bad), 180)

    events, error, ended = await _stored(event_logs, bad)
    assert (events, ended) == ([TextDelta("kept")], True)
    assert error is not None


async def test_log_after_outage_is_stored_in_bounded_chunks(
    event_logs: EventLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that accumulated during an outage are split: no document approaches MongoDB's limit of 16 MB."""
    monkeypatch.setattr(logs, "LARGEST_CHUNK", 1_000)
    log_flusher = EventLogFlusher(event_logs, writer="replica", expiry=lambda: datetime.now(UTC) + timedelta(hours=1))
    events = [TextDelta("x" * 300)] * 20
    turn = _turn(1, *events)
    turn.log.end()
    log_flusher.track(turn)
    while not turn.log.ended or await _missing(event_logs, turn):
        await log_flusher.flush()

    found = await event_logs.read(turn.tenant_id, turn.turn_id, after=-1)
    assert [event for each in found for event in each.events] == events
    assert [each.ended for each in found] == [False] * (len(found) - 1) + [True]
    assert max(len(each.events) for each in found) == 3


async def _missing(event_logs: EventLogStore, turn: Turn) -> bool:
    found = await event_logs.read(turn.tenant_id, turn.turn_id, after=-1)
    return not found or not found[-1].ended


@pytest.mark.parametrize(
    "event",
    [
        ToolCallStarted(tool_call_id="x" * 1_000_000, name="n", input_json="{}"),
        ToolCallStarted(tool_call_id="x", name="n" * 1_000_000, input_json="{}"),
        ToolCallFinished(tool_call_id="x" * 1_000_000, succeeded=True, output="", duration=timedelta()),
    ],
)
def test_every_string_of_an_event_counts(event: Event) -> None:
    """A log of large ids and names is full when it has the bytes of a full log."""
    log = EventLog()
    for _ in range(LARGEST_LOG // 1_000_100):
        log.append(event)
    with pytest.raises(TurnTooLarge):
        log.append(event)


def test_lone_surrogate_is_counted() -> None:
    """Counting an event's bytes does not fail for a text that no document can have; only storing it does."""
    log = EventLog()
    log.append(TextDelta(HALF))
    log.append(UNWRITABLE)

    assert log.sequence == 2
