"""A turn's log that the database cannot hold fails its own turn, and the logs of all other turns go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from godoty_service.errors import GodotyError, TurnTooLarge
from godoty_service.mongo import Database
from godoty_service.turns import log as logs
from godoty_service.turns.chunks import LogChunks
from godoty_service.turns.events import Event, TextDelta, ToolCallFinished, ToolCallStarted
from godoty_service.turns.journal import Journal
from godoty_service.turns.log import LARGEST_LOG, EventLog
from godoty_service.turns.turn import Turn, TurnRequest

HALF = "\ud83d"  # half a surrogate pair: no UTF-8, so no BSON
UNWRITABLE = ToolCallStarted(tool_call_id="call_1", name=HALF, input_json="{}")


@pytest.fixture
def chunks(database: Database) -> LogChunks:
    """The collection of logs."""
    return LogChunks(database.collection("turn_logs"))


@pytest.fixture
async def journal(chunks: LogChunks) -> AsyncIterator[Journal]:
    """A journal that writes by itself."""
    journal = Journal(chunks, writer="replica", expiry=lambda: datetime.now(UTC) + timedelta(hours=1))
    running = asyncio.create_task(journal.run(0.02))
    yield journal
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


async def _stored(chunks: LogChunks, turn: Turn) -> tuple[list[Event], GodotyError | None, bool]:
    found = await chunks.read(turn.tenant_id, turn.turn_id, after=-1)
    return [event for each in found for event in each.events], found[-1].error, found[-1].ended


async def test_unwritable_event_fails_its_own_turn_and_no_other(journal: Journal, chunks: LogChunks) -> None:
    """The other turn's log is stored to its end; the failed one keeps what came before the event, and an error."""
    bad = _turn(1, TextDelta("kept "), UNWRITABLE, TextDelta("not kept"))
    good, later = _turn(2, TextDelta("whole")), _turn(3, TextDelta("later"))
    journal.keep(bad)
    journal.keep(good)
    good.log.end()
    await asyncio.wait_for(journal.kept(good), 5)
    await asyncio.wait_for(journal.kept(bad), 5)
    journal.keep(later)
    later.log.end()
    await asyncio.wait_for(journal.kept(later), 5)

    assert await _stored(chunks, good) == ([TextDelta("whole")], None, True)
    assert await _stored(chunks, later) == ([TextDelta("later")], None, True)
    events, error, ended = await _stored(chunks, bad)
    assert (events, ended) == ([TextDelta("kept ")], True)
    assert error is not None
    assert error.reason == "INTERNAL"
    assert bad.cancelled_by is not None
    assert bad.cancelled_by.reason == "INTERNAL"


async def test_finished_turn_with_an_unwritable_event_stops_waiting(journal: Journal, chunks: LogChunks) -> None:
    """A turn that had ended already is stored up to the event, with an error as its end: a drain does not wait."""
    bad = _turn(1, TextDelta("kept"), UNWRITABLE)
    bad.log.end()
    journal.keep(bad)
    await asyncio.wait_for(journal.kept(bad), 5)

    events, error, ended = await _stored(chunks, bad)
    assert (events, ended) == ([TextDelta("kept")], True)
    assert error is not None


async def test_log_that_waited_for_the_database_is_stored_in_bounded_chunks(
    chunks: LogChunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gathered while the database was away is cut: no document nears the 16 MB that MongoDB takes."""
    monkeypatch.setattr(logs, "LARGEST_CHUNK", 1_000)
    journal = Journal(chunks, writer="replica", expiry=lambda: datetime.now(UTC) + timedelta(hours=1))
    events = [TextDelta("x" * 300)] * 20
    turn = _turn(1, *events)
    turn.log.end()
    journal.keep(turn)
    while not turn.log.ended or await _missing(chunks, turn):
        await journal.flush()

    found = await chunks.read(turn.tenant_id, turn.turn_id, after=-1)
    assert [event for each in found for event in each.events] == events
    assert [each.ended for each in found] == [False] * (len(found) - 1) + [True]
    assert max(len(each.events) for each in found) == 3


async def _missing(chunks: LogChunks, turn: Turn) -> bool:
    found = await chunks.read(turn.tenant_id, turn.turn_id, after=-1)
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


def test_half_a_surrogate_pair_is_counted_not_refused() -> None:
    """Counting an event's bytes does not fail on what no document can hold: storing it does, alone."""
    log = EventLog()
    log.append(TextDelta(HALF))
    log.append(UNWRITABLE)

    assert log.sequence == 2
