"""Parses a chat request: messages, offered tools, and tool results since the last user message."""

import hashlib
import json
from typing import Any

from openrouter_sandbox.media import InvalidMedia, Media, take_media


class RequestError(Exception):
    """A request that cannot be served; the response has this status and OpenRouter's error body."""

    def __init__(self, status: int, message: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.metadata = metadata


class Conversation:
    """A chat-completions body. Only the fields that the sandbox reads are validated.

    Args:
        body: The body.
        media: Its images and files, if they were taken from it before; None: they are taken now.

    Raises:
        RequestError: 400 for an invalid body.
    """

    def __init__(self, body: Any, *, media: list[Media] | None = None) -> None:
        if not isinstance(body, dict):
            raise RequestError(400, "Input is not a JSON object")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise RequestError(400, "Input required: specify 'prompt' or 'messages'")
        self.body: dict[str, Any] = body
        self.messages: list[dict[str, Any]] = messages
        offered: list[dict[str, Any]] = body.get("tools") or []
        self.tools = [tool for tool in offered if tool.get("type", "function") == "function"]
        self.server_tools = [tool for tool in offered if tool.get("type", "function") != "function"]
        try:  # before the rest is read: what remains of the body is text
            self.media = take_media(messages) if media is None else media
        except InvalidMedia as error:
            raise RequestError(400, f"Invalid image or file: {error}") from None
        self._last_user = max((n for n, m in enumerate(messages) if m.get("role") == "user"), default=-1)

    def without(self, parameters: frozenset[str]) -> "Conversation":
        """Return the request as a provider gets it that ignores some parameters."""
        if parameters.isdisjoint(self.body):
            return self
        body = {name: value for name, value in self.body.items() if name not in parameters}
        return Conversation(body, media=self.media)

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

    def has_said(self, text: str) -> bool:
        """Return whether a text is in a message of the assistant; empty: in none."""
        said = (text_of(message) for message in self.messages if message.get("role") == "assistant")
        return bool(text) and any(text in each for each in said)

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
        offered = self.body.get("tools")
        size = _json_size(self.messages) + (_json_size(offered) if offered else 0)
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
