"""What makes a history one that every model takes."""

from collections.abc import Sequence

from godoty.v1 import agent_service_pb2 as pb


def assert_whole(messages: Sequence[pb.Message]) -> None:
    """Check a session's messages: numbered without gaps, user and assistant in turns, every tool use answered."""
    assert [each.number for each in messages] == list(range(1, len(messages) + 1))
    assert [each.role for each in messages] == [pb.ROLE_USER, pb.ROLE_ASSISTANT] * (len(messages) // 2)
    for asked, answered in zip(messages, messages[1:], strict=False):
        uses = [block.tool_use.tool_call_id for block in asked.content if block.HasField("tool_use")]
        results = [block.tool_result.tool_call_id for block in answered.content if block.HasField("tool_result")]
        assert sorted(uses) == sorted(results)
    assert all(each.content for each in messages)
    assert not any(block.HasField("tool_use") for block in messages[-1].content)
