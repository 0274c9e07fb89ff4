"""Converts the result of an MCP tool to the content that the model sees."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

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
from strands.types.tools import ToolResult, ToolResultStatus

from godoty_service.agents.tools.limits import cut_texts

Block = dict[str, Any]
StoreImage = Callable[[bytes], Awaitable[Block | None]]

_EMPTY = "(no output)"
_MAX_BLOCKS = 32  # of a result; the texts of further ones are joined: each block is handled again in each later request
_MAX_IMAGES: Final = 4  # of one result; a note stands in place of others


def tool_result(
    tool_use_id: str,
    result: CallToolResult,
    *,
    max_bytes: int | None = None,
    mask: Callable[[str], str] = lambda text: text,
    images: Mapping[int, Block] = MappingProxyType({}),
) -> ToolResult:
    """Convert a result: texts as they are, structured content as JSON, and a note in place of what is no text.

    Args:
        tool_use_id: The model's id of the call.
        result: The result.
        mask: Returns a text without the server's credentials; it comes before a cut, which could leave a part of one.
        max_bytes: Bytes of UTF-8 after which its texts are cut; None: they are not cut here.
        images: The content blocks of its images that are stored, by their index; they follow the texts.
    """
    texts = _joined([_text(block) for index, block in enumerate(result.content) if index not in images])
    texts = [mask(_clean(text)) for text in (*texts, *_structured(result.structured_content, texts)) if text]
    if max_bytes is not None:
        texts = list(cut_texts(texts, max_bytes))
    content: list[Any] = [*({"text": text} for text in texts), *images.values()]
    status: ToolResultStatus = "error" if result.is_error else "success"
    return {"toolUseId": tool_use_id, "status": status, "content": content or [{"text": _EMPTY}]}


async def store_images(result: CallToolResult, store: StoreImage) -> dict[int, Block]:
    """Store the images of a result; return their content blocks by their index in it.

    Args:
        result: The result.
        store: Stores an image; it returns None if the bytes are none.
    """
    found: dict[int, Block] = {}
    for index, block in enumerate(result.content):
        if not isinstance(block, ImageContent) or len(found) >= _MAX_IMAGES:
            continue
        try:
            data = base64.b64decode(block.data, validate=True)
        except ValueError:
            continue
        if data and (stored := await store(data)) is not None:
            found[index] = stored
    return found


async def no_image(_: bytes) -> Block | None:
    """Store no image: a note stands in its place."""
    return None


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
