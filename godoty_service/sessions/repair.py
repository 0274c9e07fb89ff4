"""Makes a history whole that a turn left in the middle. Pure: messages in, the messages that are missing out.

Models refuse a tool use without a result and two messages of the user in a row. What closes a broken turn is
kept like any other message, so that every later reader, of any version, sees one and the same history.
"""

from collections.abc import Mapping
from types import MappingProxyType

from strands.types.content import ContentBlock, Message, Messages

INTERRUPTED = "[The answer was interrupted.]"
LEFT_OUT = "[What was said before is left out.]"
WITHHELD = "[Withheld: the provider's moderation refused what was said here.]"
_NO_RESULT = "The tool was interrupted before it gave a result."


def closing(
    history: Messages,
    *,
    partial_text: str = "",
    note: str = INTERRUPTED,
    results: Mapping[str, ContentBlock] = MappingProxyType({}),
) -> Messages:
    """Tell what to append so that the history ends with the assistant's word.

    Args:
        history: The messages that are kept, the newest last.
        partial_text: What the assistant had said when it was interrupted.
        note: Why it ends here; it stands below the partial text.
        results: What is known of tools whose results the history lacks, by the id of the tool call.
    """
    if not history or (history[-1]["role"] == "assistant" and not _tool_uses(history[-1])):
        return []
    missing: Messages = []
    if answered := [results.get(use) or _no_result(use) for use in _tool_uses(history[-1])]:
        missing.append(Message(role="user", content=answered))
    text = f"{partial_text}\n\n{note}" if partial_text else note
    missing.append(Message(role="assistant", content=[{"text": text}]))
    return missing


def window(history: Messages) -> Messages:
    """Drop what a window cut off its beginning: it must begin with the user's own words."""
    for place, message in enumerate(history):
        if message["role"] == "user" and not any("toolResult" in block for block in message["content"]):
            return history[place:]
    return []


def tail(history: Messages) -> Messages:
    """Tell what a window without the user's words holds of the turn that filled it: `LEFT_OUT` goes before it."""
    for place, message in enumerate(history):
        if message["role"] == "assistant":
            return history[place:]
    return []


def withheld(message: Message) -> Message:
    """Return a message without its words: tool uses and their results stay, as pairs."""
    content: list[ContentBlock] = []
    for block in message["content"]:
        if "toolUse" in block:
            content.append({"toolUse": {**block["toolUse"], "input": {}}})
        elif "toolResult" in block:
            content.append({"toolResult": {**block["toolResult"], "content": [{"text": WITHHELD}]}})
    return Message(role=message["role"], content=content or [{"text": WITHHELD}])


def _tool_uses(message: Message) -> list[str]:
    return [block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block]


def _no_result(tool_use_id: str) -> ContentBlock:
    return {"toolResult": {"toolUseId": tool_use_id, "status": "error", "content": [{"text": _NO_RESULT}]}}
