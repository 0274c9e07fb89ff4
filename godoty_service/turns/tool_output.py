"""The result of a tool as text, and its bound: what is longer is cut, with a note that the model and the user see."""

import json
from typing import Any

from strands.hooks import AfterToolCallEvent, HookProvider, HookRegistry
from strands.types.tools import ToolResultContent


class ToolOutputLimit(HookProvider):
    """Cuts each tool's result before it is shown, kept, or sent to the model."""

    def __init__(self, most_bytes: int) -> None:
        """Build it.

        Args:
            most_bytes: Bytes of UTF-8 that a result may have, its note aside.
        """
        self._most = most_bytes

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register the hook. Of the providers of an agent the last is called first after a tool call."""
        registry.add_callback(AfterToolCallEvent, self._bound)

    def _bound(self, event: AfterToolCallEvent) -> None:
        content = bounded(event.result["content"], most_bytes=self._most)
        if content is not event.result["content"]:
            event.result = {**event.result, "content": content}


def bounded(content: list[ToolResultContent], *, most_bytes: int) -> list[ToolResultContent]:
    """Return the content of a tool's result, cut to so many bytes; the same list where nothing is cut."""
    left = most_bytes
    for place, block in enumerate(content):
        text = _text(block)
        kept = _start(text, left)
        if len(kept) < len(text):
            dropped = len(text) - len(kept) + sum(len(_text(each)) for each in content[place + 1 :])
            note = f"\n[The result is cut: {dropped:,} more characters are left out.]"
            return [*content[:place], {"text": kept + note}]
        left -= len(text.encode("utf-8", "replace"))
    return content


def tool_output(content: Any) -> str:
    """Write a tool's result as text, as the model sees it."""
    return "\n".join(map(_text, content))


def _text(block: Any) -> str:
    return block["text"] if "text" in block else json.dumps(block.get("json"), ensure_ascii=False)


def _start(text: str, most: int) -> str:
    """Return the start of a text that has at most so many bytes of UTF-8."""
    if len(text) * 4 <= most:
        return text
    return text[: max(most, 0)].encode("utf-8", "replace")[: max(most, 0)].decode(errors="ignore")
