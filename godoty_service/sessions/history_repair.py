"""Computes the messages that complete a history after an interrupted turn. No I/O.

Models reject a tool use without a result and two consecutive user messages. The completing messages are stored like
any others, so that every later reader, of any version, sees the same history.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from strands.types.content import ContentBlock, Message, Messages

from godoty_service.attachments.attachment import Attachment
from godoty_service.attachments.blocks import left_out, with_texts

INTERRUPTED = "[The answer was interrupted.]"
LEFT_OUT = "[What was said before is left out.]"
WITHHELD = "[Withheld: the provider's moderation refused what was said here.]"
UNKNOWN_OUTCOME: Final = "The call was interrupted, and its outcome is unknown: it may have had its effect."
NOT_RUN: Final = "The call was not run: the turn was interrupted before it began."


def missing_messages(
    history: Messages,
    *,
    partial_text: str = "",
    note: str = INTERRUPTED,
    results: Mapping[str, ContentBlock] = MappingProxyType({}),
    otherwise: str = UNKNOWN_OUTCOME,
) -> Messages:
    """Return the messages to append so that the history ends with an assistant message.

    Args:
        history: The stored messages, the newest last.
        partial_text: The assistant's text when it was interrupted.
        note: Why the answer ends; it follows the partial text.
        results: Known results of tool calls that the history has no result for, by tool call id.
        otherwise: What is known of the other calls.
    """
    if not history or ends_answer(history[-1]):
        return []
    missing: Messages = []
    if tool_results := [results.get(use) or error_result(use, otherwise) for use in tool_uses(history[-1])]:
        missing.append(Message(role="user", content=tool_results))
    text = f"{partial_text}\n\n{note}" if partial_text else note
    missing.append(Message(role="assistant", content=[{"text": text}]))
    return missing


def ends_answer(message: Message) -> bool:
    """Return whether a message is an answer without tool calls: a history may end with it."""
    return message["role"] == "assistant" and not tool_uses(message)


def window(history: Messages) -> Messages:
    """Return the history from its first user text: a window may begin in the middle of a turn."""
    for index, message in enumerate(history):
        if message["role"] == "user" and not any("toolResult" in block for block in message["content"]):
            return history[index:]
    return []


def assistant_suffix(history: Messages) -> Messages:
    """Return the history from its first assistant message, for a window without a user text; `LEFT_OUT` precedes it."""
    for index, message in enumerate(history):
        if message["role"] == "assistant":
            return history[index:]
    return []


def withheld(message: Message) -> Message:
    """Return a message without its text; tool uses and their results remain, as pairs."""
    content: list[ContentBlock] = []
    for block in message["content"]:
        if "toolUse" in block:
            content.append({"toolUse": {**block["toolUse"], "input": {}}})
        elif "toolResult" in block:
            content.append({"toolResult": {**block["toolResult"], "content": [{"text": WITHHELD}]}})
    return Message(role=message["role"], content=content or [{"text": WITHHELD}])


def without_attachments(message: Message) -> Message:
    """Return a message with notes in place of attachments, for a turn whose request the provider rejected."""
    return Message(role=message["role"], content=with_texts(message["content"], _refused))


def _refused(attachment: Attachment) -> str:
    return left_out(attachment, "the provider refused the request that had it")


def tool_uses(message: Message) -> list[str]:
    """Return the ids of the tool calls of a message, in order."""
    return [block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block]


def error_result(tool_call_id: str, text: str) -> ContentBlock:
    """Return a tool result that says why there is none."""
    return result_of(tool_call_id, {"status": "error", "content": [{"text": text}]})


def result_of(tool_call_id: str, result: Mapping[str, Any]) -> ContentBlock:
    """Return a tool result, as a message has it, from one without the id of its call."""
    return {"toolResult": {**result, "toolUseId": tool_call_id}}  # type: ignore[typeddict-item] # as Strands has it
