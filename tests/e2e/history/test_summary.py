"""The history's window: messages that fall out of it are summarized, if the service is configured so."""

from collections.abc import Callable

from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.metering_pb2 import CALL_PURPOSE_AGENT as AGENT
from godoty.v1.metering_pb2 import CALL_PURPOSE_SUMMARY as SUMMARY

from tests.conftest import Start
from tests.support.caller import Caller
from tests.support.service import Service


async def test_messages_outside_window_are_summarized_once(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """The summary's model call is in the ledger and in the stream, with its purpose; later turns use the summary."""
    caller = connect(await serve(history_messages=8, history_summary=True))
    calls = []
    purposes = []
    for number in range(6):
        turn = await caller.converse(f"hello number {number}")
        calls.append(len(turn.calls))
        purposes += [each.purpose for each in turn.calls]
        assert turn.finished.turn_totals.model_calls == len(turn.calls)

    totals = (await caller.metrics()).totals
    requests = caller.service.requests("talk")
    agent_requests = [each for each in requests if "tools" in each]
    summaries = [each for each in requests if "tools" not in each]
    assert [1, 1, 1, 1, 2, 1] == calls
    assert sum(calls) == totals.model_calls
    assert 1 == len(summaries)
    assert [AGENT] * 4 + [SUMMARY, AGENT, AGENT] == purposes
    assert "[Summarized:" in str(agent_requests[-1]["messages"])
    assert len(agent_requests[-1]["messages"]) <= 9
    assert 12 == len(await caller.messages())  # the conversation itself is complete


async def test_window_without_summary_has_newest_messages(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """The model sees no more than the window, which begins with a user text; no model call is made for the rest."""
    caller = connect(await serve(history_messages=4))
    for number in range(5):
        await caller.converse(f"hello number {number}")

    last = caller.service.requests("talk")[-1]
    roles = [each["role"] for each in last["messages"]]
    assert ["system", "user", "assistant", "user", "assistant", "user"] == roles
    assert 5 == (await caller.metrics()).totals.model_calls


async def test_summary_does_not_use_callers_output_tokens(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """A summary has its own limit; no request has a limit below one token, and the turn is answered."""
    caller = connect(await serve(history_messages=8, history_summary=True, summary_max_output_tokens=77))
    for number in range(6):
        turn = await caller.converse(f"hello {number}", limits=turn_pb.TurnLimits(max_output_tokens=40))
        assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN

    requests = caller.service.requests("talk")
    assert [each["max_tokens"] for each in requests if "tools" not in each] == [77]
    assert {each["max_tokens"] for each in requests if "tools" in each} == {40}


async def test_exhausted_output_tokens_stop_further_requests(caller: Caller) -> None:
    """A loop that has used its output tokens ends with MAX_OUTPUT_TOKENS, and never requests zero."""
    for most in (1, 5, 16, 20):
        turn = await caller.converse("@sandbox tool-loop calls=6", limits=turn_pb.TurnLimits(max_output_tokens=most))
        assert turn.finished.stop_reason in (turn_pb.STOP_REASON_MAX_OUTPUT_TOKENS, turn_pb.STOP_REASON_END_TURN)

    assert all(each["max_tokens"] >= 1 for each in caller.service.requests("talk"))
