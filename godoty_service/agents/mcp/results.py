"""Converts the result of an MCP tool to the content that the model sees."""

import json
from collections.abc import Callable
from typing import Any

from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from strands.types.tools import ToolResult, ToolResultContent, ToolResultStatus

from godoty_service.agents.tools.limits import cut_texts

_EMPTY = "(no output)"
_MAX_BLOCKS = 32  # of a result; the texts of further ones are joined: each block is handled again in each later request


def tool_result(
    tool_use_id: str,
    result: CallToolResult,
    *,
    max_bytes: int | None = None,
    mask: Callable[[str], str] = lambda text: text,
) -> ToolResult:
    """Convert a result: texts as they are, structured content as JSON, and a note in place of what is no text.

    Args:
        tool_use_id: The model's id of the call.
        result: The result.
        mask: Returns a text without the server's credentials; it comes before a cut, which could leave a part of one.
        max_bytes: Bytes of UTF-8 after which it is cut; None: it is not cut here.
    """
    texts = _joined([_text(block) for block in result.content])
    texts = [mask(_clean(text)) for text in (*texts, *_structured(result.structured_content, texts)) if text]
    if max_bytes is not None:
        texts = list(cut_texts(texts, max_bytes))
    content: list[ToolResultContent] = [{"text": text} for text in texts]
    status: ToolResultStatus = "error" if result.is_error else "success"
    return {"toolUseId": tool_use_id, "status": status, "content": content or [{"text": _EMPTY}]}


def error_result(tool_use_id: str, text: str) -> ToolResult:
    """Return the result of a call that failed."""
    return {"toolUseId": tool_use_id, "status": "error", "content": [{"text": _clean(text)}]}


def _joined(texts: list[str]) -> list[str]:
    """Return the texts in a bounded number of blocks."""
    if len(texts) <= _MAX_BLOCKS:
        return texts
    return [*texts[: _MAX_BLOCKS - 1], "\n".join(texts[_MAX_BLOCKS - 1 :])]


def _structured(value: Any, texts: list[str]) -> list[str]:
    """Return structured content as JSON, unless one of the texts is the same value, as the protocol recommends."""
    if value is None or any(_is_json_of(text, value) for text in texts):
        return []
    return [json.dumps(value, ensure_ascii=False)]


def _is_json_of(text: str, value: Any) -> bool:
    try:
        return bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return False


def _text(block: ContentBlock) -> str:
    match block:
        case TextContent(text=text):
            return text
        case ImageContent(mime_type=kind, data=data) | AudioContent(mime_type=kind, data=data):
            return f"[{kind}, {len(data) * 3 // 4:,} bytes: left out]"
        case ResourceLink(name=name, uri=uri):
            return f"[Resource {name}: {uri}]"
        case EmbeddedResource(resource=resource):
            if isinstance(resource, TextResourceContents):
                return resource.text
            return f"[Resource {resource.uri}, {len(resource.blob) * 3 // 4:,} bytes: left out]"


def _clean(text: str) -> str:
    """Return a text that UTF-8 can encode."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text
