"""Bounds on a turn: reaching one ends it in order, and the session goes on."""

from collections.abc import Callable

import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.conftest import Start
from tests.service.caller import Caller
from tests.service.history import assert_whole, assert_whole_upstream
from tests.service.service import Service


async def assert_usable(caller: Caller) -> None:
    """Check that the session goes on, with a history that every model takes."""
    turn = await caller.converse("and now?")
    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    assert_whole(await caller.messages())
    request = caller.service.requests("talk")[-1]
    assert_whole_upstream(request["messages"])
    assert "max_tokens" not in request


@pytest.mark.parametrize("most", [1, 2])
async def test_the_bound_on_model_calls_ends_the_turn(caller: Caller, most: int) -> None:
    """A loop stops after so many calls with STOP_REASON_MAX_MODEL_CALLS; what it did is kept and closed."""
    turn = await caller.converse("@sandbox tool-loop calls=5", limits=pb.TurnLimits(max_model_calls=most))

    assert turn.finished.stop_reason == pb.STOP_REASON_MAX_MODEL_CALLS
    assert len(turn.calls) == turn.finished.turn_totals.model_calls == most
    assert turn.kinds.count("tool_call_finished") == most
    last = (await caller.messages())[-1]
    assert last.role == pb.ROLE_ASSISTANT
    assert "bound on model calls" in last.content[0].text
    await assert_usable(caller)


async def test_a_turn_that_needs_no_more_than_its_bound_is_not_stopped(caller: Caller) -> None:
    """A loop of exactly as many calls as allowed ends as it would have."""
    turn = await caller.converse("@sandbox tool-loop calls=3", limits=pb.TurnLimits(max_model_calls=3))

    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN


async def test_the_servers_own_bound_holds_whatever_the_caller_asks(
    serve: Start, connect: Callable[[Service], Caller]
) -> None:
    """A bound above the server's is cut to it; without one the server's holds."""
    caller = connect(await serve(max_model_calls=2))

    for limits in (pb.TurnLimits(max_model_calls=9), None):
        turn = await caller.converse("@sandbox tool-loop calls=5", limits=limits)
        assert turn.finished.stop_reason == pb.STOP_REASON_MAX_MODEL_CALLS
        assert len(turn.calls) == 2


async def test_the_bound_on_output_tokens_reaches_the_provider(caller: Caller) -> None:
    """The answer is cut where the bound is, with STOP_REASON_MAX_OUTPUT_TOKENS, and what came is kept."""
    turn = await caller.converse("@sandbox plain tokens=12", limits=pb.TurnLimits(max_output_tokens=5))

    assert turn.finished.stop_reason == pb.STOP_REASON_MAX_OUTPUT_TOKENS
    assert turn.text == "t0 t1 t2 t3 t4 "
    (request,) = caller.service.requests("talk")
    assert request["max_tokens"] == 5
    (call,) = turn.calls
    assert (call.finish_reason, call.usage.output_tokens) == ("length", 5)
    assert (await caller.messages())[-1].content[0].text.startswith("t0 t1 t2 t3 t4")
    await assert_usable(caller)


async def test_the_bound_covers_all_calls_of_the_turn_together(caller: Caller) -> None:
    """Each call of a loop may answer what the ones before have left; none is sent when nothing is left."""
    turn = await caller.converse("@sandbox tool-loop calls=9", limits=pb.TurnLimits(max_output_tokens=20))

    assert turn.finished.stop_reason == pb.STOP_REASON_MAX_OUTPUT_TOKENS
    assert turn.finished.turn_totals.usage.output_tokens <= 20
    left = 20
    for request, call in zip(caller.service.requests("talk"), turn.calls, strict=True):
        assert request["max_tokens"] == left > 0
        left -= call.usage.output_tokens
    assert len(turn.calls) > 1
    await assert_usable(caller)


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_a_tool_call_that_was_cut_off_is_not_run(caller: Caller, most: int) -> None:
    """A tool call whose input is cut in the middle is no tool call: nothing runs, and the history stays whole."""
    turn = await caller.converse("@sandbox tool-loop calls=3", limits=pb.TurnLimits(max_output_tokens=most))

    assert turn.finished.stop_reason == pb.STOP_REASON_MAX_OUTPUT_TOKENS
    assert "tool_call_started" not in turn.kinds
    assert len(turn.calls) == 1
    await assert_usable(caller)


async def test_an_answer_of_exactly_the_bound_is_whole(caller: Caller) -> None:
    """An answer that needs all its tokens and no more ends as it would have."""
    turn = await caller.converse("@sandbox plain tokens=6", limits=pb.TurnLimits(max_output_tokens=6))

    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN


async def test_an_answer_that_the_provider_filtered_is_told_as_such(caller: Caller) -> None:
    """A provider's filter ends the turn with STOP_REASON_CONTENT_FILTERED; the session goes on."""
    turn = await caller.converse("@sandbox plain tokens=3 finish=content_filter")

    assert turn.finished.stop_reason == pb.STOP_REASON_CONTENT_FILTERED
    assert turn.text == "t0 t1 t2 "
    await assert_usable(caller)


async def test_an_empty_answer_is_an_answer(caller: Caller) -> None:
    """A model that says nothing ends the turn; the session goes on."""
    turn = await caller.converse("@sandbox plain tokens=0")

    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    assert turn.text == ""
    await assert_usable(caller)


@pytest.mark.parametrize("most", [0, 4])
async def test_an_answer_of_nothing_but_reasoning_keeps_its_place(caller: Caller, most: int) -> None:
    """A model that only reasons, by itself or because its tokens ran out, leaves a history of turns taken in turn."""
    limits = pb.TurnLimits(max_output_tokens=most) if most else None
    turn = await caller.converse("@sandbox plain tokens=0 reasoning=8", limits=limits)

    expected = pb.STOP_REASON_MAX_OUTPUT_TOKENS if most else pb.STOP_REASON_END_TURN
    assert turn.finished.stop_reason == expected
    assert turn.text == ""
    assert turn.reasoning.startswith("thought 0 thought 1 ")
    await assert_usable(caller)


async def test_a_turn_with_very_many_tools_is_not_forgotten(caller: Caller) -> None:
    """After a loop that fills the model's whole window the next turn knows at least how it ended."""
    await caller.converse("my name is Ada")
    loop = await caller.converse("@sandbox tool-loop calls=24")
    assert loop.finished.stop_reason == pb.STOP_REASON_END_TURN
    await caller.converse("and now?")

    messages = caller.service.requests("talk")[-1]["messages"]
    assert_whole_upstream(messages)
    assert loop.text in str(messages)
