"""A full log, a slow reader, a database that is away: each has its intended effect only."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.errors import TurnTooLarge
from godoty_service.ledger.states import CallState
from godoty_service.mongo.client import open_database
from godoty_service.turns.event_log import log as logs
from godoty_service.turns.event_log.events import TextDelta
from godoty_service.turns.event_log.flusher import EventLogFlusher
from godoty_service.turns.event_log.store import EventLogStore
from godoty_service.turns.turn import Turn, TurnRequest
from tests.conftest import Start
from tests.e2e.turns.streams import CONTINUE, SLOW, assert_increasing, free, joined, resume, until_text
from tests.support import caller as callers
from tests.support.backends import Backends
from tests.support.caller import Caller, read
from tests.support.history import assert_valid_history
from tests.support.service import Service, eventually, soon

Connect = Callable[[Service], Caller]


@pytest.mark.parametrize("scenario", ["@sandbox plain tokens=3000", "@sandbox tool-loop calls=20 tool=calculator"])
async def test_full_log_ends_turn_and_counts_its_cost(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    """RESOURCE_EXHAUSTED with TURN_TOO_LARGE; the events until then are shown and stored, and their cost is counted."""
    monkeypatch.setattr(logs, "LARGEST_LOG", 8_000)
    caller = connect(await serve())
    turn = await caller.converse(scenario, request_id="large")
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TURN_TOO_LARGE")

    await free(caller.service)
    entries = caller.service.entries("talk")
    assert entries
    await soon(lambda: all(entry.cost is not None for entry in caller.service.entries("talk")))
    await eventually(lambda: _settled(caller))
    assert caller.service.invoiced("talk") == sum(entry.cost or 0 for entry in caller.service.entries("talk"))
    again = await caller.converse(scenario, request_id="large")
    assert (joined(again.responses), again.failure) == (joined(turn.responses), turn.failure)
    monkeypatch.setattr(logs, "LARGEST_LOG", 8 * 1024 * 1024)
    assert (await caller.converse("and now?")).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert_valid_history(await caller.messages())


async def test_turn_timeout_ends_turn_and_counts_its_cost(serve: Start, connect: Connect) -> None:
    """DEADLINE_EXCEEDED for its readers, now and later, on both servers; its output and its cost are retained."""
    service = await serve(longest_turn=12.0)
    other = await serve(database=service.database.name)
    caller, second_caller = connect(service), connect(service.at(other.target))
    call = caller.start(SLOW, request_id="long", on_disconnect=CONTINUE)
    seen = await until_text(call, "t2 ")
    rest = await read(call)

    assert rest.failure is not None
    assert (rest.failure.code, rest.failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert "longer than it may" in rest.failure.text
    for client in (caller, second_caller):
        again = await client.converse(SLOW, request_id="long", on_disconnect=CONTINUE)
        assert (joined(again.responses), again.failure) == (joined([*seen, *rest.responses]), rest.failure)
    (entry,) = service.entries("talk")
    assert (entry.state, entry.error) == (CallState.PENDING, "interrupted")
    assert (await caller.converse("and now?")).finished.session_totals.turns == 2
    assert_valid_history(await caller.messages())


async def test_turn_timeout_ends_queued_turn(serve: Start, connect: Connect) -> None:
    """The wait for the session counts, and leaves no record."""
    service = await serve()
    impatient = await serve(database=service.database.name, longest_turn=0.3)
    call = connect(service).start(SLOW)
    await until_text(call, "t1 ")
    late = await connect(service.at(impatient.target)).converse(
        "me too", on_busy=turn_pb.ON_BUSY_WAIT, request_id="late"
    )
    call.cancel()
    session = await free(service)

    assert late.failure is not None
    assert (late.failure.code, late.failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert late.responses == ()
    assert session["message_count"] == 2
    assert service.database["turns"].count_documents({"request_id": "late"}) == 0


async def _settled(caller: Caller) -> bool:
    return (await caller.metrics()).totals.pending_calls == 0


async def test_slow_reader_gets_merged_deltas_and_exact_text(service: Service) -> None:
    """A reader that pauses gets fewer messages afterwards, in order, and every character."""
    text = " ".join(f"{number:04}" * 50 for number in range(1_000))  # more than the connection buffers
    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16_384)]
    async with grpc.aio.insecure_channel(service.target, options=small_window) as channel:
        caller = Caller(service, channel)
        call = caller.start(f'@sandbox plain text="{text}" delay_ms=1 first_delay_ms=0')
        first = await anext(aiter(call))
        await free(service)
        rest = await read(call)

    turn = callers.Turn((first, *rest.responses), rest.failure)
    assert turn.text == text
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert_increasing(turn.responses)
    assert max(len(each.text_delta.text) for each in turn.responses) <= 64 * 1024
    assert turn.responses[-1].sequence > len(turn.responses)  # each delta has kept its number


async def test_stopped_reader_delays_no_other_reader(caller: Caller, second_caller: Caller) -> None:
    """A reader that stops reading delays neither the turn nor other readers, here or on another server."""
    call = caller.start("@sandbox plain tokens=3000 delay_ms=0", on_disconnect=CONTINUE)
    turn_id = (await anext(aiter(call))).turn_id

    whole = await resume(second_caller, turn_id)
    assert whole.text == "".join(f"t{number} " for number in range(3_000))
    assert (await caller.converse("next", on_busy=turn_pb.ON_BUSY_WAIT)).finished
    assert joined((await read(call)).responses) == joined(whole.responses)[1:]


def fill(log: logs.EventLog, text: str) -> None:
    """Append deltas to a log until it is full."""
    while True:
        log.append(TextDelta(text))


@pytest.mark.parametrize("text", ["x", "\N{EURO SIGN}" * 20_000])
async def test_logs_filled_during_database_outage_are_stored(backends: Backends, new_database: str, text: str) -> None:
    """A log that was filled before its first flush is stored, and so are the logs beside it."""
    database = open_database(uri=backends.mongodb_uri, name=new_database)
    chunks = EventLogStore(database.collection("turn_logs"))
    log_flusher = EventLogFlusher(chunks, writer="replica", expiry=lambda: datetime.now(UTC) + timedelta(hours=1))
    full, other = (
        Turn(tenant_id="tenant", turn_id=name, request=TurnRequest(session_id="talk", text="hi"), epoch=0)
        for name in ("turn_full", "turn_other")
    )
    with pytest.raises(TurnTooLarge) as error:
        fill(full.log, text)
    other.log.append(TextDelta("hi"))
    for turn, reason in ((full, error.value), (other, None)):
        turn.log.end(reason)
        log_flusher.track(turn)
    await log_flusher.flush()

    for turn in (full, other):
        kept = [event for chunk in await chunks.read("tenant", turn.turn_id, after=-1) for event in chunk.events]
        assert tuple(kept) == turn.log.chunk(0, 0)[0]
    await database.close()


async def test_events_of_running_turn_are_readable_on_another_server(serve: Start, connect: Connect) -> None:
    """A reader on another server sees the events so far while the turn runs, and its end."""
    service = await serve()
    other = await serve(database=service.database.name)
    call = connect(service).start("@sandbox plain tokens=30 hold_after=6 hold=next", on_disconnect=CONTINUE)
    seen = await until_text(call, "t5 ")
    there = connect(service.at(other.target)).resume(seen[0].turn_id)
    before = await until_text(there, "t5 ")
    service.backends.allow("next")
    end = await read(call)

    rest = await read(there)
    assert joined([*before, *rest.responses]) == joined([*seen, *end.responses])
