"""The tools of the server that keep to the protocol."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mcp.server import Server
from mcp.server.subscriptions import ListenHandler, ToolsListChanged
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from openrouter_sandbox.mcp.faults import KINDS
from openrouter_sandbox.mcp.leaks import Context, leak, leaking_tool
from openrouter_sandbox.mcp.results import text_result
from openrouter_sandbox.mcp.state import McpState

Run = Callable[[McpState, Context, Mapping[str, Any]], Awaitable[CallToolResult]]

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass(frozen=True)
class SandboxTool:
    """A tool.

    Attributes:
        description: What it does.
        properties: Its input, as JSON schemas by name; all are required.
        run: Runs it; None: the answer is made elsewhere, as it breaks the protocol.
    """

    description: str
    properties: Mapping[str, Mapping[str, Any]]
    run: Run | None = None

    def listed(self, name: str) -> Tool:
        """Return the tool as the list has it."""
        schema = {"type": "object", "properties": dict(self.properties), "required": list(self.properties)}
        return Tool(name=name, description=self.description, input_schema=schema)


def build_server(state: McpState) -> Server[Any]:
    """Build the server."""

    async def list_tools(context: Context, _: PaginatedRequestParams | None) -> ListToolsResult:
        state.sessions.add(context.session)
        learned = {name: SandboxTool("Was learned.", {}) for name in state.learned}
        tools = {**TOOLS, **learned, **records(state.records)}
        return ListToolsResult(tools=[*(tool.listed(name) for name, tool in tools.items()), *leaking_tool(context)])

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        state.calls[params.name] += 1
        if params.name == "leak":
            return await leak(context, params.arguments or {})
        tool = TOOLS.get(params.name) or records(state.records).get(params.name)
        if tool is None and params.name in state.learned:
            return text_result(f"{params.name} was learned")
        if tool is None or tool.run is None:
            raise ValueError(f"there is no tool {params.name}")
        try:
            return await tool.run(state, context, params.arguments or {})
        except asyncio.CancelledError:
            state.cancelled[params.name] += 1
            raise

    return Server(
        "sandbox",
        version="1.0",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_subscriptions_listen=ListenHandler(state.changes),
    )


@lru_cache(maxsize=4)
def records(number: int) -> Mapping[str, SandboxTool]:
    """Return tools as large as those of real servers: some 700 bytes of description and schema each."""
    return {f"record_{each:03}": SandboxTool(_RECORD, _RECORD_FIELDS, _echo) for each in range(number)}


async def announce(state: McpState) -> None:
    """Notify clients that the list of tools has changed."""
    await state.changes.publish(ToolsListChanged())
    for session in list(state.sessions):
        try:
            await session.send_tool_list_changed()
        except Exception:  # noqa: BLE001 - the session has ended
            state.sessions.discard(session)


async def _echo(_: McpState, __: Context, arguments: Mapping[str, Any]) -> CallToolResult:
    return text_result(str(arguments.get("text")))


async def _add(_: McpState, __: Context, arguments: Mapping[str, Any]) -> CallToolResult:
    result = {"sum": arguments["a"] + arguments["b"]}
    text = TextContent(type="text", text=json.dumps(result))
    return CallToolResult(content=[text], structured_content=result)


async def _measure(_: McpState, __: Context, ___: Mapping[str, Any]) -> CallToolResult:
    return CallToolResult(content=[], structured_content={"degrees": [20.5, 21]})


async def _progress(state: McpState, context: Context, arguments: Mapping[str, Any]) -> CallToolResult:
    steps = int(arguments["steps"])
    for step in range(1, steps + 1):
        await context.session.report_progress(step, steps, f"step {step}")
    if "hold" in arguments:
        await state.hold(str(arguments["hold"])).wait()
    return text_result(f"{steps} steps done")


async def _fail(_: McpState, __: Context, ___: Mapping[str, Any]) -> CallToolResult:
    return text_result("the order does not exist", is_error=True)


async def _refuse(_: McpState, __: Context, ___: Mapping[str, Any]) -> CallToolResult:
    raise ValueError("refused")


async def _hang(state: McpState, _: Context, arguments: Mapping[str, Any]) -> CallToolResult:
    await state.hold(str(arguments["hold"])).wait()
    return text_result("released")


async def _picture(_: McpState, __: Context, ___: Mapping[str, Any]) -> CallToolResult:
    return CallToolResult(content=[ImageContent(type="image", data=_PIXEL, mime_type="image/png")])


async def _learn(state: McpState, _: Context, arguments: Mapping[str, Any]) -> CallToolResult:
    state.learned.append(str(arguments["name"]))
    await announce(state)
    return text_result("learned")


_RECORD = "Find records by what they are about, newest first, and return them as text with their ids and their times."
_RECORD_FIELDS: Mapping[str, Any] = {
    "text": {"type": "string", "description": "What the records are about: words, or a phrase in quotes."},
    "status": {"type": "string", "enum": ["open", "waiting", "closed"], "description": "The state of the records."},
    "limit": {"type": "integer", "minimum": 1, "maximum": 50, "description": "How many records are returned."},
    "tags": {"type": "array", "items": {"type": "string"}, "minItems": 0, "description": "Tags that all of them have."},
    "range": {
        "type": "object",
        "properties": {"from": {"type": "string", "format": "date"}, "to": {"type": "string", "format": "date"}},
        "description": "The days on which they were changed.",
    },
}
_TEXT: Mapping[str, Any] = {"type": "string"}
_NUMBER: Mapping[str, Any] = {"type": "number"}
TOOLS: Mapping[str, SandboxTool] = {
    "echo": SandboxTool("Return a text.", {"text": _TEXT}, _echo),
    "add": SandboxTool("Add two numbers.", {"a": _NUMBER, "b": _NUMBER}, _add),
    "measure": SandboxTool("Measure the temperature.", {}, _measure),
    "progress": SandboxTool("Do something in steps.", {"steps": {"type": "integer", "minimum": 1}}, _progress),
    "fail": SandboxTool("Fail.", {}, _fail),
    "refuse": SandboxTool("Answer with an error of the protocol.", {}, _refuse),
    "hang": SandboxTool("Wait until a hold is released.", {"hold": _TEXT}, _hang),
    "picture": SandboxTool("Return a picture.", {}, _picture),
    "learn": SandboxTool("Add a tool to the list.", {"name": _TEXT}, _learn),
    "die": SandboxTool("Close the connection in the middle of the answer.", {}),
    "flood": SandboxTool("Answer with many megabytes.", {"megabytes": {"type": "integer", "minimum": 1}}),
    "nonsense": SandboxTool(
        "Answer with what is no answer.",
        {"kind": {"enum": list(KINDS)}},
    ),
    "crumble": SandboxTool("Answer in chunks of one byte.", {}),
    "redirect": SandboxTool("Redirect the call.", {"to": _TEXT}),
    "many": SandboxTool(
        "Answer with many small things.",
        {
            "kind": {"enum": ["blocks", "notifications", "requests"]},
            "number": {"type": "integer", "minimum": 1, "maximum": 100_000},
        },
    ),
    "count": SandboxTool(
        "Has a schema that must not be changed.", {"number": {"enum": [1, 2, 3]}, "exact": {"const": 5}, "any": {}}
    ),
}
