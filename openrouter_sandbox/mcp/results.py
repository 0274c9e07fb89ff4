"""The results of tools."""

from mcp_types import CallToolResult, TextContent


def text_result(text: str, *, is_error: bool = False) -> CallToolResult:
    """Return a result of one text."""
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)
