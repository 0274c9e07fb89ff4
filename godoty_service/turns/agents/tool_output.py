"""Limits the results of all tools of an agent, also of those that have limits of their own."""

from typing import Any

from strands.hooks import AfterToolCallEvent, HookProvider, HookRegistry
from strands.types.tools import ToolResultContent

from godoty_service.agents.tools.limits import cut_texts
from godoty_service.sessions.messages import tool_result_text


class ToolOutputLimit(HookProvider):
    """Cuts each tool result to a maximum size before it is appended, stored or sent to the model."""

    def __init__(self, max_bytes: int) -> None:
        """Initialize the limit.

        Args:
            max_bytes: Bytes of UTF-8 that a result may have, without the note about the cut.
        """
        self._max_bytes = max_bytes

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register the hook. After a tool call, Strands calls the last hook provider of an agent first."""
        registry.add_callback(AfterToolCallEvent, self._cut_result)

    def _cut_result(self, event: AfterToolCallEvent) -> None:
        content = cut_tool_result(event.result["content"], max_bytes=self._max_bytes)
        if content is not event.result["content"]:
            event.result = {**event.result, "content": content}


def cut_tool_result(content: list[ToolResultContent], *, max_bytes: int) -> list[ToolResultContent]:
    """Return a tool result cut to a number of bytes, with a note for the model and the user; itself if it fits."""
    texts = [tool_result_text([block]) for block in content]
    cut = list(cut_texts(texts, max_bytes))
    return content if cut == texts else [*content[: len(cut) - 1], {"text": cut[-1]}]
