"""The part of an answer that a killed server had shown is stored in the session's messages, and marked."""

import asyncio
from collections.abc import Callable

import grpc
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.sessions.history_repair import INTERRUPTED
from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import CONTINUE, SLOW, last_stored_sequence, resume, until_text
from tests.support.caller import Caller, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.leases import HEARTBEAT, SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Service, soon
from tests.support.waiting import when_free

Connect = Callable[[Service], Caller]
_ROUNDING = 0.002  # seconds; times are rounded to milliseconds
LEASE = 9.0  # seconds, of which some must be left when a busy machine asks
# The first answer calls a tool and is complete; the second streams a token every 50 ms.
LOOP = "@sandbox tool-loop calls=2 tool=calculator tokens=60 delay_ms=50 hold_after=40 record_ms=-1"


async def killed(process_of: StartProcess, connect: Connect, text: str, until_shown: str) -> tuple[Caller, str]:
    """Kill a server once its log has the shown text; return the caller and the turn's id."""
    process, service = await process_of(**SHORT_LEASE_ENVIRONMENT)
    caller = connect(service)
    call = caller.start(text, on_disconnect=CONTINUE)
    seen = await until_text(call, until_shown)
    turn_id = seen[0].turn_id
    await soon(lambda: last_stored_sequence(service, turn_id) >= seen[-1].sequence)
    await process.kill()
    assert (await read(call)).failure is not None
    return caller, turn_id


async def test_shown_text_is_in_the_messages_after_a_takeover(
    serve: Start, serve_process: StartProcess, connect: Connect
) -> None:
    """ListMessages has the same text as ResumeTurn, marked as interrupted, and the model sees it in the next turn."""
    dead, turn_id = await killed(serve_process, connect, SLOW, "t20 ")
    other = await serve(database=dead.service.database.name, **SURVIVOR)
    survivor = connect(dead.service.at(other.target))
    turn, _ = await when_free(survivor, "and now?")
    shown = await resume(survivor, turn_id)

    messages = await survivor.messages()
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert shown.finished.stop_reason == turn_pb.STOP_REASON_INTERRUPTED
    assert "t20 " in shown.text
    assert [each.content[0].text for each in messages] == [
        SLOW,
        f"{shown.text}\n\n{INTERRUPTED}",
        "and now?",
        turn.text,
    ]
    assert messages[1].turn_id == turn_id
    assert shown.text in str(survivor.service.requests("talk")[-1]["messages"])
    assert_valid_history(messages)
    assert_valid_request(survivor.service.requests("talk")[-1]["messages"])


async def test_answer_before_the_interrupted_one_is_not_repeated(
    serve: Start, serve_process: StartProcess, connect: Connect
) -> None:
    """A loop that dies in its second answer has the first one once, its tool's real result, and the second's part."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    caller = connect(service)
    call = caller.start(LOOP, on_disconnect=CONTINUE)
    seen = []
    async for response in call:
        seen.append(response)
        tools = [each for each in seen if each.HasField("tool_call_finished")]
        if tools and response.HasField("text_delta") and seen.index(tools[0]) + 3 < len(seen):
            break
    turn_id = seen[0].turn_id
    await soon(lambda: last_stored_sequence(service, turn_id) >= seen[-1].sequence)
    await process.kill()
    other = await serve(database=service.database.name, **SURVIVOR)
    survivor = connect(service.at(other.target))
    await when_free(survivor, "and now?")

    messages = await survivor.messages()
    shown = await resume(survivor, turn_id)
    assert_valid_history(messages)
    texts = [block.text for each in messages if each.turn_id == turn_id for block in each.content if block.text]
    answered = [each for each in texts[1:] if not each.endswith(INTERRUPTED)]
    partial = texts[-1].removesuffix(f"\n\n{INTERRUPTED}")
    assert partial
    assert "".join([*answered, partial]) == shown.text
    results = [block.tool_result for each in messages for block in each.content if block.HasField("tool_result")]
    assert results[0].status == session_pb.TOOL_CALL_STATUS_SUCCESS


async def test_busy_session_of_dead_server_reports_remaining_lease(
    serve: Start, serve_process: StartProcess, connect: Connect
) -> None:
    """The retry time of SESSION_BUSY is the remaining time of the dead server's lease: a retry after it is served."""
    process, service = await serve_process(GODOTY_LEASE=str(LEASE), GODOTY_HEARTBEAT=str(HEARTBEAT))
    call = connect(service).start(SLOW)
    await until_text(call, "t2 ")
    other = await serve(database=service.database.name, **SURVIVOR)
    survivor = connect(service.at(other.target))
    await process.kill()
    before = _lease_left(service, process.replica_id)
    busy = (await survivor.converse("and now?")).failure
    after = _lease_left(service, process.replica_id)
    assert busy is not None
    assert (busy.code, busy.reason) == (grpc.StatusCode.ABORTED, "SESSION_BUSY")
    assert busy.retry_after is not None
    assert after - _ROUNDING <= busy.retry_after <= before + _ROUNDING
    await asyncio.sleep(busy.retry_after)

    turn = await survivor.converse("and now?")
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN


def _lease_left(service: Service, replica_id: str) -> float:
    """Return the seconds until a dead server's lease expires, by the database's clock."""
    left = {"$subtract": [{"$add": ["$heartbeat_time", int(LEASE * 1000)]}, "$$NOW"]}
    (replica,) = service.database["replicas"].aggregate([{"$match": {"_id": replica_id}}, {"$set": {"left": left}}])
    return float(replica["left"] / 1000)
