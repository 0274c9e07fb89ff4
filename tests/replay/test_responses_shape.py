"""What no recording shows of the Responses shape: tool calls, reasoning, an answer that was cut off."""

from typing import Any

import pytest

from godoty_service.openrouter.answer import Answer
from godoty_service.openrouter.responses import as_chat

TEXT = {"type": "message", "content": [{"type": "output_text", "text": "Hel"}, {"type": "output_text", "text": "lo"}]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "clock", "arguments": '{"zone":"UTC"}'}
THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "x"}


def _taken(body: dict[str, Any]) -> tuple[Answer, list[Any]]:
    answer = Answer(None)
    events = [*answer.take([as_chat(body)]), *answer.end()]
    return answer, events


def test_a_responses_body_is_an_answer() -> None:
    """Text parts are joined, the summary is the reasoning, and a function call is a tool call under its call id."""
    answer, events = _taken({"output": [THOUGHT, TEXT, CALL], "status": "completed", "model": "m"})

    deltas = [each["contentBlockDelta"]["delta"] for each in events if "contentBlockDelta" in each]
    assert deltas == [
        {"reasoningContent": {"text": "Hm."}},
        {"text": "Hello"},
        {"toolUse": {"input": '{"zone":"UTC"}'}},
    ]
    starts = [each["contentBlockStart"]["start"] for each in events if "contentBlockStart" in each]
    assert starts[-1] == {"toolUse": {"toolUseId": "call_1", "name": "clock"}}
    assert (answer.finish_reason, events[-1]) == ("tool_calls", {"messageStop": {"stopReason": "tool_use"}})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "in_progress"}, None),
        ({}, None),
    ],
)
def test_a_responses_body_tells_why_it_ended(said: dict[str, Any], reason: str | None) -> None:
    """Complete is `stop`; a reason is given in the chat API's words; what says nothing stays open."""
    answer, _ = _taken({"output": [TEXT], **said})

    assert answer.finish_reason == reason


@pytest.mark.parametrize("body", [{"choices": [], "output": [TEXT]}, {"output": None}, {"error": {"code": 500}}, {}])
def test_other_bodies_are_left_alone(body: dict[str, Any]) -> None:
    """What has choices, or no output, is not of that shape."""
    assert as_chat(body) is body
