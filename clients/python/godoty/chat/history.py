"""The messages of a session: shown when it is opened, and written to a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from godoty.chat.formatting import count_of, format_attachment, format_totals
from godoty.reasons import SessionNotFound
from godoty.types import Attachment, ContentBlock, Message, Role, Session, ToolCallStatus, ToolResult, ToolUse

if TYPE_CHECKING:
    from godoty.chat.screen import Screen
    from godoty.client import AsyncGodoty

_PAGE = 500
_MAX_TEXT = 20_000  # characters of a text that are shown
_NO_RESULT = ToolResult(status=ToolCallStatus.ERROR, output="no result")


async def show(client: AsyncGodoty, screen: Screen, session: Session, count: int) -> list[str]:
    """Show the latest messages of a session; return those of the user."""
    latest: deque[Message] = deque(maxlen=count)
    async for message in client.sessions.messages(session.session_id, page_size=_PAGE):
        latest.append(message)
    if session.message_count > len(latest):
        screen.line(f"… {count_of(session.message_count - len(latest), 'earlier message')} …", style="dim")
    results = _results(latest)
    for message in latest:
        _show_message(screen, message, results)
    return [block.text for message in latest for block in message.content if block.text and message.role is Role.USER]


async def last_message(client: AsyncGodoty, session_id: str) -> tuple[int, str]:
    """Return the number and the text of the user's last message; 0: there is none."""
    found = (0, "")
    try:
        async for message in client.sessions.messages(session_id, page_size=_PAGE):
            if message.role is Role.USER and not any(block.tool_result for block in message.content):
                found = message.number, "\n".join(block.text for block in message.content if block.text)
    except SessionNotFound:  # it begins with its first message
        pass
    return found


def _show_message(screen: Screen, message: Message, results: dict[str, ToolResult]) -> None:
    for block in message.content:
        match block:
            case ContentBlock(text=str(text)) if message.role is Role.USER:
                screen.message(_excerpt(text))
            case ContentBlock(text=str(text)):
                screen.stream(_excerpt(text))
                screen.end_answer()
            case ContentBlock(attachment=Attachment() as attachment):
                screen.line(f"[{format_attachment(attachment)}]", style="dim")
            case ContentBlock(tool_use=ToolUse() as use):
                result = results.get(use.tool_call_id, _NO_RESULT)
                failed = result.status is ToolCallStatus.ERROR
                screen.tool(use.name, use.input_json, result.output, failed=failed)
            case ContentBlock(reasoning=str(text)):
                screen.line(f"reasoning: {count_of(len(text), 'character')}", style="dim")
        if block.truncated:
            screen.line(f"… truncated: {block.size:,} bytes in total …", style="dim")


def _results(messages: Iterable[Message]) -> dict[str, ToolResult]:
    return {
        block.tool_result.tool_call_id: block.tool_result
        for message in messages
        for block in message.content
        if block.tool_result is not None
    }


def _excerpt(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text
    return f"{text[:_MAX_TEXT]}\n\n… {len(text) - _MAX_TEXT:,} more characters: /export writes them to a file …"


async def export(client: AsyncGodoty, session_id: str, path: Path) -> int:
    """Write a session's messages to a new file as Markdown; return their number.

    Raises:
        OSError: The file is there already, or cannot be written.
    """
    metrics = await client.sessions.metrics(session_id)
    number = 0
    with path.open("x", encoding="utf-8") as file:
        file.write(f"# Session {session_id}\n\n{format_totals(metrics.totals)}\n")
        async for message in client.sessions.messages(session_id, page_size=_PAGE):
            number += 1
            for block in await _complete(client, session_id, message):
                file.write(_as_markdown(message, block))
    return number


async def _complete(client: AsyncGodoty, session_id: str, message: Message) -> tuple[ContentBlock, ...]:
    """Return a message's content, also if its page had it truncated."""
    if not any(block.truncated for block in message.content):
        return message.content
    blocks: dict[int, ContentBlock] = {}
    async for index, piece in client.sessions.read_message(session_id, message.number):
        blocks[index] = _joined(blocks[index], piece) if index in blocks else piece
    return tuple(blocks[index] for index in sorted(blocks))


def _joined(begin: ContentBlock, piece: ContentBlock) -> ContentBlock:
    if begin.tool_use is not None and piece.tool_use is not None:
        input_json = begin.tool_use.input_json + piece.tool_use.input_json
        return replace(begin, tool_use=replace(begin.tool_use, input_json=input_json))
    if begin.tool_result is not None and piece.tool_result is not None:
        output = begin.tool_result.output + piece.tool_result.output
        return replace(begin, tool_result=replace(begin.tool_result, output=output))
    if begin.reasoning is not None:
        return replace(begin, reasoning=begin.reasoning + (piece.reasoning or ""))
    return replace(begin, text=(begin.text or "") + (piece.text or ""))


def _as_markdown(message: Message, block: ContentBlock) -> str:
    who = "User" if message.role is Role.USER else "Agent"
    match block:
        case ContentBlock(text=str(text)):
            return f"\n## {who}, {message.create_time:%Y-%m-%d %H:%M:%S} UTC\n\n{text}\n"
        case ContentBlock(reasoning=str(text)):
            return f"\n### Reasoning\n\n{text}\n"
        case ContentBlock(tool_use=ToolUse() as use):
            return f"\n### Tool call: {use.name}\n\n{_fenced(use.input_json)}"
        case ContentBlock(tool_result=ToolResult() as result):
            return f"\n### Result of the tool\n\n{_fenced(result.output)}"
        case ContentBlock(attachment=Attachment() as attachment):
            return f"\n[{format_attachment(attachment)}, {attachment.attachment_id}]\n"
    return ""


def _fenced(text: str) -> str:
    """Return a text as a block of code that it does not end itself."""
    marks = "```"
    while marks in text:
        marks += "`"
    return f"{marks}\n{text}\n{marks}\n"
