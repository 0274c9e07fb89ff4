"""Tools that need approval: what a turn asks, and how the session goes on with the answer."""

from __future__ import annotations

import grpc
import pytest
from godoty.v1 import action_pb2, session_pb2

from tests.e2e.actions.conftest import (
    ACTION_REQUIRED,
    ALWAYS,
    APPROVE,
    END_TURN,
    Asker,
    asked,
    calls,
    outputs,
)
from tests.support.history import assert_valid_history, assert_valid_request

CALCULATE = '{"expression": "6 * 7"}'


async def test_approved_call_runs_once_and_the_turn_goes_on(asker: Asker) -> None:
    """The asking turn has made one model call and run nothing; the answering one makes one more."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    first = await asker.ask(calls("calculator", arguments=CALCULATE))

    (action,) = asked(first)
    assert first.finished.stop_reason == ACTION_REQUIRED
    assert (action.kind, action.name) == (action_pb2.ACTION_KIND_APPROVAL, "calculator")
    assert action.state == action_pb2.ACTION_STATE_OPEN
    assert action.input_json == CALCULATE
    assert [each.action_id for each in first.finished.actions] == [action.action_id]
    assert outputs(first) == {}

    second = await asker.answer((action, APPROVE))
    assert second.finished.stop_reason == END_TURN
    assert second.kinds[0] == "turn_started"
    assert outputs(second) == {"calculator": "42"}
    assert second.finished.turn_totals.model_calls == 1
    assert second.finished.session_totals.model_calls == 2
    messages = await asker.caller.messages()
    assert_valid_history(messages)
    assert_valid_request(asker.requests()[-1]["messages"])
    assert [each.role for each in messages] == [1, 2, 1, 2]
    (listed,) = await asker.actions()
    assert listed.state == action_pb2.ACTION_STATE_DECIDED
    assert listed.decision.api_key_id == asker.service.key_id
    assert listed.next_turn_id == second.responses[0].turn_id


async def test_denied_call_does_not_run_and_the_model_sees_why(asker: Asker) -> None:
    """The reason is the tool's result."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE)))
    turn = await asker.answer((action, {"deny": {"why": "not today"}}))

    assert outputs(turn) == {"calculator": "The call was denied: not today"}
    assert "not today" in str(asker.requests()[-1]["messages"])
    assert turn.finished.stop_reason == END_TURN


async def test_call_runs_with_the_input_that_was_approved(asker: Asker) -> None:
    """The model sees that it was changed."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE)))
    turn = await asker.answer((action, {"approve": {"input_json": '{"expression": "1 + 1"}'}}))

    output = outputs(turn)["calculator"]
    assert output.startswith("2\n")
    assert "1 + 1" in output


@pytest.mark.parametrize(("expression", "asks"), [("6 * 7", False), ("600 * 7", True)])
async def test_condition_over_the_input_decides(asker: Asker, expression: str, asks: bool) -> None:  # noqa: FBT001 - a case
    """A call whose input is valid by the condition asks; another one runs."""
    condition = '{"properties": {"expression": {"pattern": "[0-9]{3}"}}}'
    await asker.agent({"builtin": "calculator", "approval": {"condition": condition, "why": "large"}})
    turn = await asker.ask(calls("calculator", arguments=f'{{"expression": "{expression}"}}'))

    assert [each.reason for each in asked(turn)] == (["large"] if asks else [])
    assert turn.finished.stop_reason == (ACTION_REQUIRED if asks else END_TURN)


async def test_new_message_closes_what_is_open(asker: Asker) -> None:
    """The model sees that it was not carried out; a late answer is refused."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE)))
    turn = await asker.ask("never mind")

    assert turn.finished.stop_reason == END_TURN
    assert "not carried out" in str(asker.requests()[-1]["messages"])
    messages = await asker.caller.messages()
    assert_valid_history(messages)
    assert_valid_request(asker.requests()[-1]["messages"])
    late = (await asker.answer((action, APPROVE))).failure
    assert late is not None
    assert (late.code, late.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACTION_CLOSED")
    assert late.metadata["turn_id"] == turn.responses[0].turn_id
    (listed,) = await asker.actions(state=action_pb2.ACTION_STATE_CLOSED)
    assert listed.action_id == action.action_id


async def test_same_answer_again_acts_once(asker: Asker) -> None:
    """By its request id it is replayed; without, the action is closed; nothing runs again."""
    await asker.agent({"builtin": "notebook", **ALWAYS})
    write = '{"action": "write", "text": "hello"}'
    (action,) = asked(await asker.ask(calls("notebook", arguments=write)))
    first = await asker.answer((action, APPROVE), request_id="once")
    again = await asker.answer((action, APPROVE), request_id="once")
    late = await asker.answer((action, APPROVE))

    assert first.finished.stop_reason == END_TURN
    assert [each.turn_id for each in again.responses[:1]] == [first.responses[0].turn_id]
    assert late.failure is not None
    assert late.failure.reason == "ACTION_CLOSED"
    assert len(asker.service.entries("talk")) == 2


async def test_partial_answers_make_no_model_call(asker: Asker) -> None:
    """What is decided runs at once; what is open is asked again, with the same id."""
    await asker.agent({"builtin": "calculator", **ALWAYS}, {"builtin": "current_time", **ALWAYS})
    first = await asker.ask("@sandbox tool-loop calls=2 parallel=2")
    one, other = asked(first)
    second = await asker.answer((one, APPROVE))

    assert second.finished.stop_reason == ACTION_REQUIRED
    assert second.finished.turn_totals.model_calls == 0
    assert [each.action_id for each in asked(second)] == [other.action_id]
    assert list(outputs(second)) == ["calculator"]
    third = await asker.answer((other, {"deny": {}}))
    assert third.finished.stop_reason == END_TURN
    assert list(outputs(third)) == ["current_time"]
    results = [block.tool_result for each in await asker.caller.messages() for block in each.content]
    statuses = [each.status for each in results if each.tool_call_id]
    assert statuses == [session_pb2.TOOL_CALL_STATUS_SUCCESS, session_pb2.TOOL_CALL_STATUS_ERROR]


async def test_tools_of_the_step_that_need_no_approval_run_at_once(asker: Asker) -> None:
    """And once: the answering turn takes their results."""
    await asker.agent("calculator", {"builtin": "current_time", **ALWAYS})
    first = await asker.ask("@sandbox tool-loop calls=2 parallel=2")
    (action,) = asked(first)

    assert list(outputs(first)) == ["calculator"]
    second = await asker.answer((action, APPROVE))
    assert list(outputs(second)) == ["current_time"]
    assert second.finished.stop_reason == END_TURN


async def test_other_tenants_action_is_not_found(asker: Asker, other_tenant: object) -> None:
    """Neither by Converse nor by DecideAction, nor in a list."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE)))
    stranger = asker.at(other_tenant)  # type: ignore[arg-type] # a Caller

    failure = await stranger.refused(action, APPROVE)
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "ACTION_NOT_FOUND")
    turn = await stranger.answer((action, APPROVE))
    assert turn.failure is not None
    assert turn.failure.reason == "ACTION_NOT_FOUND"
    assert await stranger.actions() == []
    assert (await asker.answer((action, APPROVE))).finished.stop_reason == END_TURN
