"""Parses a chat request: messages, offered tools, and tool results since the last user message."""

import hashlib
import json
from typing import Any

from openrouter_sandbox.media import InvalidMedia, take_media


class RequestError(Exception):
    """A request that cannot be served; the response has this status and OpenRouter's error body."""

    def __init__(self, status: int, message: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.metadata = metadata


class Conversation:
    """A chat-completions body. Only the fields that the sandbox reads are validated.

    Raises:
        RequestError: 400 for an invalid body.
    """

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise RequestError(400, "Input is not a JSON object")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise RequestError(400, "Input required: specify 'prompt' or 'messages'")
        self.body: dict[str, Any] = body
        self.messages: list[dict[str, Any]] = messages
        try:
            self.media = take_media(messages)  # first: what remains of the body is text
        except InvalidMedia as error:
            raise RequestError(400, f"Invalid image or file: {error}") from None
        self.tools: list[dict[str, Any]] = body.get("tools") or []
        self._last_user = max((n for n, m in enumerate(messages) if m.get("role") == "user"), default=-1)

    @property
    def candidates(self) -> list[str]:
        """The requested models in order of preference: `model`, then `models[]`."""
        names = [self.body.get("model"), *(self.body.get("models") or [])]
        return list(dict.fromkeys(str(name) for name in names if name))

    @property
    def user_texts(self) -> list[str]:
        """The text of each user message."""
        return [text_of(message) for message in self.messages if message.get("role") == "user"]

    @property
    def last_text(self) -> str:
        """The text of the last user message; empty without one."""
        return text_of(self.messages[self._last_user]) if self._last_user >= 0 else ""

    @property
    def tool_results(self) -> list[dict[str, Any]]:
        """The tool messages after the last user message."""
        return [message for message in self.messages[self._last_user + 1 :] if message.get("role") == "tool"]

    @property
    def tool_names(self) -> list[str]:
        """The names of the offered functions."""
        return [str(tool.get("function", {}).get("name")) for tool in self.tools]

    @property
    def max_tokens(self) -> int | None:
        """The limit of completion tokens: `max_completion_tokens`, else `max_tokens`."""
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise RequestError(400, "max_tokens is not a positive whole number")
        return limit

    @property
    def prompt_tokens(self) -> int:
        """The size of the prompt's text: one token per 4 UTF-8 bytes of the messages and tools as JSON, rounded up."""
        size = _json_size(self.messages) + (_json_size(self.tools) if self.tools else 0)
        return -(-size // 4)

    @property
    def fingerprint(self) -> str:
        """A hash of the messages, which identifies a retry of the same request."""
        return hashlib.sha256(_json(self.messages)).hexdigest()


def text_of(message: dict[str, Any]) -> str:
    """Return a message's text; its content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "replace")


def _json_size(value: Any) -> int:
    return len(_json(value))
