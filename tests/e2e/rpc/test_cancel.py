"""A caller who cancels ends the turn at once: upstream, in the session, and in the ledger."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import metering_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.states import CallState
from tests.conftest import Start
from tests.support.caller import Caller, failure_of, read
from tests.support.handshake import unanswered_port
from tests.support.history import assert_valid_history
from tests.support.service import Service, eventually, soon
from tests.support.waiting import free, when_free

pytestmark = pytest.mark.usefixtures("driver")

# One token every 50 ms, then a hold that nothing ends, and a record that never comes: what is left open stays open.
SLOW = "@sandbox slow tokens=100 first_delay_ms=0 delay_ms=50 hold_after=60 record_ms=-1"
INTERRUPTED = "[The answer was interrupted.]"


async def some_text(call: Any) -> str:
    """Read a turn until part of its answer has arrived."""
    text = ""
    while "t2 " not in text:
        text += (await anext(aiter(call))).text_delta.text
    return text


async def closed_upstream(service: Service, session_id: str = "talk") -> None:
    """Wait until the provider sees the session's connection close; its answer alone would never end."""
    connections = service.backends.sandbox.connections
    generation = await soon(lambda: service.entries(session_id)[-1].generation_id)  # it is stored beside the stream

    def noticed() -> bool:
        aborted = service.backends.ask(connections.as_dict)["aborted"]
        return any(each["generation_id"] == generation for each in aborted)

    await soon(noticed)


async def at_rest(caller: Caller) -> None:
    """Wait until no turn of the session runs or waits, and its lease is released."""
    running = pb.ListTurnsRequest(session_id="talk", state=turn_pb.TURN_STATE_RUNNING)

    async def none_runs() -> bool:
        return not (await caller.call("ListTurns", running)).turns

    await eventually(none_runs)
    await free(caller.service)


async def test_cancel_closes_the_connection_to_the_provider(caller: Caller) -> None:
    """A cancel during the stream keeps the partial answer, and the call pending."""
    call = caller.start(SLOW)
    seen = await some_text(call)
    call.cancel()

    await closed_upstream(caller.service)
    session = await free(caller.service)
    assert session["message_count"] == 2
    question, answer = await caller.messages()
    assert question.content[0].text == SLOW
    assert answer.content[0].text.startswith(seen)
    assert answer.content[0].text.endswith(INTERRUPTED)
    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.error, entry.cost) == (CallState.PENDING, "interrupted", None)
    assert entry.generation_id
    assert entry.time_to_first_token is not None
    assert entry.duration is not None
    (line,) = caller.service.invoice("talk")
    assert line.generation_id == entry.generation_id
    assert entry.upper_bound is not None
    assert line.cost <= entry.upper_bound


async def test_session_continues_after_a_cancel(caller: Caller) -> None:
    """The next turn is served at once; it has the partial answer, and counts the pending call."""
    call = caller.start(SLOW)
    await some_text(call)
    call.cancel()
    await free(caller.service)

    turn, _ = await when_free(caller, "and now?")
    assert turn.started.totals.pending_calls == 1
    totals = turn.finished.session_totals
    assert (totals.pending_calls, totals.model_calls, totals.turns) == (1, 2, 2)
    assert totals.cost_usd == turn.finished.turn_totals.cost_usd
    assert_valid_history(await caller.messages())
    roles = [(each["role"], each["content"]) for each in caller.service.requests("talk")[-1]["messages"]]
    assert [role for role, _ in roles] == ["system", "user", "assistant", "user"]
    assert "t0 t1 t2 " in str(roles[2][1])


async def test_deadline_cancels_the_turn(caller: Caller) -> None:
    """When the caller's deadline passes, the turn ends as after a cancel."""
    for seconds in (1, 5, 25):  # on a busy machine an answer may begin later
        session_id = f"within-{seconds}"
        turn = await caller.converse(SLOW, timeout=seconds, session_id=session_id)
        assert turn.failure is not None
        assert turn.failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
        if turn.text:
            break
    await closed_upstream(caller.service, session_id)
    await free(caller.service, session_id)
    (entry,) = caller.service.entries(session_id)
    assert entry.state is CallState.PENDING
    assert (await caller.messages(session_id))[1].content[0].text.endswith(INTERRUPTED)
    assert (await when_free(caller, "and now?", session_id))[0].finished


async def test_lost_connection_cancels_the_turn(caller: Caller) -> None:
    """A closed connection is treated as a cancel."""
    service = caller.service
    async with grpc.aio.insecure_channel(service.target) as channel:
        await some_text(Caller(service, channel).start(SLOW))

    await closed_upstream(service)
    await free(service)
    assert (await when_free(caller, "and now?"))[0].finished


async def test_cancel_before_the_first_token_keeps_the_users_text(caller: Caller) -> None:
    """The user's text is stored although no answer arrived, and the history is repaired."""
    call = caller.start("@sandbox slow first_delay_ms=0 hold_after=0 record_ms=-1")
    assert (await anext(aiter(call))).HasField("turn_started")
    await soon(lambda: any(entry.generation_id for entry in caller.service.entries("talk")))
    call.cancel()

    await free(caller.service)
    question, answer = await caller.messages()
    assert question.content[0].text.startswith("@sandbox slow")
    assert answer.content[0].text == INTERRUPTED
    assert caller.service.entries("talk")[0].state is CallState.PENDING


async def test_cancel_during_a_retry_delay_charges_nothing(caller: Caller) -> None:
    """Between two attempts no call is open: the turn ends with the refused one."""
    call = caller.start("@sandbox error-before status=429 retry_after=20")
    await soon(lambda: any(entry.state is CallState.SETTLED for entry in caller.service.entries("talk")))
    call.cancel()

    await free(caller.service)
    (entry,) = caller.service.entries("talk")
    assert entry.cost == 0
    assert (await caller.metrics()).totals.pending_calls == 0
    assert_valid_history(await caller.messages())


@pytest.mark.parametrize("after", [0.0, 0.002, 0.005, 0.01, 0.02])
async def test_cancel_at_any_time_leaves_a_usable_session(caller: Caller, after: float) -> None:
    """However early the caller cancels, the session is free, its history complete, and no entry missing."""
    await caller.converse("hi")
    call = caller.start("@sandbox tool-loop calls=4 delay_ms=2")
    await asyncio.sleep(after)
    call.cancel()
    await at_rest(caller)

    turn, _ = await when_free(caller, "and now?")
    await at_rest(caller)
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert_valid_history(await caller.messages())
    numbers = [entry.number for entry in caller.service.entries("talk")]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_second_turn_of_a_busy_session_is_refused(caller: Caller) -> None:
    """During a turn another one is SESSION_BUSY with a retry delay, and changes nothing; other sessions run."""
    call = caller.start(SLOW)
    await some_text(call)

    refused = await caller.converse("me too")
    assert refused.failure is not None
    assert (refused.failure.code, refused.failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_BUSY")
    assert refused.failure.retry_after is not None
    assert refused.failure.retry_after > 0
    assert refused.responses == ()
    assert len(await caller.messages()) == 1
    assert len(caller.service.entries("talk")) == 1
    assert (await caller.converse("elsewhere", session_id="other")).finished
    call.cancel()
    await free(caller.service)
    assert (await when_free(caller, "me too"))[0].finished


async def test_one_of_concurrent_turns_of_a_new_session_runs(caller: Caller) -> None:
    """One creates the session and runs, the others are SESSION_BUSY."""
    hold = f"one-{caller.service.tenant_id}"  # each driver's run has its own
    running = [asyncio.create_task(caller.converse(f"@sandbox plain hold_after=1 hold={hold}")) for _ in range(6)]
    await soon(lambda: sum(each.done() for each in running) == 5)
    caller.service.backends.allow(hold)
    turns = await asyncio.gather(*running)

    (served,) = [turn for turn in turns if turn.failure is None]
    assert served.started.session_created
    reasons = {turn.failure.reason for turn in turns if turn.failure is not None}
    assert reasons == {"SESSION_BUSY"}
    assert len(caller.service.entries("talk")) == 1
    assert_valid_history(await caller.messages())


async def test_metrics_are_exact_while_a_turn_runs(caller: Caller) -> None:
    """The running call is pending from the moment it is sent; finished ones are in the totals."""
    call = caller.start("@sandbox tool-loop calls=2 fault=hang at=2 hang_after=0")
    responses: list[turn_pb.TurnEvent] = []
    while not responses or not responses[-1].HasField("tool_call_finished"):
        responses.append(await anext(aiter(call)))
    (first,) = [each.model_call_finished.call for each in responses if each.HasField("model_call_finished")]

    async def second_call() -> metering_pb2.Totals | None:
        totals = (await caller.metrics()).totals
        return totals if totals.model_calls == 2 else None

    totals = await eventually(second_call)
    assert totals is not None
    assert (totals.cost_usd, totals.pending_calls, totals.turns) == (first.cost_usd, 1, 1)
    session = (await caller.call("GetSession", pb.GetSessionRequest(session_id="talk"))).session
    assert (session.cost_usd, session.message_count) == (first.cost_usd, 3)
    call.cancel()
    await free(caller.service)


async def test_session_with_a_running_turn_is_not_deleted(caller: Caller) -> None:
    """DeleteSession during a turn is SESSION_BUSY, and the turn continues."""
    hold = f"deletion-{caller.service.tenant_id}"  # each driver's run has its own
    call = caller.start(f"@sandbox plain tokens=12 hold_after=3 hold={hold}")
    await some_text(call)

    failure = await failure_of(caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk")))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_BUSY")
    assert failure.retry_after is not None
    caller.service.backends.allow(hold)
    rest = await read(call)
    assert rest.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert len(await caller.messages()) == 2


@pytest.mark.parametrize("driver", ["pymongo"], indirect=True)
async def test_cancel_during_the_handshake_voids_the_call(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """A provider that does not answer the handshake received nothing, so nothing can have been charged.

    The server waits for it at its start, for longer than its lease; its heartbeats do not.
    """
    with unanswered_port() as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        caller = connect(await serve(openrouter_base_url=url, connect_timeout=10, lease=8.0, heartbeat=1.0))
        call = caller.start("hi")
        await soon(lambda: caller.service.entries("talk"))
        replicas = caller.service.database["replicas"]
        (first,) = replicas.find()
        await soon(lambda: replicas.find_one({"heartbeat_time": {"$gt": first["heartbeat_time"]}}))
        assert not call.done()  # a heartbeat that found itself late would have ended the turn
        call.cancel()
        await free(caller.service)

    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.cost) == (CallState.VOID, None)
