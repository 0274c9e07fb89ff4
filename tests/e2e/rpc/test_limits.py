"""Limits of a turn: reaching one ends it in order, and the session continues."""

from collections.abc import Callable

import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.conftest import Start
from tests.support.caller import Caller
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import Service


async def assert_usable(caller: Caller) -> None:
    """Check that the session continues, with a history that every model accepts."""
    turn = await caller.converse("and now?")
    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    assert_valid_history(await caller.messages())
    request = caller.service.requests("talk")[-1]
    assert_valid_request(request["messages"])
    assert "max_tokens" not in request


@pytest.mark.parametrize("most", [1, 2])
async def test_limit_of_model_calls_ends_the_turn(caller: Caller, most: int) -> None:
    """The loop ends with STOP_REASON_MAX_MODEL_CALLS; its results are stored, and the history is repaired."""
    turn = await caller.converse("@sandbox tool-loop calls=5", limits=pb.TurnLimits(max_model_calls=most))

    assert turn.finished.stop_reason == pb.STOP_REASON_MAX_MODEL_CALLS
    assert len(turn.calls) == turn.finished.turn_totals.model_calls == most
    assert turn.kinds.count("tool_call_finished") == most
    last = (await caller.messages())[-1]
    assert last.role == pb.ROLE_ASSISTANT
    assert "bound on model calls" in last.content[0].text
    await assert_usable(caller)


async def test_turn_within_its_call_limit_is_not_stopped(caller: Caller) -> None:
    """A loop of exactly as many calls as allowed ends normally."""
    turn = await caller.converse("@sandbox tool-loop calls=3", limits=pb.TurnLimits(max_model_calls=3))

    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN


async def test_call_limit_of_the_server_caps_that_of_the_caller(
    serve: Start, connect: Callable[[Service], Caller]
) -> None:
    """A higher limit is reduced to the server's; without one the server's applies."""
    caller = connect(await serve(max_model_calls=2))

    for limits in (pb.TurnLimits(max_model_calls=9), None):
        turn = await caller.converse("@sandbox tool-loop calls=5", limits=limits)
        assert turn.finished.stop_reason == pb.STOP_REASON_MAX_MODEL_CALLS
        assert len(turn.calls) == 2


async def test_limit_of_output_tokens_reaches_the_provider(caller: Caller) -> None:
    """The answer is cut at the limit, with STOP_REASON_MAX_OUTPUT_TOKENS, and stored."""
    turn = await caller.converse("@sandbox plain tokens=12", limits=pb.TurnLimits(max_output_tokens=5))

    assert turn.finished.stop_reason == pb.STOP_REASON_MAX_OUTPUT_TOKENS
    assert turn.text == "t0 t1 t2 t3 t4 "
    (request,) = caller.service.requests("talk")
    assert request["max_tokens"] == 5
    (call,) = turn.calls
    assert (call.finish_reason, call.usage.output_tokens) == ("length", 5)
    assert (await caller.messages())[-1].content[0].text.startswith("t0 t1 t2 t3 t4")
    await assert_usable(caller)


async def test_output_limit_covers_all_calls_of_the_turn(caller: Caller) -> None:
    """Each call of a loop gets the tokens that remain; none is sent when none remain."""
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
async def test_truncated_tool_call_is_not_run(caller: Caller, most: int) -> None:
    """A tool call whose input is cut is ignored, and the history stays valid."""
    turn = await caller.converse("@sandbox tool-loop calls=3", limits=pb.TurnLimits(max_output_tokens=most))

    assert turn.finished.stop_reason == pb.STOP_REASON_MAX_OUTPUT_TOKENS
    assert "tool_call_started" not in turn.kinds
    assert len(turn.calls) == 1
    await assert_usable(caller)


async def test_answer_of_exactly_the_limit_is_complete(caller: Caller) -> None:
    """An answer that needs exactly its tokens ends normally."""
    turn = await caller.converse("@sandbox plain tokens=6", limits=pb.TurnLimits(max_output_tokens=6))

    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN


async def test_filtered_answer_has_its_stop_reason(caller: Caller) -> None:
    """A provider's filter ends the turn with STOP_REASON_CONTENT_FILTERED; the session continues."""
    turn = await caller.converse("@sandbox plain tokens=3 finish=content_filter")

    assert turn.finished.stop_reason == pb.STOP_REASON_CONTENT_FILTERED
    assert turn.text == "t0 t1 t2 "
    await assert_usable(caller)


async def test_empty_answer_ends_the_turn(caller: Caller) -> None:
    """A model that answers nothing ends the turn; the session continues."""
    turn = await caller.converse("@sandbox plain tokens=0")

    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    assert turn.text == ""
    await assert_usable(caller)


@pytest.mark.parametrize("most", [0, 4])
async def test_answer_of_reasoning_only_keeps_the_history_valid(caller: Caller, most: int) -> None:
    """If a model only reasons, or its tokens run out, user and assistant messages still alternate."""
    limits = pb.TurnLimits(max_output_tokens=most) if most else None
    turn = await caller.converse("@sandbox plain tokens=0 reasoning=8", limits=limits)

    expected = pb.STOP_REASON_MAX_OUTPUT_TOKENS if most else pb.STOP_REASON_END_TURN
    assert turn.finished.stop_reason == expected
    assert turn.text == ""
    assert turn.reasoning.startswith("thought 0 thought 1 ")
    await assert_usable(caller)


async def test_turn_with_many_tools_stays_in_the_history(caller: Caller) -> None:
    """After a loop that fills the model's window, the next turn has at least its end."""
    await caller.converse("my name is Ada")
    loop = await caller.converse("@sandbox tool-loop calls=24")
    assert loop.finished.stop_reason == pb.STOP_REASON_END_TURN
    await caller.converse("and now?")

    messages = caller.service.requests("talk")[-1]["messages"]
    assert_valid_request(messages)
    assert loop.text in str(messages)
