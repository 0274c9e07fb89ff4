"""What is left of a server's messages before they are validated."""

from typing import Any

import pytest

from godoty_service.agents.mcp.messages import MAX_PARTS, reduce_result


@pytest.mark.parametrize(
    ("result", "left"),
    [
        (
            {"tools": [{"name": "a", "inputSchema": {"x": 1}, "icons": [{}], "outputSchema": {}}], "nextCursor": "n"},
            {"tools": [{"name": "a", "inputSchema": {"x": 1}}], "nextCursor": "n"},
        ),
        (
            {"content": [{"type": "text", "text": "a", "annotations": {}, "_meta": {}}], "structuredContent": {"a": 1}},
            {"content": [{"type": "text", "text": "a"}], "structuredContent": {"a": 1}},
        ),
        ({"serverInfo": {"name": "s", "version": "1", "icons": []}}, {"serverInfo": {"name": "s", "version": "1"}}),
        (
            {"resultType": "input_required", "inputRequests": {"a": {}}},
            {"resultType": "input_required", "inputRequests": {}},
        ),
        (
            {"content": "wrong", "tools": [1, None], "serverInfo": []},
            {"content": "wrong", "tools": [1, None], "serverInfo": []},
        ),
    ],
)
def test_members_that_are_not_used_are_left_out(result: dict[str, Any], left: dict[str, Any]) -> None:
    """What is wrong remains, and is refused when it is validated."""
    reduce_result(result)

    assert result == left


def test_parts_are_bounded_in_number() -> None:
    """The model sees how many are missing of a result; a list of tools ends there."""
    result = {"content": [{"type": "text", "text": "a"}] * (MAX_PARTS + 7), "tools": [{"name": "a"}] * (MAX_PARTS + 7)}

    reduce_result(result)

    assert len(result["tools"]) == MAX_PARTS
    assert result["content"][MAX_PARTS:] == [{"type": "text", "text": "[7 more parts of the result are left out.]"}]
