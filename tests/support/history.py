"""Checks that a history is one that every model accepts."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from godoty.v1 import agent_service_pb2 as pb


def assert_valid_history(messages: Sequence[pb.Message]) -> None:
    """Check a session's messages: numbered without gaps, user and assistant alternate, every tool use has a result."""
    assert [each.number for each in messages] == list(range(1, len(messages) + 1))
    assert [each.role for each in messages] == [pb.ROLE_USER, pb.ROLE_ASSISTANT] * (len(messages) // 2)
    for asked, answered in pairwise(messages):
        uses = [block.tool_use.tool_call_id for block in asked.content if block.HasField("tool_use")]
        results = [block.tool_result.tool_call_id for block in answered.content if block.HasField("tool_result")]
        assert sorted(uses) == sorted(results)
    assert all(each.content for each in messages if each.role == pb.ROLE_USER)
    assert not any(block.text == "" for each in messages for block in each.content if block.HasField("text"))
    assert not any(block.HasField("tool_use") for block in messages[-1].content)


def assert_valid_request(messages: Sequence[dict[str, Any]]) -> None:
    """Check the messages of a request, as the provider received them."""
    spoken = [each for each in messages if each["role"] in ("user", "assistant")]
    turns = [each for each in spoken if not each.get("tool_calls")]
    assert messages[0]["role"] == "system"
    assert [each["role"] for each in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2)
    asked = [call["id"] for each in spoken for call in each.get("tool_calls") or ()]
    assert asked == [each["tool_call_id"] for each in messages if each["role"] == "tool"]
    for index, each in enumerate(messages):
        if each["role"] == "tool":
            assert messages[index - 1]["role"] in ("tool", "assistant")
