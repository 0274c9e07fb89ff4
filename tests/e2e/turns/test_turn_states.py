"""GetTurn and ListTurns agree with the stream of the turn, on every server, also after the loss of its own."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb
from google.protobuf.timestamp_pb2 import Timestamp

from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, SLOW, cancel, free, resume, until_text
from tests.support.caller import Caller, Failure, Turn, failure_of, read
from tests.support.leases import SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Service, eventually, soon

PAGE = 65_536  # bytes
MODEL = "openai/gpt-4o-mini"
RUNNING, ENDED, WAITING = turn_pb.TURN_STATE_RUNNING, turn_pb.TURN_STATE_ENDED, turn_pb.TURN_STATE_WAITING


async def get(caller: Caller, turn_id: str) -> turn_pb.Turn:
    """Return a turn."""
    found: turn_pb.Turn = (await caller.call("GetTurn", pb.GetTurnRequest(turn_id=turn_id))).turn
    return found


async def missing(caller: Caller, turn_id: str) -> bool:
    """Return whether a turn is not found, by itself and in the list."""
    failure = await failure_of(get(caller, turn_id))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")
    return turn_id not in [each.turn_id for each in await listed(caller)]


async def listed(caller: Caller, **fields: Any) -> list[turn_pb.Turn]:
    """Return all turns of a list, over its pages."""
    request, found = pb.ListTurnsRequest(**fields), []
    while True:
        page = await caller.call("ListTurns", request)
        found += page.turns
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def until_ended(caller: Caller, turn_id: str) -> turn_pb.Turn:
    """Return a turn once its end is stored: readers in memory see it a little earlier."""

    async def ended() -> bool:
        return (await get(caller, turn_id)).state == ENDED

    await eventually(ended)
    return await get(caller, turn_id)


def time_of(stamp: Timestamp) -> datetime:
    """Return a time."""
    return stamp.ToDatetime(tzinfo=UTC)


async def test_ended_turn_is_as_its_stream_was(caller: Caller, second_caller: Caller) -> None:
    """Its request, its stop reason, its cost and its times; the same from both servers and in both lists."""
    turn = await caller.converse(
        "@sandbox tool-loop calls=2", model=MODEL, user="ada", request_id="first", on_disconnect=CONTINUE
    )
    first, last = turn.responses[0], turn.responses[-1]
    found = await get(caller, first.turn_id)

    assert found.state == ENDED
    assert (found.stop_reason, found.error_reason) == (turn_pb.STOP_REASON_END_TURN, "")
    assert (found.turn_id, found.session_id, found.request_id) == (first.turn_id, "talk", "first")
    assert (found.model, found.user) == (MODEL, "ada")
    assert found.totals == turn.finished.turn_totals
    assert found.end_time == last.time
    assert time_of(found.create_time) <= time_of(first.time) <= time_of(last.time)
    assert await until_ended(second_caller, first.turn_id) == found
    for client in (caller, second_caller):
        assert await listed(client) == await listed(client, session_id="talk") == [found]
        assert await listed(client, state=ENDED) == [found]
        assert await listed(client, state=RUNNING) == await listed(client, session_id="other") == []


async def test_times_of_events_are_those_of_the_turn(caller: Caller, second_caller: Caller) -> None:
    """They do not decrease, lie between the turn's times, and are the same from the other server."""
    before = datetime.now(UTC) - timedelta(seconds=5)
    turn = await caller.converse("@sandbox tool-loop calls=3 reasoning=4 delay_ms=3")
    times = [time_of(each.time) for each in turn.responses]

    assert all(each.HasField("time") for each in turn.responses)
    assert times == sorted(times)
    assert before < times[0] <= times[-1] < datetime.now(UTC) + timedelta(seconds=5)
    again = await resume(second_caller, turn.responses[0].turn_id)
    shown = {each.sequence: each.time for each in turn.responses}
    assert all(shown.get(each.sequence, each.time) == each.time for each in again.responses)


async def test_failed_turn_has_its_reason(caller: Caller, second_caller: Caller) -> None:
    """A provider's failure and a cancel: the reason that the readers got, and what it cost."""
    failed = await caller.converse("@sandbox error-mid n=3 usage=1", session_id="fails")
    call = caller.start(SLOW, session_id="stops", on_disconnect=CONTINUE)
    seen = await until_text(call, "t2 ")
    await cancel(second_caller, seen[0].turn_id)
    cancelled = await read(call)
    for turn_id, turn in ((failed.responses[0].turn_id, failed), (seen[0].turn_id, cancelled)):
        assert turn.failure is not None
        for client in (caller, second_caller):
            found = await until_ended(client, turn_id)
            assert (found.stop_reason, found.error_reason) == (0, turn.failure.reason)
            assert found.totals.model_calls == 1
            assert found.HasField("end_time")


async def test_running_and_waiting_turns_are_distinguished(caller: Caller, second_caller: Caller) -> None:
    """On the server where a turn waits, and on the other one; only the one that holds the session is running."""
    call = caller.start("@sandbox plain tokens=9 hold_after=3 hold=states", on_disconnect=CONTINUE, request_id="first")
    running_id = (await until_text(call, "t2 "))[0].turn_id
    waiting = [
        asyncio.create_task(client.converse("hi", on_busy=turn_pb.ON_BUSY_WAIT, request_id=f"{client.service.target}"))
        for client in (caller, second_caller)
    ]
    turns = caller.service.database["turns"]
    await soon(lambda: turns.count_documents({"tenant_id": caller.service.tenant_id}) == 3)
    for client in (caller, second_caller):
        found = await listed(client)
        assert [each.state for each in found] == [WAITING, WAITING, RUNNING]
        assert found[-1].turn_id == running_id
        assert not any(each.HasField("end_time") for each in found)
        assert found == await listed(client, session_id="talk") == [await get(client, each.turn_id) for each in found]
        assert (
            await listed(client, state=RUNNING) == await listed(client, state=RUNNING, session_id="talk") == found[2:]
        )
        assert await listed(client, state=RUNNING, session_id="other") == await listed(client, state=ENDED) == []
    caller.service.backends.allow("states")
    await asyncio.gather(read(call), *waiting)
    for client in (caller, second_caller):
        await asyncio.gather(*(until_ended(client, each.turn_id) for each in await listed(client)))
        assert await listed(client, state=RUNNING) == []


async def test_pages_are_bound_to_their_query(caller: Caller, second_caller: Caller) -> None:
    """Newest first over pages of any size; a token of another session or state is refused."""
    turns = [(await caller.converse("hi", session_id=f"s{number % 2}")).responses[0].turn_id for number in range(7)]
    await until_ended(second_caller, turns[-1])
    for client in (caller, second_caller):
        for size in (1, 2, 3, 7, 500):
            assert [each.turn_id for each in await listed(client, page_size=size)] == turns[::-1]
            in_session = await listed(client, page_size=size, session_id="s0", state=ENDED)
            assert [each.turn_id for each in in_session] == turns[::-2]
    token = (await caller.call("ListTurns", pb.ListTurnsRequest(page_size=2))).next_page_token
    for other in ({"session_id": "s0"}, {"state": ENDED}):
        refused = await failure_of(caller.call("ListTurns", pb.ListTurnsRequest(page_token=token, **other)))
        assert list(refused.fields) == ["page_token"]


async def test_page_is_bounded_in_bytes(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """A page ends before it is larger than the setting, and the next one continues after it."""
    caller = connect(await serve(page_bytes=PAGE))
    turn_id = (await caller.converse("hi")).responses[0].turn_id
    await soon(lambda: caller.service.database["turn_logs"].count_documents({"ended": True}) == 1)
    copies = [f"turn_{number:028x}" for number in range(1, 301)]
    for name, key in (("turns", ""), ("turn_logs", "/00000000")):
        collection = caller.service.database[name]
        (document,) = collection.find({"ended": True} if key else {})
        document |= {"session_id": "s" * 128, "model": "m" * 128}
        collection.insert_many({**document, "_id": f"{each}{key}", "turn_id": each} for each in copies)
    page = await caller.call("ListTurns", pb.ListTurnsRequest(page_size=500))

    assert 50 < len(page.turns) < 300
    assert page.ByteSize() < PAGE + 1000
    assert [each.turn_id for each in await listed(caller, page_size=500)] == [turn_id, *copies[::-1]]


async def test_refused_turn_is_not_found(caller: Caller, second_caller: Caller) -> None:
    """A turn that was refused before it began, and one that was cancelled in line, are unknown."""
    call = caller.start(SLOW)
    await until_text(call, "t2 ")
    assert failure_reason(await second_caller.converse("me too", request_id="busy")) == "SESSION_BUSY"
    waiting = asyncio.create_task(second_caller.converse("me too", on_busy=turn_pb.ON_BUSY_WAIT, request_id="waits"))
    turns = caller.service.database["turns"]
    await soon(lambda: turns.count_documents({"request_id": "waits", "tenant_id": caller.service.tenant_id}) == 1)
    (waiting_id,) = turns.distinct("_id", {"request_id": "waits", "tenant_id": caller.service.tenant_id})
    await cancel(second_caller, waiting_id)
    assert failure_reason(await waiting) == "TURN_CANCELLED"
    for client in (caller, second_caller):
        assert await missing(client, waiting_id)
        assert len(await listed(client)) == 1
    call.cancel()
    await free(caller.service)


def failure_reason(turn: Turn) -> str:
    """Return the reason for which a turn failed."""
    failure: Failure | None = turn.failure
    assert failure is not None
    return failure.reason


async def test_deleted_sessions_turns_are_not_found(caller: Caller, second_caller: Caller) -> None:
    """Those with a request id as well, whose records remain; a session of the same id has only its own turns."""
    turns = [await caller.converse("hi", request_id=each) for each in ("", "kept")]
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))
    again = (await caller.converse("hi")).responses[0].turn_id
    for client in (caller, second_caller):
        for turn in turns:
            assert await missing(client, turn.responses[0].turn_id)
        assert [each.turn_id for each in await listed(client, session_id="talk")] == [again]


async def test_turn_of_dead_server_is_interrupted(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """It is running until the server counts as dead, then it has ended, as ResumeTurn shows; its end is stored once."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    caller = connect(service)
    turn_id = (await until_text(caller.start(SLOW, on_disconnect=CONTINUE), "t2 "))[0].turn_id
    other = await serve(database=service.database.name, **SURVIVOR)
    survivor = connect(service.at(other.target))
    assert (await get(survivor, turn_id)).state == RUNNING
    assert [each.turn_id for each in await listed(survivor, state=RUNNING)] == [turn_id]
    await process.kill()
    found = await until_ended(survivor, turn_id)

    assert (found.stop_reason, found.error_reason) == (turn_pb.STOP_REASON_INTERRUPTED, "")
    rest = await resume(survivor, turn_id)
    assert rest.finished.stop_reason == turn_pb.STOP_REASON_INTERRUPTED
    assert (found.totals, found.end_time) == (rest.finished.turn_totals, rest.responses[-1].time)
    assert await listed(survivor, state=RUNNING) == []
    assert await listed(survivor) == [found]
    turn = await survivor.converse("and now?", on_busy=turn_pb.ON_BUSY_WAIT)
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert (await listed(survivor))[1] == found
    assert service.database["turn_logs"].count_documents({"turn_id": turn_id, "ended": True}) == 1


async def test_turn_that_never_began_is_not_found(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """Its server died while it waited in line: its record is deleted, and its request id is free."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    other = await serve(database=service.database.name, **SURVIVOR)
    caller, survivor = connect(service), connect(service.at(other.target))
    call = survivor.start(SLOW)
    await until_text(call, "t2 ")
    waiting = asyncio.create_task(caller.converse("hi", on_busy=turn_pb.ON_BUSY_WAIT, request_id="lost"))
    turns = service.database["turns"]
    await soon(lambda: turns.count_documents({"request_id": "lost"}) == 1)
    (turn_id,) = turns.distinct("_id", {"request_id": "lost"})
    assert (await get(survivor, turn_id)).state == WAITING
    await process.kill()
    await waiting

    async def gone() -> bool:
        return turn_id not in [each.turn_id for each in await listed(survivor)]

    await eventually(gone)
    assert await missing(survivor, turn_id)
    assert turns.count_documents({"request_id": "lost"}) == 0
    call.cancel()
    await free(service)


async def test_turns_of_earlier_builds_are_read(caller: Caller, second_caller: Caller) -> None:
    """Their documents have no times and no model: those fields are unset, and nothing else is missing."""
    turn = await caller.converse("hi", model=MODEL)
    turn_id = turn.responses[0].turn_id
    found = await until_ended(second_caller, turn_id)
    database = caller.service.database
    database["turns"].update_one({"_id": turn_id}, {"$unset": {"model": ""}})
    database["turn_logs"].update_many({"turn_id": turn_id}, {"$unset": {"times": "", "end_time": ""}})

    found.ClearField("model")
    found.ClearField("end_time")
    assert await get(second_caller, turn_id) == found
    again = await resume(second_caller, turn_id)
    assert not any(each.HasField("time") for each in again.responses)
    assert again.text == turn.text


async def test_reconciled_cost_is_included(caller: Caller) -> None:
    """A call whose cost was unknown at the turn's end counts with it once it is known."""
    turn = await caller.converse("@sandbox error-mid n=3 usage=0 record_ms=100")
    turn_id = turn.responses[0].turn_id

    async def settled() -> bool:
        return (await get(caller, turn_id)).totals.pending_calls == 0

    await eventually(settled)
    assert (await get(caller, turn_id)).totals.cost_usd == str(caller.service.entries("talk")[0].cost)


@pytest.mark.parametrize("method", ["GetTurn", "ListTurns"])
async def test_retention_is_that_of_the_log(serve: Start, connect: Callable[[Service], Caller], method: str) -> None:
    """An expired record is not found, even while the database has not deleted it."""
    caller = connect(await serve())
    turn_id = (await caller.converse("hi")).responses[0].turn_id
    assert await get(caller, turn_id)
    expired = {"$set": {"expire_time": datetime.now(UTC) - timedelta(seconds=5)}}
    caller.service.database["turns"].update_one({"_id": turn_id}, expired)

    if method == "GetTurn":
        assert (await failure_of(get(caller, turn_id))).reason == "TURN_NOT_FOUND"
    else:
        assert await listed(caller) == []
