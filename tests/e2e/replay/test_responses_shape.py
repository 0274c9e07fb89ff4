"""Parts of the Responses shape that no recording has: tool calls, reasoning, an answer that was cut off."""

from typing import Any

import pytest

from godoty_service.openrouter.decoding.chunk import chat_completion
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder

TEXT = {"type": "message", "content": [{"type": "output_text", "text": "Hel"}, {"type": "output_text", "text": "lo"}]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "clock", "arguments": '{"zone":"UTC"}'}
THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "x"}


def _decode(body: dict[str, Any]) -> tuple[StreamDecoder, list[Any]]:
    decoder = StreamDecoder(None)
    events = [*decoder.add_chunks([chat_completion(body)]), *decoder.end()]
    return decoder, events


def test_responses_body_is_answer() -> None:
    """Text parts are joined, the summary is the reasoning, and a function call is a tool call under its call id."""
    decoder, events = _decode({"output": [THOUGHT, TEXT, CALL], "status": "completed", "model": "m"})

    deltas = [each["contentBlockDelta"]["delta"] for each in events if "contentBlockDelta" in each]
    assert deltas == [
        {"reasoningContent": {"text": "Hm."}},
        {"text": "Hello"},
        {"toolUse": {"input": '{"zone":"UTC"}'}},
    ]
    starts = [each["contentBlockStart"]["start"] for each in events if "contentBlockStart" in each]
    assert starts[-1] == {"toolUse": {"toolUseId": "call_1", "name": "clock"}}
    assert (decoder.finish_reason, events[-1]) == ("tool_calls", {"messageStop": {"stopReason": "tool_use"}})


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "in_progress"}, None),
        ({}, None),
    ],
)
def test_status_of_responses_body_maps_to_finish_reason(status: dict[str, Any], reason: str | None) -> None:
    """A completed body has `stop`; a stated reason has the chat API's word; others have none."""
    decoder, _ = _decode({"output": [TEXT], **status})

    assert decoder.finish_reason == reason


@pytest.mark.parametrize("body", [{"choices": [], "output": [TEXT]}, {"output": None}, {"error": {"code": 500}}, {}])
def test_other_body_is_unchanged(body: dict[str, Any]) -> None:
    """A body with choices, or without output, is not of that shape."""
    assert chat_completion(body) is body
