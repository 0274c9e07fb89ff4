"""Tools that stand in for those whose call is answered otherwise: by a result that is known, or not yet."""

from typing import Any

from strands.types._events import ToolResultEvent
from strands.types.tools import AgentTool, ToolGenerator, ToolSpec, ToolUse


class KeptResult(AgentTool):
    """Yields a result that is known.

    Attributes:
        shown: The turn that made the result has shown it.
    """

    def __init__(self, result: dict[str, Any], *, shown: bool) -> None:
        """Create it.

        Args:
            result: The result, without the id of the call.
            shown: The turn that made it has shown it; else this one does.
        """
        super().__init__()
        self._result = result
        self.shown = shown

    @property
    def tool_name(self) -> str:
        """A name, which no model sees."""
        return "kept_result"

    @property
    def tool_spec(self) -> ToolSpec:
        """A specification, which no model sees."""
        return {"name": self.tool_name, "description": "Kept.", "inputSchema": {"json": {"type": "object"}}}

    @property
    def tool_type(self) -> str:
        """The kind of tool, for Strands."""
        return "kept"

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **_: Any) -> ToolGenerator:  # noqa: ARG002 - Strands' signature
        """Yield the result."""
        yield ToolResultEvent({**self._result, "toolUseId": tool_use["toolUseId"]})  # type: ignore[typeddict-item] # as it was stored


class Waiting(KeptResult):
    """Stands in for a tool whose call waits for an answer: it never runs."""

    def __init__(self) -> None:
        super().__init__({"status": "error", "content": [{"text": "The call waits for an answer."}]}, shown=True)
