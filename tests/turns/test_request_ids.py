"""The same request id is one turn and one charge, however often and wherever it is sent, while its log lives."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.conftest import Start, StartProcess
from tests.service.caller import Caller, Turn, read
from tests.service.history import assert_whole
from tests.service.service import Service
from tests.turns.streams import CONTINUE, RICH, SLOW, cancel, free, joined, resume, until, until_text

RETENTION = 7.0
LONGEST = 900.0


def failed(turn: Turn) -> tuple[grpc.StatusCode, str]:
    """Tell how a turn failed."""
    assert turn.failure is not None
    return turn.failure.code, turn.failure.reason


@pytest.mark.parametrize("session_exists", [False, True])
async def test_twenty_at_once_are_one_turn(caller: Caller, twin: Caller, *, session_exists: bool) -> None:
    """Ten times to each of two servers: one chain of upstream calls, one charge, and twenty equal streams."""
    for number in range(3):  # which of the two servers is first, and in what, is left to chance
        session_id = f"once-{number}"
        if session_exists:
            await caller.converse("hi", session_id=session_id)
        old = len(caller.service.entries(session_id))
        turns = await asyncio.gather(
            *(
                who.converse(RICH, session_id=session_id, request_id=session_id)
                for _ in range(10)
                for who in (caller, twin)
            ),
        )

        first = turns[0]
        assert [turn.failure for turn in turns] == [None] * 20
        assert len(first.calls) == 3
        assert {tuple(joined(turn.responses)) for turn in turns} == {tuple(joined(first.responses))}
        entries = caller.service.entries(session_id)
        assert len(caller.service.requests(session_id)) == len(entries) == 3 + old
        assert caller.service.invoiced(session_id) == sum(entry.cost or 0 for entry in entries)
        assert_whole(await caller.messages(session_id))
        assert (await caller.metrics(session_id)).totals == first.finished.session_totals


async def test_another_request_under_the_id_is_refused(caller: Caller, twin: Caller) -> None:
    """While its turn runs and after it: ALREADY_EXISTS with REQUEST_ID_REUSED, whatever differs, on both servers."""
    call = caller.start(SLOW, request_id="mine", on_disconnect=CONTINUE)
    turn_id = (await until_text(call, "t2 "))[0].turn_id
    others: tuple[dict[str, Any], ...] = (
        {"text": "hi"},
        {"session_id": "else"},
        {"model": "openai/gpt-4o-mini"},
        {"on_busy": pb.ON_BUSY_WAIT},
    )
    for who in (caller, twin):
        for other in others:
            fields: dict[str, Any] = {"text": SLOW, "on_disconnect": CONTINUE, "request_id": "mine", **other}
            refused = await who.converse(**fields)
            assert failed(refused) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
            assert refused.responses == ()
    await cancel(caller, turn_id)
    await free(caller.service)
    for who in (caller, twin):
        assert failed(await who.converse("hi", request_id="mine"))[1] == "REQUEST_ID_REUSED"
    assert len(caller.service.entries("talk")) == 1


async def test_ids_are_the_tenants_own(caller: Caller, stranger: Caller) -> None:
    """Two tenants may use the same id; each has a turn of his own."""
    mine, his = await asyncio.gather(*(who.converse("hi", request_id="one") for who in (caller, stranger)))

    assert mine.finished.stop_reason == his.finished.stop_reason == pb.STOP_REASON_END_TURN
    assert mine.responses[0].turn_id != his.responses[0].turn_id


async def test_a_replay_is_the_same_to_the_byte(caller: Caller, twin: Caller) -> None:
    """After its end a turn is replayed, here and there, without a new call and without a new message."""
    turn = await caller.converse(RICH, request_id="again")
    for who in (caller, twin, caller):
        assert joined((await who.converse(RICH, request_id="again")).responses) == joined(turn.responses)

    assert len(caller.service.entries("talk")) == len(turn.calls)
    assert len(await caller.messages()) == 6
    assert joined((await resume(twin, turn.responses[0].turn_id)).responses) == joined(turn.responses)


@pytest.mark.parametrize("scenario", ["@sandbox error-mid n=3 usage=1", "@sandbox error-before status=400"])
async def test_a_failed_turn_fails_again_and_is_not_charged_again(caller: Caller, twin: Caller, scenario: str) -> None:
    """The replay of a failed turn shows what it showed and fails as it failed."""
    turn = await caller.converse(scenario, request_id="fails")
    assert turn.failure is not None
    entries = caller.service.entries("talk")

    for who in (twin, caller):
        again = await who.converse(scenario, request_id="fails")
        assert joined(again.responses) == joined(turn.responses)
        assert again.failure == turn.failure
    assert len(caller.service.entries("talk")) == len(entries) == len(turn.calls)


async def test_a_cancelled_turn_stays_cancelled(caller: Caller, twin: Caller) -> None:
    """The replay of a turn that was cancelled ends as cancelled, and calls nobody."""
    call = caller.start(SLOW, request_id="stop")
    seen = await until_text(call, "t2 ")
    await cancel(caller, seen[0].turn_id)
    first = await read(call)
    assert failed(first) == (grpc.StatusCode.CANCELLED, "TURN_CANCELLED")

    for who in (caller, twin):
        again = await who.converse(SLOW, request_id="stop")
        assert failed(again) == failed(first)
        assert joined(again.responses) == joined([*seen, *first.responses])
    assert len(caller.service.entries("talk")) == 1


async def test_a_refused_turn_does_not_use_its_id_up(caller: Caller, twin: Caller) -> None:
    """A turn refused as busy or as invalid leaves its id free, on every server, from the moment it is refused."""
    call = caller.start(SLOW, user="ada")
    await until_text(call, "t2 ")
    for who in (caller, twin, caller):
        assert failed(await who.converse("me too", user="ada", request_id="free"))[1] == "SESSION_BUSY"
    call.cancel()
    await free(caller.service)
    for who in (caller, twin):
        assert failed(await who.converse("me too", user="bob", request_id="free"))[1] == "INVALID_FIELD"
        assert failed(await who.converse("", user="ada", request_id="free"))[1] == "INVALID_FIELD"

    turns = await asyncio.gather(*(who.converse("me too", user="ada", request_id="free") for who in (twin, caller)))
    assert [turn.failure for turn in turns] == [None, None]
    assert joined(turns[0].responses) == joined(turns[1].responses)
    assert len(caller.service.entries("talk")) == 2
    assert caller.service.database["turns"].count_documents({"tenant_id": caller.service.tenant_id}) == 2


async def test_twins_of_a_refused_turn_are_refused_alike(caller: Caller, twin: Caller) -> None:
    """Sent many times at once to two servers while the session is busy, each is SESSION_BUSY: none is not found."""
    call = caller.start(SLOW)
    await until_text(call, "t2 ")
    for number in range(4):
        turns = await asyncio.gather(
            *(who.converse("me too", request_id=f"busy-{number}") for _ in range(3) for who in (caller, twin))
        )
        assert {failed(turn) for turn in turns} == {(grpc.StatusCode.ABORTED, "SESSION_BUSY")}
    call.cancel()
    await free(caller.service)


async def test_an_id_outlives_its_server(serve_process: StartProcess, connect: Callable[[Service], Caller]) -> None:
    """After a restart, in order or not, the same id replays its turn."""
    process, service = await serve_process()
    caller = connect(service)
    turn = await caller.converse(RICH, request_id="kept")
    await until(lambda: service.database["turn_logs"].count_documents({"ended": True}) == 1)
    await process.kill()
    await process.start()

    again = await caller.converse(RICH, request_id="kept")
    assert joined(again.responses) == joined(turn.responses)
    assert len(service.entries("talk")) == len(turn.calls)


async def test_an_id_is_kept_as_long_as_its_log(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """The record expires past what is promised after the end, its log an hour later; then the id is free."""
    caller = connect(await serve(turn_log_retention=RETENTION, longest_turn=LONGEST))
    begun = datetime.now(UTC) - timedelta(milliseconds=1)  # the database keeps no less
    turn = await caller.converse(RICH, request_id="dated")
    turn_id, database = turn.responses[0].turn_id, caller.service.database
    await until(lambda: database["turn_logs"].count_documents({"turn_id": turn_id, "ended": True}) == 1)
    ended = datetime.now(UTC)

    record = database["turns"].find_one({"_id": turn_id})
    assert record is not None
    logs = [each["expire_time"] for each in database["turn_logs"].find()]
    kept, margin = timedelta(seconds=RETENTION + LONGEST), timedelta(hours=1)
    assert begun + kept < record["expire_time"] < ended + kept
    assert all(begun + kept + margin < date < ended + kept + margin for date in logs)
    for name in ("turns", "turn_logs"):
        (index,) = [each for each in database[name].index_information().values() if each["key"] == [("expire_time", 1)]]
        assert index["expireAfterSeconds"] == 0
        database[name].delete_many({})  # as MongoDB does it, once a minute
    assert failed(await resume(caller, turn_id)) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")
    assert (await caller.converse(RICH, request_id="dated")).responses[0].turn_id != turn_id
