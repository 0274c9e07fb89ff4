"""One request id is one turn and one charge, for any number of requests to any server, while its log lives."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import turn_pb2 as turn_pb

from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, RICH, SLOW, cancel, free, joined, resume, until_text
from tests.support.caller import Caller, Turn, read
from tests.support.history import assert_valid_history
from tests.support.service import Service, eventually, soon

RETENTION = 7.0
LONGEST = 900.0
ACCURACY = timedelta(seconds=1)  # of a server's clock, which knows the database's time to within a round trip


def failed(turn: Turn) -> tuple[grpc.StatusCode, str]:
    """Return how a turn failed."""
    assert turn.failure is not None
    return turn.failure.code, turn.failure.reason


@pytest.mark.parametrize("session_exists", [False, True])
async def test_twenty_concurrent_requests_are_one_turn(
    caller: Caller, second_caller: Caller, *, session_exists: bool
) -> None:
    """Ten times to each of two servers: one chain of upstream calls, one charge, and twenty equal streams."""
    for number in range(2):  # which server is first, and in which operation, is random
        session_id = f"once-{number}"
        if session_exists:
            await caller.converse("hi", session_id=session_id)
        old = len(caller.service.entries(session_id))
        turns = await asyncio.gather(
            *(
                client.converse(RICH, session_id=session_id, request_id=session_id)
                for _ in range(10)
                for client in (caller, second_caller)
            ),
        )

        first = turns[0]
        assert [turn.failure for turn in turns] == [None] * 20
        assert len(first.calls) == 3
        assert {tuple(joined(turn.responses)) for turn in turns} == {tuple(joined(first.responses))}
        entries = caller.service.entries(session_id)
        assert len(caller.service.requests(session_id)) == len(entries) == 3 + old
        assert caller.service.invoiced(session_id) == sum(entry.cost or 0 for entry in entries)
        assert_valid_history(await caller.messages(session_id))
        assert (await caller.metrics(session_id)).totals == first.finished.session_totals


async def test_other_request_with_used_id_is_refused(caller: Caller, second_caller: Caller) -> None:
    """During and after its turn: ALREADY_EXISTS with REQUEST_ID_REUSED for any difference, on both servers."""
    call = caller.start(SLOW, request_id="mine", on_disconnect=CONTINUE)
    turn_id = (await until_text(call, "t2 "))[0].turn_id
    others: tuple[dict[str, Any], ...] = (
        {"text": "hi"},
        {"session_id": "else"},
        {"model": "openai/gpt-4o-mini"},
        {"on_busy": turn_pb.ON_BUSY_WAIT},
    )
    for client in (caller, second_caller):
        for other in others:
            fields: dict[str, Any] = {"text": SLOW, "on_disconnect": CONTINUE, "request_id": "mine", **other}
            refused = await client.converse(**fields)
            assert failed(refused) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
            assert refused.responses == ()
    await cancel(caller, turn_id)
    await free(caller.service)
    for client in (caller, second_caller):
        assert failed(await client.converse("hi", request_id="mine"))[1] == "REQUEST_ID_REUSED"
    assert len(caller.service.entries("talk")) == 1


async def test_request_ids_are_scoped_to_tenant(caller: Caller, other_tenant: Caller) -> None:
    """Two tenants can use the same id; each has its own turn."""
    mine, his = await asyncio.gather(*(client.converse("hi", request_id="one") for client in (caller, other_tenant)))

    assert mine.finished.stop_reason == his.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert mine.responses[0].turn_id != his.responses[0].turn_id


async def test_replay_is_identical(caller: Caller, second_caller: Caller) -> None:
    """After its end a turn is replayed on both servers, without a new call or message."""
    turn = await caller.converse(RICH, request_id="again")
    for client in (caller, second_caller, caller):
        assert joined((await client.converse(RICH, request_id="again")).responses) == joined(turn.responses)

    assert len(caller.service.entries("talk")) == len(turn.calls)
    assert len(await caller.messages()) == 6
    assert joined((await resume(second_caller, turn.responses[0].turn_id)).responses) == joined(turn.responses)


@pytest.mark.parametrize("scenario", ["@sandbox error-mid n=3 usage=1", "@sandbox error-before status=400"])
async def test_replay_of_failed_turn_fails_without_charge(caller: Caller, second_caller: Caller, scenario: str) -> None:
    """The replay of a failed turn has the same events and the same error."""
    turn = await caller.converse(scenario, request_id="fails")
    assert turn.failure is not None
    entries = caller.service.entries("talk")

    for client in (second_caller, caller):
        again = await client.converse(scenario, request_id="fails")
        assert joined(again.responses) == joined(turn.responses)
        assert again.failure == turn.failure
    assert len(caller.service.entries("talk")) == len(entries) == len(turn.calls)


async def test_replay_of_cancelled_turn_is_cancelled(caller: Caller, second_caller: Caller) -> None:
    """The replay of a cancelled turn ends as cancelled, and makes no model call."""
    call = caller.start(SLOW, request_id="stop")
    seen = await until_text(call, "t2 ")
    await cancel(caller, seen[0].turn_id)
    first = await read(call)
    assert failed(first) == (grpc.StatusCode.CANCELLED, "TURN_CANCELLED")

    for client in (caller, second_caller):
        again = await client.converse(SLOW, request_id="stop")
        assert failed(again) == failed(first)
        assert joined(again.responses) == joined([*seen, *first.responses])
    assert len(caller.service.entries("talk")) == 1


async def test_refused_turn_releases_request_id(caller: Caller, second_caller: Caller) -> None:
    """A turn that is refused as busy or invalid releases its id, on every server, from the moment of the refusal."""
    call = caller.start(SLOW, user="ada")
    await until_text(call, "t2 ")
    for client in (caller, second_caller, caller):
        assert failed(await client.converse("me too", user="ada", request_id="free"))[1] == "SESSION_BUSY"
    call.cancel()
    await free(caller.service)

    async def refused() -> str:
        reason = failed(await caller.converse("me too", user="bob", request_id="free"))[1]
        return "" if reason == "SESSION_BUSY" else reason

    await eventually(refused)  # the turn's server releases the session in its own memory a moment later
    for client in (caller, second_caller):
        assert failed(await client.converse("me too", user="bob", request_id="free"))[1] == "INVALID_FIELD"
        assert failed(await client.converse("", user="ada", request_id="free"))[1] == "INVALID_FIELD"

    turns = await asyncio.gather(
        *(client.converse("me too", user="ada", request_id="free") for client in (second_caller, caller))
    )
    assert [turn.failure for turn in turns] == [None, None]
    assert joined(turns[0].responses) == joined(turns[1].responses)
    assert len(caller.service.entries("talk")) == 2
    assert caller.service.database["turns"].count_documents({"tenant_id": caller.service.tenant_id}) == 2


async def test_concurrent_duplicates_of_refused_turn_are_refused(caller: Caller, second_caller: Caller) -> None:
    """Sent many times at once to two servers while the session is busy, each is SESSION_BUSY, and none is not found."""
    call = caller.start(SLOW)
    await until_text(call, "t2 ")
    for number in range(4):
        turns = await asyncio.gather(
            *(
                client.converse("me too", request_id=f"busy-{number}")
                for _ in range(3)
                for client in (caller, second_caller)
            )
        )
        assert {failed(turn) for turn in turns} == {(grpc.StatusCode.ABORTED, "SESSION_BUSY")}
    call.cancel()
    await free(caller.service)


async def test_request_id_survives_restart(serve_process: StartProcess, connect: Callable[[Service], Caller]) -> None:
    """After a restart, in order or not, the same id replays its turn."""
    process, service = await serve_process()
    caller = connect(service)
    turn = await caller.converse(RICH, request_id="kept")
    await soon(lambda: service.database["turn_logs"].count_documents({"ended": True}) == 1)
    await process.kill()
    await process.start()

    again = await caller.converse(RICH, request_id="kept")
    assert joined(again.responses) == joined(turn.responses)
    assert len(service.entries("talk")) == len(turn.calls)


async def test_request_id_expires_before_its_log(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """The record expires after the promised time, its log an hour later; then the id can be used again."""
    caller = connect(await serve(turn_log_retention=RETENTION, longest_turn=LONGEST))
    begun = datetime.now(UTC) - ACCURACY
    turn = await caller.converse(RICH, request_id="dated")
    turn_id, database = turn.responses[0].turn_id, caller.service.database
    await soon(lambda: database["turn_logs"].count_documents({"turn_id": turn_id, "ended": True}) == 1)
    ended = datetime.now(UTC) + ACCURACY

    record = database["turns"].find_one({"_id": turn_id})
    assert record is not None
    logs = [each["expire_time"] for each in database["turn_logs"].find()]
    kept, margin = timedelta(seconds=RETENTION + LONGEST), timedelta(hours=1)
    assert begun + kept < record["expire_time"] < ended + kept
    assert all(begun + kept + margin < date < ended + kept + margin for date in logs)
    for name in ("turns", "turn_logs"):
        (index,) = [each for each in database[name].index_information().values() if each["key"] == [("expire_time", 1)]]
        assert index["expireAfterSeconds"] == 0
        database[name].delete_many({})  # as MongoDB deletes expired documents, once a minute
    assert failed(await resume(caller, turn_id)) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")
    assert (await caller.converse(RICH, request_id="dated")).responses[0].turn_id != turn_id
