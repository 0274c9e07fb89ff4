"""Heartbeats on a silent stream: the client sees that it is alive, and misses no event."""

from collections.abc import Callable
from typing import Any

from godoty.v1 import turn_pb2 as turn_pb

from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, cancel, until_text
from tests.support.caller import Caller, Turn, read
from tests.support.leases import SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Service

Connect = Callable[[Service], Caller]
SILENT = "@sandbox slow tokens=9 first_delay_ms=0 delay_ms=0 hold_after=3 record_ms=-1"
LAST = "t2 "  # the last text before the silence
FEW = 3


async def heartbeats(call: Any) -> list[turn_pb.TurnEvent]:
    """Read a stream until it has a few heartbeats in a row; return the events before, and the first heartbeat."""
    responses: list[turn_pb.TurnEvent] = []
    async for response in call:
        responses.append(response)
        if len(responses) >= FEW and all(each.HasField("heartbeat") for each in responses[-FEW:]):
            break
    return responses


async def test_silent_stream_gets_heartbeats_with_the_last_sequence(serve: Start, connect: Connect) -> None:
    """Converse and ResumeTurn repeat the last sequence until the turn ends."""
    caller = connect(await serve(stream_heartbeat=0.2))
    call = caller.start(SILENT)
    seen = await until_text(call, LAST)
    turn_id, last = seen[-1].turn_id, seen[-1].sequence
    seen = await heartbeats(call)
    resumed = await heartbeats(caller.resume(turn_id, last))
    await cancel(caller, turn_id)
    rest = await read(call)

    assert {(each.turn_id, each.sequence) for each in seen[-FEW:]} == {(turn_id, last)}
    assert {(each.turn_id, each.sequence) for each in resumed} == {(turn_id, last)}
    assert rest.failure is not None
    assert rest.failure.reason == "TURN_CANCELLED"


async def test_queued_turn_gets_heartbeats(serve: Start, connect: Connect) -> None:
    """A queued turn has no event yet: its heartbeats have sequence 0, and its events begin at 1."""
    caller = connect(await serve(stream_heartbeat=0.2))
    first = caller.start(SILENT)
    turn_id = (await until_text(first, LAST))[-1].turn_id
    second = caller.start("hello", on_busy=turn_pb.ON_BUSY_WAIT)
    waiting = await heartbeats(second)
    await cancel(caller, turn_id)
    rest = [each for each in (await read(second)).responses if not each.HasField("heartbeat")]

    assert {each.sequence for each in waiting} == {0}
    assert all(each.HasField("heartbeat") for each in waiting)
    assert (rest[0].sequence, rest[0].WhichOneof("event")) == (1, "turn_started")
    assert rest[-1].HasField("turn_finished")


async def test_stream_with_events_gets_no_heartbeat(serve: Start, connect: Connect) -> None:
    """A stream whose events are more frequent has no silence; with an interval of 0 there are no heartbeats."""
    for seconds, text in (
        (10, "@sandbox slow tokens=60 first_delay_ms=0 delay_ms=200"),
        (0, "@sandbox slow tokens=2"),
    ):
        caller = connect(await serve(stream_heartbeat=seconds))
        turn = await caller.converse(text)

        assert turn.finished
        assert "heartbeat" not in turn.kinds


async def test_resumed_turn_of_a_killed_server_gets_heartbeats_until_its_end(
    serve: Start, serve_process: StartProcess, connect: Connect
) -> None:
    """While the dead server's lease is valid, its turn cannot end: the remote reader gets heartbeats, then the end."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    call = connect(service).start(SILENT, on_disconnect=CONTINUE)
    turn_id = (await until_text(call, LAST))[-1].turn_id
    other = await serve(database=service.database.name, **SURVIVOR, stream_heartbeat=0.3)
    reading = connect(service.at(other.target)).resume(turn_id)
    seen = await heartbeats(reading)
    await process.kill()
    rest = await read(reading)
    turn = Turn((*seen, *rest.responses), rest.failure)

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_INTERRUPTED
    assert rest.kinds[-2:] == ["heartbeat", "turn_finished"]
    last = 0
    for response in turn.responses:
        if response.HasField("heartbeat"):
            assert response.sequence == last
        last = response.sequence
