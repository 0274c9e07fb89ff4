"""The limits of a tool call: its time, and the size of its result."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, Final

from strands.types._events import ToolResultEvent
from strands.types.tools import AgentTool, ToolGenerator, ToolResult, ToolSpec, ToolUse

from godoty_service.agents.tools.outcomes import ToolTimedOut

SECONDS: Final = 5.0  # for a tool that requests nothing from another host
OUTPUT_BYTES: Final = 64 * 1024  # of its result


class LimitedTool(AgentTool):
    """A tool whose calls end in time, with a result of bounded size. It has nothing of a turn: all turns share it."""

    def __init__(self, tool: AgentTool, *, seconds: float = SECONDS, max_bytes: int = OUTPUT_BYTES) -> None:
        """Create the tool.

        Args:
            tool: The tool without limits. It must not block the event loop.
            seconds: The time that a call may take; then it is cancelled, and the model sees an error.
            max_bytes: Bytes of UTF-8 after which a result is cut, with a note for the model.
        """
        super().__init__()
        self._tool = tool
        self._seconds = seconds
        self._max_bytes = max_bytes

    @property
    def tool_name(self) -> str:
        """The name that models see."""
        return self._tool.tool_name

    @property
    def tool_spec(self) -> ToolSpec:
        """The tool as Strands describes it."""
        return self._tool.tool_spec

    @property
    def tool_type(self) -> str:
        """The kind of tool, for Strands."""
        return self._tool.tool_type

    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **options: Any) -> ToolGenerator:
        """Call the tool; yield its result, which is an error if it took too long."""
        try:
            async with asyncio.timeout(self._seconds) as limit:
                event = await self._last_event(tool_use, invocation_state, options)
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"The tool did not end within {self._seconds:g} s; the call was cancelled."
            result: ToolResult = {"toolUseId": tool_use["toolUseId"], "status": "error", "content": [{"text": text}]}
            yield ToolResultEvent(result, exception=ToolTimedOut(text))
            return
        yield event

    async def _last_event(self, tool_use: ToolUse, state: dict[str, Any], options: dict[str, Any]) -> Any:
        """Return the event with the tool's result, cut to its limit."""
        event: Any = None
        async with aclosing(self._tool.stream(tool_use, state, **options)) as events:
            async for each in events:
                event = each
        if not isinstance(event, ToolResultEvent):
            return event
        result = event.tool_result
        texts = [each["text"] for each in result["content"] if "text" in each]
        cut: ToolResult = {**result, "content": [{"text": each} for each in cut_texts(texts, self._max_bytes)]}
        return ToolResultEvent(cut, exception=event.exception)


def cut_texts(texts: list[str], max_bytes: int) -> Iterator[str]:
    """Yield texts up to a number of bytes of UTF-8, and say so if some are left out."""
    remaining = max_bytes
    for index, text in enumerate(texts):
        start = _encoded(text[:remaining])[:remaining].decode(errors="ignore") if len(text) * 4 > remaining else text
        if len(start) < len(text):
            left_out = len(text) - len(start) + sum(map(len, texts[index + 1 :]))
            yield f"{start}\n[The result is cut: {left_out:,} more characters are left out.]"
            return
        remaining -= len(_encoded(text))
        yield text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
