"""Tools that the caller runs: declared in a request or a definition, answered by Converse."""

from __future__ import annotations

from typing import Any

import pytest
from godoty.v1 import action_pb2
from godoty.v1 import agent_service_pb2 as pb

from tests.e2e.actions.conftest import ACTION_REQUIRED, END_TURN, REFUND, Asker, asked, calls, outputs
from tests.support.caller import Caller
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.media import png

LOOK = {
    "tool_name": "look_up",
    "description": "Finds an order.",
    "input_schema": '{"type": "object", "properties": {"number": {"enum": [1, 2]}}, "required": ["number"]}',
}


async def upload(caller: Caller, data: bytes = b"") -> str:
    """Upload an image, or what is given; return its id."""

    async def pieces() -> Any:
        yield pb.UploadAttachmentRequest(data=data or png())

    found = await caller.stub.UploadAttachment(pieces(), metadata=caller.service.metadata, timeout=90.0)
    return str(found.attachment.attachment_id)


@pytest.mark.parametrize("declared", ["request", "definition"])
async def test_caller_runs_the_tool_and_the_turn_goes_on(asker: Asker, declared: str) -> None:
    """The model is offered the tool with its own schema, and gets what the caller answers."""
    own = [{"client": LOOK}] if declared == "definition" else []
    await asker.agent("calculator", *own)
    given: dict[str, Any] = {"client_tools": [LOOK]} if declared == "request" else {}
    first = await asker.ask(calls("look_up", arguments='{"number": 2}'), **given)

    (action,) = asked(first)
    assert first.finished.stop_reason == ACTION_REQUIRED
    assert (action.kind, action.name, action.input_json) == (
        action_pb2.ACTION_KIND_CLIENT_TOOL,
        "look_up",
        '{"number": 2}',
    )
    offered = {each["function"]["name"]: each["function"]["parameters"] for each in asker.requests()[0]["tools"]}
    assert offered["look_up"]["properties"] == {"number": {"enum": [1, 2]}}
    second = await asker.answer((action, {"output": {"output_text": "two pens"}}))
    assert second.finished.stop_reason == END_TURN
    assert outputs(second) == {"look_up": "two pens"}
    assert "two pens" in str(asker.requests()[-1]["messages"])
    assert asker.requests()[-1]["tools"] == asker.requests()[0]["tools"]
    assert_valid_history(await asker.caller.messages())


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ({"output_json": '{"pens": 2}'}, '{"pens": 2}'),
        ({"error": "the shop is closed"}, "the shop is closed"),
        ({"output_text": ""}, ""),
    ],
)
async def test_kinds_of_outputs(asker: Asker, output: dict[str, str], shown: str) -> None:
    """JSON, an error, and nothing."""
    await asker.agent("calculator")
    (action,) = asked(await asker.ask(calls("look_up", arguments='{"number": 1}'), client_tools=[LOOK]))
    turn = await asker.answer((action, {"output": output}))

    assert outputs(turn) == {"look_up": shown}
    assert turn.finished.stop_reason == END_TURN


async def test_image_is_what_the_model_sees(asker: Asker) -> None:
    """An attachment that was uploaded before; one that there is not is refused, and the action stays open."""
    await asker.agent("calculator")
    (action,) = asked(await asker.ask(calls("look_up", arguments='{"number": 1}'), client_tools=[LOOK]))
    missing = await asker.answer((action, {"output": {"attachment_id": "att_0"}}))
    assert missing.failure is not None
    assert missing.failure.reason == "ATTACHMENT_NOT_FOUND"
    attachment_id = await upload(asker.caller)
    turn = await asker.answer((action, {"output": {"attachment_id": attachment_id}}))

    assert turn.finished.stop_reason == END_TURN
    assert attachment_id in outputs(turn)["look_up"]
    assert "image_url" in str(asker.requests()[-1]["messages"])


async def test_mixed_step_waits_for_the_caller_and_the_approval(asker: Asker) -> None:
    """Server tools, one of which needs approval, and two of the caller's in one step: one model call more in all."""
    approved = {"builtin": "current_time", "approval": {}}
    await asker.agent("calculator", approved, {"client": REFUND})
    first = await asker.ask("@sandbox tool-loop calls=2 parallel=4", client_tools=[LOOK])

    open_actions = {each.name: each for each in asked(first)}
    assert list(open_actions) == ["current_time", "refund", "look_up"]
    assert list(outputs(first)) == ["calculator"]
    second = await asker.answer((open_actions["refund"], {"output": {"output_text": "done"}}))
    assert [each.name for each in asked(second)] == ["current_time", "look_up"]
    third = await asker.answer(
        (open_actions["look_up"], {"output": {"output_text": "one pen"}}), (open_actions["current_time"], {"deny": {}})
    )
    assert third.finished.stop_reason == END_TURN
    assert len(asker.service.entries("talk")) == 2
    assert_valid_history(await asker.caller.messages())
    assert_valid_request(asker.requests()[-1]["messages"])


async def test_approval_is_no_answer_to_a_client_tool(asker: Asker) -> None:
    """Nor is an output one to an approval; the action stays open."""
    await asker.agent("calculator")
    (action,) = asked(await asker.ask(calls("look_up", arguments='{"number": 1}'), client_tools=[LOOK]))
    turn = await asker.answer((action, {"approve": {}}))

    assert turn.failure is not None
    assert turn.failure.fields.keys() == {"action_results[0]"}
    (listed,) = await asker.actions(state=action_pb2.ACTION_STATE_OPEN)
    assert listed.action_id == action.action_id


async def test_tool_with_the_name_of_another_is_refused(asker: Asker) -> None:
    """In a request beside the agent's, and within one list."""
    await asker.agent("calculator")
    turn = await asker.ask("hi", client_tools=[{**LOOK, "tool_name": "calculator"}])
    assert turn.failure is not None
    assert turn.failure.fields.keys() == {"client_tools"}
    twice = await asker.ask("hi", client_tools=[{**LOOK, "tool_name": "a-b"}, {**LOOK, "tool_name": "a_b"}])
    assert twice.failure is not None
    assert twice.failure.fields.keys() == {"client_tools"}
