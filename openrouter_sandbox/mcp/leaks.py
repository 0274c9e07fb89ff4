"""What a careless server repeats: the headers of requests, secret ones among them, wherever it can say something."""

from collections.abc import Mapping
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolResult, Tool

from openrouter_sandbox.mcp.results import text_result

Context = ServerRequestContext[Any]

LEAKY: Final = "/leaky"  # the path of the server that does
WAYS: Final = ("text", "error", "refusal", "structured", "progress", "cut")
_CUT: Final = 256  # bytes at which the client cuts a result


def leaking_tool(context: Context) -> list[Tool]:
    """Return the tool `leak` of the path `/leaky`, whose description and schema repeat the headers of the request."""
    if context.request is None or context.request.url.path != LEAKY:
        return []
    said = _said(context)
    schema = {"type": "object", "properties": {"way": {"enum": list(WAYS), "description": said}}, "required": ["way"]}
    return [Tool(name="leak", title=said, description=f"Repeats {said}", input_schema=schema)]


async def leak(context: Context, arguments: Mapping[str, Any]) -> CallToolResult:
    """Repeat the headers of the request in one of the ways in which a server can say something."""
    said, way = _said(context), arguments["way"]
    if way == "refusal":
        raise MCPError(INTERNAL_ERROR, said)
    if way == "progress":
        await context.session.report_progress(1, 2, said)
    if way == "structured":
        return CallToolResult(content=[], structured_content=dict(_sent(context)))
    if way == "cut":  # in the middle of the secret
        secret = _sent(context).get("x-api-key", "")
        return text_result("x" * (_CUT - len(secret) // 2) + secret)
    return text_result("done" if way == "progress" else said, is_error=way == "error")


def _sent(context: Context) -> Mapping[str, str]:
    """Return the headers of the request."""
    return {} if context.request is None else context.request.headers


def _said(context: Context) -> str:
    return ", ".join(f"{name}: {value}" for name, value in _sent(context).items())
