"""Other servers on the same database continue a session after a stop, a crash or a pause."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import grpc
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.states import CallState
from godoty_service.server import running
from tests.conftest import Start, StartProcess
from tests.support.backends import Backends
from tests.support.caller import Caller, Turn, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.leases import LEASE, SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Service, soon
from tests.support.waiting import identified, when_free

Connect = Callable[[Service], Caller]
HANGING = "@sandbox tool-loop calls=3 fault=hang at=2 hang_after=0 record_ms=-1"
SLOW = "@sandbox slow tokens=200 first_delay_ms=0 delay_ms=50 hold_after=60 record_ms=-1"


async def some_text(call: Any) -> str:
    """Read a turn until part of its answer has arrived."""
    text = ""
    while "t2 " not in text:
        text += (await anext(aiter(call))).text_delta.text
    return text


async def test_second_server_continues_the_session(serve: Start, connect: Connect) -> None:
    """The model gets the history through the second server, and the totals continue."""
    first_service = await serve()
    first = connect(first_service)
    await first.converse("my name is Ada")
    loop = await first.converse("@sandbox tool-loop calls=3")
    before = loop.finished.session_totals
    second_server = await serve(database=first_service.database.name)
    second = connect(first_service.at(second_server.target))

    assert (await second.metrics()).totals == before
    assert await second.messages() == await first.messages()
    turn = await second.converse("what is my name?")
    assert not turn.started.session_created
    assert turn.started.totals == before
    assert turn.finished.session_totals.model_calls == before.model_calls + 1
    assert turn.calls[0].number == before.model_calls + 1
    messages = second.service.requests("talk")[-1]["messages"]
    assert_valid_request(messages)
    assert "my name is Ada" in str(messages)
    assert sum(message["role"] == "tool" for message in messages) == 2
    assert (await first.metrics()).totals == turn.finished.session_totals
    assert [entry.owner for entry in first.service.entries("talk")[:4]] != [
        entry.owner for entry in first.service.entries("talk")[4:]
    ]


async def test_session_of_a_killed_server_is_continued(
    serve: Start, serve_process: StartProcess, connect: Connect
) -> None:
    """After SIGKILL during a turn: busy for a lease, then the text is kept, the history repaired, the call pending.

    A loop that was killed after its first tool is closed behind the tool's result.
    """
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    caller = connect(service)
    calls = [caller.start(SLOW), caller.start(HANGING, session_id="loop")]
    await some_text(calls[0])
    await identified(service)
    await soon(lambda: len(service.entries("loop")) == 2)
    other = await serve(database=service.database.name, **SURVIVOR)
    begun = time.monotonic()
    await process.kill()
    for call in calls:
        assert (await read(call)).failure is not None
    survivor = connect(service.at(other.target))

    turn, refused = await when_free(survivor, "and now?")
    assert refused > 0 or time.monotonic() - begun > LEASE / 2  # on a busy machine the first try comes late
    await assert_the_answer_was_closed(survivor, turn)
    await assert_the_loop_was_closed(survivor)


async def assert_the_answer_was_closed(survivor: Caller, turn: Turn) -> None:
    """Check a session that was killed during an answer, and the turn after that."""
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    messages = await survivor.messages()
    assert_valid_history(messages)
    assert [message.content[0].text for message in (messages[0], *messages[2:])] == [SLOW, "and now?", turn.text]
    assert messages[1].content[0].text.endswith("[The answer was interrupted.]")
    assert messages[0].turn_id == messages[1].turn_id != messages[2].turn_id == messages[3].turn_id
    assert turn.started.totals.pending_calls == 1
    totals = turn.finished.session_totals
    assert (totals.pending_calls, totals.model_calls, totals.turns) == (1, 2, 2)
    killed, _ = survivor.service.entries("talk")
    assert killed.state is CallState.PENDING
    assert killed.generation_id


async def assert_the_loop_was_closed(survivor: Caller) -> None:
    """Check a session that was killed between two calls of a loop."""
    turn = await survivor.converse("and now?", session_id="loop")
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    messages = await survivor.messages("loop")
    assert_valid_history(messages)
    assert len(messages) == 6
    assert messages[2].content[0].tool_result.status == session_pb.TOOL_CALL_STATUS_SUCCESS
    assert_valid_request(survivor.service.requests("loop")[-1]["messages"])


async def test_paused_server_loses_its_session(serve: Start, serve_process: StartProcess, connect: Connect) -> None:
    """A server that resumes after its lease changes nothing any more: its turn ends with SESSION_LOST."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    call = connect(service).start("@sandbox slow tokens=2000 first_delay_ms=0 delay_ms=50 record_ms=-1")
    await some_text(call)
    other = await serve(database=service.database.name, **SURVIVOR)
    assert process.process is not None
    os.kill(process.process.pid, signal.SIGSTOP)
    survivor = connect(service.at(other.target))
    turn, _ = await when_free(survivor, "and now?")
    kept = await survivor.messages()
    os.kill(process.process.pid, signal.SIGCONT)

    lost = await read(call)
    assert lost.failure is not None
    assert (lost.failure.code, lost.failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_LOST")
    assert await survivor.messages() == kept
    assert_valid_history(kept)
    again = await survivor.converse("still there?")
    assert again.started.totals.turns == turn.finished.session_totals.turns
    assert_valid_history(await survivor.messages())
    numbers = [entry.number for entry in survivor.service.entries("talk")]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


async def test_stopping_server_finishes_turns_and_then_cancels_them(backends: Backends, connect: Connect) -> None:
    """A short turn finishes, a long one is cancelled after the grace time; both sessions are complete and free."""
    database = backends.empty_database()
    async with running(backends.settings(database, drain_grace=6.0)) as server:
        caller = connect(backends.service(server.address, database))
        short = asyncio.create_task(
            caller.converse("@sandbox plain tokens=6 hold_after=1 hold=stopping", session_id="short")
        )
        long = asyncio.create_task(caller.converse(SLOW, session_id="long"))
        await soon(lambda: all(caller.service.entries(each) for each in ("short", "long")))
        backends.allow("stopping")

    assert (await short).finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    failure = (await long).failure
    assert failure is not None
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    for session_id in ("short", "long"):
        session = caller.service.session(session_id)
        assert session is not None
        assert session["lease"] is None
        assert session["message_count"] == 2


async def test_stopped_server_frees_its_sessions(serve: Start, serve_process: StartProcess, connect: Connect) -> None:
    """SIGTERM ends a server with exit status 0 and releases its sessions, even under a long lease."""
    process, service = await serve_process(GODOTY_DRAIN_GRACE="0.3")
    call = connect(service).start(SLOW)
    await some_text(call)
    await process.stop()
    assert process.process is not None
    assert process.process.returncode == 0
    other = await serve(database=service.database.name)
    survivor = connect(service.at(other.target))

    turn = await survivor.converse("and now?")
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    messages = await survivor.messages()
    assert_valid_history(messages)
    assert messages[1].content[0].text.startswith("t0 t1 t2 ")
