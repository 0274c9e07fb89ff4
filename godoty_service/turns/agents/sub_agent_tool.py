"""The tool by which a model calls another agent."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from strands.types._events import ToolInterruptEvent, ToolResultEvent
from strands.types.tools import AgentTool, ToolGenerator, ToolSpec, ToolUse

from godoty_service.agents.definitions import SubAgent

TASK: Final = "task"  # the tool's one input


class SubAgentTool(AgentTool):
    """A sub-agent as a tool of one agent in one turn."""

    def __init__(
        self,
        entry: SubAgent,
        *,
        path_of: Callable[[str], str],
        call: Callable[[SubAgent, ToolUse], Awaitable[ToolResultEvent | ToolInterruptEvent]],
    ) -> None:
        """Create the tool.

        Args:
            entry: The sub-agent, as the definition of the agent that calls it has it.
            path_of: Returns the path of the sub-agent that a tool call runs, by the id of the call.
            call: Runs the sub-agent; returns its result, which is an error if it failed, or that it waits.
        """
        super().__init__()
        self._entry = entry
        self.path_of = path_of
        self._call = call

    @property
    def tool_name(self) -> str:
        """The name that models see."""
        return self._entry.tool_name

    @property
    def tool_spec(self) -> ToolSpec:
        """The tool as Strands describes it."""
        words = "The task, with all that is needed for it: the agent sees nothing else of the conversation."
        schema = {"type": "object", "properties": {TASK: {"type": "string", "description": words}}, "required": [TASK]}
        return {
            "name": self.tool_name,
            "description": self._entry.description,
            "inputSchema": {"json": schema},
        }

    @property
    def tool_type(self) -> str:
        """The kind of tool, for Strands."""
        return "sub_agent"

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **_: Any) -> ToolGenerator:  # noqa: ARG002 - Strands' signature
        """Run the sub-agent; yield its result, or that it waits."""
        yield await self._call(self._entry, tool_use)
