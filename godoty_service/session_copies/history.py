"""Completes the messages of an import, so that any provider takes them. Pure.

An export of ours is complete already; a file that others have made or changed may lack anything. What is missing is
added as after an interrupted turn: a result for each tool call, and an answer between two messages of the user.
"""

from typing import Any, Final, cast

from strands.types.content import ContentBlock, Message, Messages

from godoty_service.sessions.history_repair import LEFT_OUT, ends_answer, missing_messages, tool_uses

_OF_ANSWERS: Final = ("text", "toolUse", "reasoningContent")
_NOT_THE_USERS: Final = ("toolResult", "toolUse", "reasoningContent")


class ImportedHistory:
    """The messages of an import so far."""

    def __init__(self) -> None:
        self._last: Message | None = None
        self._found: Messages = []

    def add(self, role: str, content: list[dict[str, Any]]) -> Messages:
        """Return the messages to store for one of the import: what must precede it, and itself if it has content."""
        blocks = cast("list[ContentBlock]", [block for block in content if _has_content(block)])
        if role == "assistant":
            self._add_answer(blocks)
        else:
            self._add_results(blocks)
            self._add_words(blocks)
        return self._take()

    def end(self) -> Messages:
        """Return the messages to store after the last one."""
        for each in missing_messages([self._last] if self._last is not None else []):
            self._append(each)
        return self._take()

    def _add_answer(self, blocks: list[ContentBlock]) -> None:
        own = [block for block in blocks if any(kind in block for kind in _OF_ANSWERS)]
        if not own:
            return
        self._add_results([])
        if self._last is None or ends_answer(self._last):
            self._append(Message(role="user", content=[{"text": LEFT_OUT}]))
        self._append(Message(role="assistant", content=own))

    def _add_results(self, blocks: list[ContentBlock]) -> None:
        """Add a result for each call of the last message; those that no call has asked for are left out."""
        if self._last is not None and tool_uses(self._last):
            results = {block["toolResult"]["toolUseId"]: block for block in blocks if "toolResult" in block}
            self._append(missing_messages([self._last], results=results)[0])

    def _add_words(self, blocks: list[ContentBlock]) -> None:
        words = [block for block in blocks if not any(kind in block for kind in _NOT_THE_USERS)]
        if not words:
            return
        if self._last is not None and not ends_answer(self._last):
            for each in missing_messages([self._last]):
                self._append(each)
        self._append(Message(role="user", content=words))

    def _append(self, message: Message) -> None:
        self._last = message
        self._found.append(message)

    def _take(self) -> Messages:
        found, self._found = self._found, []
        return found


def _has_content(block: dict[str, Any]) -> bool:
    """Return whether a block is one that providers take: no blank text."""
    return "text" not in block or bool(block["text"].strip())
