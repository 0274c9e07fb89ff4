"""ResumeTurn yields exactly the following events, on every server, and after the loss of the turn's server."""

import asyncio
import random
from collections.abc import Callable

import grpc
import pytest
from godoty.v1 import turn_pb2 as turn_pb

from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import (
    CONTINUE,
    RICH,
    assert_increasing,
    cancel,
    chunks,
    free,
    joined,
    last_stored_sequence,
    resume,
    until_sequence,
    until_text,
)
from tests.support.caller import Caller, failure_of, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.leases import SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Service, soon

TALK = "talk @sandbox tool-loop calls=2 reasoning=4 delay_ms=10 tokens=400 hold_after=60 record_ms=-1"
LOOP = "loop @sandbox tool-loop calls=4 delay_ms=5 fault=hang at=3 hang_after=0 record_ms=-1"
# Each kind of event, and deltas that follow one another.
VARIED = "@sandbox tool-loop calls=2 parallel=2 tool=calculator reasoning=2 delay_ms=3"
UNKNOWN = "turn_" + "0" * 28


@pytest.mark.parametrize("scenario", [VARIED, "@sandbox plain tokens=9 reasoning=4 delay_ms=3"])
async def test_reader_disconnected_at_any_event_misses_nothing(
    caller: Caller, second_caller: Caller, scenario: str
) -> None:
    """Under CONTINUE, at every event of a turn: a disconnected reader's events and another server's make the whole."""
    undisturbed = await caller.converse(scenario, on_disconnect=CONTINUE)
    last = undisturbed.responses[-1].sequence
    side_by_side = asyncio.Semaphore(6)

    async def cut_at(sequence: int) -> None:
        async with side_by_side:
            session_id = f"cut-{sequence}"
            call = caller.start(scenario, session_id=session_id, on_disconnect=CONTINUE)
            seen = await until_sequence(call, sequence)
            call.cancel()
            rest = await resume(second_caller, seen[0].turn_id, seen[-1].sequence)
            whole = await resume(caller, seen[0].turn_id)
        assert rest.failure is whole.failure is None
        assert_increasing([*seen, *rest.responses])
        assert joined([*seen, *rest.responses]) == joined(whole.responses)
        assert whole.kinds[0] == "turn_started"
        assert whole.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        assert (whole.text, whole.reasoning) == (undisturbed.text, undisturbed.reasoning)

    await asyncio.gather(*(cut_at(sequence) for sequence in range(1, last + 1)))
    assert last >= 5  # the number of deltas depends on the provider's segments


async def test_any_chain_of_readers_yields_whole_turn(caller: Caller, second_caller: Caller) -> None:
    """A turn read in many parts, during and after its run, on both servers, is identical."""
    rng = random.Random(5)
    call = caller.start(f"{RICH} tokens=20", on_disconnect=CONTINUE)
    seen = await until_sequence(call, 1)
    turn_id = seen[0].turn_id
    call.cancel()
    while seen[-1].WhichOneof("event") != "turn_finished":
        reader = rng.choice([caller, second_caller]).resume(turn_id, seen[-1].sequence)
        for _ in range(rng.randint(1, 6)):
            try:
                seen.append(await anext(aiter(reader)))
            except StopAsyncIteration:
                break
        reader.cancel()

    whole = await resume(second_caller, turn_id)
    assert_increasing(seen)
    assert joined(seen) == joined(whole.responses) == joined((await resume(caller, turn_id)).responses)
    for after in range(whole.responses[-1].sequence + 2):
        rest = await resume(rng.choice([caller, second_caller]), turn_id, after)
        before = [each for each in seen if each.sequence <= after]
        if (before[-1].sequence if before else 0) == after:  # if the parts were cut there as well
            assert joined([*before, *rest.responses]) == joined(whole.responses)
        assert all(each.sequence > after for each in rest.responses)


async def test_running_turn_is_readable_as_it_is_written(caller: Caller, second_caller: Caller) -> None:
    """A second reader, on the same or another server, keeps up with a running turn, and both end with it."""
    call = caller.start("@sandbox plain tokens=30 hold_after=3 hold=shown", on_disconnect=CONTINUE)
    seen = await until_text(call, "t2 ")
    here, there = (each.resume(seen[0].turn_id, 1) for each in (caller, second_caller))
    reading = asyncio.gather(*(until_text(each, "t4 ") for each in (here, there)))
    caller.service.backends.allow("shown", 2)
    local, remote = await reading
    assert (await caller.metrics()).totals.pending_calls == 1  # it is still running
    caller.service.backends.allow("shown")
    rest = await read(call)
    ends = [await read(each) for each in (here, there)]

    whole = joined([*seen, *rest.responses])
    assert joined([seen[0], *local, *ends[0].responses]) == whole
    assert joined([seen[0], *remote, *ends[1].responses]) == whole


async def test_other_tenants_turn_is_not_found(caller: Caller, other_tenant: Caller, second_caller: Caller) -> None:
    """Another tenant's turn and an unknown one are TURN_NOT_FOUND, on every server, for both methods; no turn ends."""
    call = caller.start("@sandbox plain tokens=30 hold_after=3 hold=hidden record_ms=-1")
    turn_id = (await until_text(call, "t2 "))[0].turn_id
    for client, which in ((other_tenant, turn_id), (caller, UNKNOWN), (second_caller, UNKNOWN)):
        failed = (await resume(client, which)).failure
        assert failed is not None
        assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")
        assert failed.metadata == {"turn_id": which}
        refused = await failure_of(cancel(client, which))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")
    caller.service.backends.allow("hidden", 1)
    await until_text(call, "t3 ")
    call.cancel()
    await free(caller.service)


async def test_sequence_after_end_yields_nothing(caller: Caller, second_caller: Caller) -> None:
    """After the last event there is nothing, on either server, and no error."""
    turn = await caller.converse("@sandbox plain tokens=3")
    last = turn.responses[-1]

    for after in (last.sequence, last.sequence + 7, 2**62):
        for client in (caller, second_caller):
            rest = await resume(client, last.turn_id, after)
            assert (rest.responses, rest.failure) == ((), None)


async def test_resumed_failed_turn_fails_again(caller: Caller, second_caller: Caller) -> None:
    """The events and the error of a failed turn are read again, on both servers."""
    turn = await caller.converse("@sandbox error-mid n=3 usage=1")
    assert turn.failure is not None

    for client in (caller, second_caller):
        again = await resume(client, turn.responses[0].turn_id)
        assert joined(again.responses) == joined(turn.responses)
        assert again.failure == turn.failure


async def test_turns_of_killed_server_end_interrupted(
    serve: Start, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """The events up to the last flush are read again; then the end, above every sequence that was shown.

    The next turn sends the complete history to the model, including the tool results.
    """
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    caller = connect(service)
    talking, looping = (caller.start(each, session_id=each[:4], on_disconnect=CONTINUE) for each in (TALK, LOOP))
    looped = [await anext(aiter(looping))]
    await soon(lambda: len(service.entries("loop")) == 3)
    seen = await until_text(talking, "t20 ")
    await soon(lambda: last_stored_sequence(service, seen[0].turn_id) >= seen[-1].sequence)
    await process.kill()
    for call, shown in ((talking, seen), (looping, looped)):
        late = await read(call)
        assert late.failure is not None
        shown.extend(late.responses)
    kept = last_stored_sequence(service, seen[0].turn_id)
    other = await serve(database=service.database.name, **SURVIVOR)
    survivor = connect(service.at(other.target))

    whole = await resume(survivor, seen[0].turn_id)
    assert whole.finished.stop_reason == turn_pb.STOP_REASON_INTERRUPTED
    assert_increasing(whole.responses)
    assert whole.responses[-1].sequence > seen[-1].sequence
    cut = joined(each for each in seen if each.sequence <= kept)
    assert cut[:-1] == joined(whole.responses[:-1])[: len(cut) - 1]
    assert whole.text
    shown_text = "".join(each.text_delta.text for each in seen)
    assert shown_text.startswith(whole.text) or whole.text.startswith(shown_text)
    rest = await resume(survivor, seen[0].turn_id, seen[-1].sequence)
    assert rest.responses[-1] == whole.responses[-1]
    assert whole.finished.turn_totals.cost_usd == whole.calls[0].cost_usd
    assert (whole.finished.turn_totals.model_calls, whole.finished.turn_totals.pending_calls) == (2, 1)

    for session_id, results in (("talk", 1), ("loop", 2)):
        turn = await survivor.converse("and now?", session_id=session_id, on_busy=turn_pb.ON_BUSY_WAIT)
        assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        messages = survivor.service.requests(session_id)[-1]["messages"]
        assert_valid_request(messages)
        assert [each["role"] for each in messages].count("tool") == results
        assert "interrupted" in str(messages[-2]["content"])
        assert_valid_history(await survivor.messages(session_id))
    assert joined((await resume(survivor, seen[0].turn_id)).responses) == joined(whole.responses)
    (end,) = [each for each in chunks(service, looped[0].turn_id) if each["ended"]]
    assert end["events"][0]["finished"]["stop"] == "interrupted"  # by the turn that took the session over
