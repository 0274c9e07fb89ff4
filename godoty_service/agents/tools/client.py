"""The tools of callers as agents have them: a specification for the model, and nothing that the server could run."""

import json
from typing import Any, Final

from strands import Agent
from strands.types._events import ToolResultEvent
from strands.types.tools import AgentTool, ToolGenerator, ToolSpec, ToolUse

from godoty_service.agents.client_tools import ClientTool, name_key
from godoty_service.agents.mcp.tools import SharedSpecs

_NO_MEMBERS: Final[dict[str, Any]] = {"type": "object", "properties": {}}


class OfferedClientTool(AgentTool):
    """A client tool of an agent. Its calls are answered before it would run."""

    def __init__(self, tool: ClientTool) -> None:
        super().__init__()
        self._tool = tool

    @property
    def closes_on_expiry(self) -> bool:
        """Whether a call without a result in time closes its step."""
        return self._tool.closes_on_expiry

    @property
    def tool_name(self) -> str:
        """The name that models see."""
        return self._tool.name

    @property
    def tool_spec(self) -> ToolSpec:
        """The tool as Strands describes it."""
        schema = json.loads(self._tool.input_schema) if self._tool.input_schema else _NO_MEMBERS
        return {"name": self._tool.name, "description": self._tool.description, "inputSchema": {"json": schema}}

    @property
    def tool_type(self) -> str:
        """The kind of tool, for Strands."""
        return "client"

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **_: Any) -> ToolGenerator:  # noqa: ARG002 - Strands' signature
        """Yield an error: there is nothing that the server could run."""
        text = "The tool is run by the caller, who was not asked."
        yield ToolResultEvent({"toolUseId": tool_use["toolUseId"], "status": "error", "content": [{"text": text}]})


def offer_client_tools(agent: Agent, tools: tuple[ClientTool, ...]) -> None:
    """Give an agent that was just built the tools of its callers, beside those that it has; a name that is taken stays.

    Strands' registry would change their schemas.
    """
    registry = agent.tool_registry
    taken = {name_key(name) for name in registry.registry}
    added = [OfferedClientTool(each) for each in tools if name_key(each.name) not in taken]
    if not added:
        return
    own = registry.get_all_tool_specs()
    registry.registry.update({each.tool_name: each for each in added})
    specs = SharedSpecs([*own, *(each.tool_spec for each in added)])
    by_name = {spec["name"]: spec for spec in specs}
    registry.get_all_tool_specs = lambda: specs  # type: ignore[method-assign] # it is read by name
    registry.get_all_tools_config = lambda: by_name  # type: ignore[method-assign] # the same
