"""Converts between agent_service.proto and domain values, and checks the requests."""

import json
from collections.abc import Iterator
from typing import Any

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.attachments.blocks import attachment_of
from godoty_service.citations import Citation
from godoty_service.errors import InvalidRequest
from godoty_service.ledger.totals import SessionTotals
from godoty_service.pricing.money import format_usd
from godoty_service.rpc.conversations.attachment_codec import attachment_message
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import CALLER_ID, TURN_ID, Violations
from godoty_service.sessions.messages import StoredMessage, tool_result_text
from godoty_service.sessions.session import Session, SessionOrigin
from godoty_service.turns.listing import TurnState

PIECE = 256 * 1024  # bytes of text in one response of ReadMessage
_BLOCK_OVERHEAD = 16  # bytes that an empty content block takes of the limit
_STATES = {turn_pb.TURN_STATE_RUNNING: TurnState.RUNNING, turn_pb.TURN_STATE_ENDED: TurnState.ENDED}
_ROLES = {"user": session_pb.ROLE_USER, "assistant": session_pb.ROLE_ASSISTANT}


def parse_session_id(text: str) -> str:
    """Check the id of a session.

    Raises:
        InvalidRequest: It cannot be an id.
    """
    if not CALLER_ID.fullmatch(text):
        raise InvalidRequest.of("session_id", f"must match {CALLER_ID.pattern}")
    return text


def parse_message_number(number: int) -> int:
    """Check the number of a message.

    Raises:
        InvalidRequest: It is below 1.
    """
    if number < 1:
        raise InvalidRequest.of("number", "must be at least 1")
    return number


def parse_turn_id(text: str) -> str:
    """Check the id of a turn.

    Raises:
        InvalidRequest: It cannot be an id.
    """
    if not TURN_ID.fullmatch(text):
        raise InvalidRequest.of("turn_id", "must be the id of a turn")
    return text


def parse_resumption(request: pb.ResumeTurnRequest) -> tuple[str, int]:
    """Return the id of the turn to resume, and the sequence number after which to resume it.

    Raises:
        InvalidRequest: A field is invalid.
    """
    if request.after_sequence < 0:
        raise InvalidRequest.of("after_sequence", "must not be negative")
    return parse_turn_id(request.turn_id), request.after_sequence


def parse_turn_filter(request: pb.ListTurnsRequest) -> tuple[str | None, TurnState | None]:
    """Return the session and the state of the turns to list; None: any.

    Raises:
        InvalidRequest: A field is invalid.
    """
    if request.state and request.state not in _STATES:
        raise InvalidRequest.of("state", "must be TURN_STATE_RUNNING or TURN_STATE_ENDED, or unset")
    session_id = parse_session_id(request.session_id) if request.session_id else None
    return session_id, _STATES.get(request.state)


def parse_session_filter(request: pb.ListSessionsRequest) -> str | None:
    """Return the end user of the sessions to list; None: any.

    Raises:
        InvalidRequest: The user's name is too long.
    """
    violations = Violations()
    violations.check_length("user", request.user)
    violations.raise_if_any()
    return request.user or None


def session_message(
    session: Session, session_totals: SessionTotals, *, message_count: int, user: str | None
) -> session_pb.Session:
    """Convert a session, with the name of its end user."""
    return session_pb.Session(
        session_id=session.session_id,
        user=user or "",
        model=session.model,
        agent=session.agent,
        agent_version=session.agent_version,
        message_count=message_count,
        cost_usd=format_usd(session_totals.totals.cost),
        create_time=timestamp(session.create_time),
        update_time=timestamp(session.update_time),
        origin=_origin_message(session.origin),
    )


def _origin_message(origin: SessionOrigin | None) -> session_pb.SessionOrigin | None:
    return session_pb.SessionOrigin(session_id=origin.session_id, number=origin.number) if origin is not None else None


def to_proto(message: StoredMessage, *, max_bytes: int) -> session_pb.Message:
    """Convert a message of a session; content blocks are cut once citations and text exceed `max_bytes` together."""
    converted = _without_content(message)
    remaining = max(0, max_bytes - sum(each.size for each in message.citations))
    for block in _blocks(message):
        text = text_of(block)
        size = byte_length(text)
        if size > remaining:
            set_text(block, cut(text, remaining))
            block.truncated, block.size = True, size
        remaining = max(0, remaining - min(size, remaining) - _BLOCK_OVERHEAD)
        converted.content.append(block)
    return converted


def message_pieces(message: StoredMessage, *, size: int = PIECE) -> Iterator[pb.ReadMessageResponse]:
    """Convert a whole message of a session to responses of at most `size` bytes of text, in order; at least one."""
    response = pb.ReadMessageResponse(message=_without_content(message))
    for index, block in enumerate(_blocks(message)):
        for text in pieces(text_of(block), size):
            set_text(block, text)
            response.block_index = index
            response.content.CopyFrom(block)
            yield response
            response = pb.ReadMessageResponse()
    if response.HasField("message"):
        yield response


def text_of(block: session_pb.ContentBlock) -> str:
    """Return the text of a content block of any type; an attachment has none."""
    match block.WhichOneof("block"):
        case "text":
            return block.text
        case "reasoning":
            return block.reasoning
        case "tool_use":
            return block.tool_use.input_json
        case "attachment":
            return ""
        case _:
            return block.tool_result.output


def set_text(block: session_pb.ContentBlock, text: str) -> None:
    """Replace the text of a content block of any type that has one."""
    match block.WhichOneof("block"):
        case "text":
            block.text = text
        case "reasoning":
            block.reasoning = text
        case "tool_use":
            block.tool_use.input_json = text
        case "attachment":
            return
        case _:
            block.tool_result.output = text


def byte_length(text: str) -> int:
    """Return the length of a text in bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def cut(text: str, max_bytes: int) -> str:
    """Return the start of a text: whole characters of at most `max_bytes` of UTF-8."""
    return text[:max_bytes].encode()[:max_bytes].decode(errors="ignore")


def pieces(text: str, size: int) -> Iterator[str]:
    """Split a text into pieces of at most `size` bytes; an empty one is one empty piece."""
    start = 0
    while True:
        piece = cut(text[start : start + size], size)
        yield piece
        start += len(piece)
        if start >= len(text):
            return


def _without_content(message: StoredMessage) -> session_pb.Message:
    return session_pb.Message(
        number=message.number,
        role=_ROLES[message.role],
        create_time=timestamp(message.create_time),
        turn_id=message.turn_id,
        citations=map(citation_message, message.citations),
    )


def citation_message(citation: Citation) -> session_pb.Citation:
    """Convert a citation."""
    message = session_pb.Citation(url=citation.url, title=citation.title, content=citation.content)
    if citation.end:
        message.start_index, message.end_index = citation.start, citation.end
    return message


def _blocks(message: StoredMessage) -> Iterator[session_pb.ContentBlock]:
    return (block for each in message.content if (block := _block(each)) is not None)


def _block(block: dict[str, Any]) -> session_pb.ContentBlock | None:
    """Convert a content block; one without readable text, such as encrypted reasoning, is omitted."""
    if "text" in block:
        return session_pb.ContentBlock(text=block["text"])
    if use := block.get("toolUse"):
        input_json = json.dumps(use["input"], ensure_ascii=False)
        return session_pb.ContentBlock(
            tool_use=session_pb.ToolUse(tool_call_id=use["toolUseId"], name=use["name"], input_json=input_json)
        )
    if result := block.get("toolResult"):
        return session_pb.ContentBlock(
            tool_result=session_pb.ToolResult(
                tool_call_id=result["toolUseId"],
                status=tool_status(succeeded=result["status"] == "success"),
                output=tool_result_text(result["content"]),
                attachments=[
                    attachment_message(found)
                    for each in result["content"]
                    if (found := attachment_of(each)) is not None
                ],
            )
        )
    if (attachment := attachment_of(block)) is not None:
        return session_pb.ContentBlock(attachment=attachment_message(attachment))
    reasoning = block.get("reasoningContent", {}).get("reasoningText", {}).get("text")
    return session_pb.ContentBlock(reasoning=reasoning) if reasoning else None


def tool_status(*, succeeded: bool) -> session_pb.ToolCallStatus:
    """Convert the outcome of a tool call."""
    return session_pb.TOOL_CALL_STATUS_SUCCESS if succeeded else session_pb.TOOL_CALL_STATUS_ERROR
