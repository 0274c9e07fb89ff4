"""Messages of a conversation as messages of agent_service.proto: within a bound of bytes, or whole in pieces."""

import json
from collections.abc import Iterator
from typing import Any

from godoty.v1 import agent_service_pb2 as pb

from godoty_service.rpc.metering_messages import timestamp
from godoty_service.sessions.messages import KeptMessage
from godoty_service.turns.tool_output import tool_output

PIECE = 256 * 1024  # bytes of text in one response of ReadMessage
_LEAST = 16  # bytes that an empty block takes of the bound
_ROLES = {"user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}


def message_message(message: KeptMessage, *, most_bytes: int) -> pb.Message:
    """Convert a message; its blocks are cut once they have so many bytes together."""
    converted, left = _without_content(message), most_bytes
    for block in _blocks(message):
        text = text_of(block)
        size = byte_length(text)
        if size > left:
            set_text(block, cut(text, left))
            block.truncated, block.size = True, size
        left = max(0, left - min(size, left) - _LEAST)
        converted.content.append(block)
    return converted


def message_pieces(message: KeptMessage) -> Iterator[pb.ReadMessageResponse]:
    """Convert a message to pieces, in order; at least one."""
    response = pb.ReadMessageResponse(message=_without_content(message))
    for index, block in enumerate(_blocks(message)):
        for text in _pieces(text_of(block)):
            set_text(block, text)
            response.block_index = index
            response.content.CopyFrom(block)
            yield response
            response = pb.ReadMessageResponse()
    if response.HasField("message"):
        yield response


def text_of(block: pb.ContentBlock) -> str:
    """Return the text of a block of any kind."""
    match block.WhichOneof("block"):
        case "text":
            return block.text
        case "reasoning":
            return block.reasoning
        case "tool_use":
            return block.tool_use.input_json
        case _:
            return block.tool_result.output


def set_text(block: pb.ContentBlock, text: str) -> None:
    """Replace the text of a block."""
    match block.WhichOneof("block"):
        case "text":
            block.text = text
        case "reasoning":
            block.reasoning = text
        case "tool_use":
            block.tool_use.input_json = text
        case _:
            block.tool_result.output = text


def byte_length(text: str) -> int:
    """Return a text's length in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def cut(text: str, most: int) -> str:
    """Return the start of a text: at most so many bytes of UTF-8, and whole characters."""
    return text[:most].encode()[:most].decode(errors="ignore")


def _pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces of at most `PIECE` bytes; an empty one is one empty piece."""
    place = 0
    while True:
        piece = cut(text[place : place + PIECE], PIECE)
        yield piece
        place += len(piece)
        if place >= len(text):
            return


def _without_content(message: KeptMessage) -> pb.Message:
    return pb.Message(
        number=message.number,
        role=_ROLES[message.role],
        create_time=timestamp(message.create_time),
        turn_id=message.turn_id,
    )


def _blocks(message: KeptMessage) -> Iterator[pb.ContentBlock]:
    return (block for each in message.content if (block := _block(each)) is not None)


def _block(block: dict[str, Any]) -> pb.ContentBlock | None:
    """Convert a part of a message; one that says nothing, such as encrypted reasoning, is left out."""
    if "text" in block:
        return pb.ContentBlock(text=block["text"])
    if use := block.get("toolUse"):
        return pb.ContentBlock(
            tool_use=pb.ToolUse(
                tool_call_id=use["toolUseId"],
                name=use["name"],
                input_json=json.dumps(use["input"], ensure_ascii=False),
            )
        )
    if result := block.get("toolResult"):
        return pb.ContentBlock(
            tool_result=pb.ToolResult(
                tool_call_id=result["toolUseId"],
                status=tool_status(succeeded=result["status"] == "success"),
                output=tool_output(result["content"]),
            )
        )
    reasoning = block.get("reasoningContent", {}).get("reasoningText", {}).get("text")
    return pb.ContentBlock(reasoning=reasoning) if reasoning else None


def tool_status(*, succeeded: bool) -> pb.ToolCallStatus:
    """Convert how a tool ended."""
    return pb.TOOL_CALL_STATUS_SUCCESS if succeeded else pb.TOOL_CALL_STATUS_ERROR
