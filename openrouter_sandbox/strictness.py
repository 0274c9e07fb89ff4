"""The rules of strict providers on a request's messages: OpenAI, Anthropic and Mistral."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from openrouter_sandbox.conversation import Conversation, RequestError, text_of

Messages = list[dict[str, Any]]
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ANTHROPIC_ID = re.compile(r"[a-zA-Z0-9_-]+")
_MISTRAL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_LONGEST_ID = 40  # OpenAI's


def check_messages(conversation: Conversation, names: str) -> None:
    """Validate a request's messages by the rules of the providers in the comma-separated `names`.

    Raises:
        RequestError: 400 with the first violation.
    """
    for name in filter(None, names.split(",")):
        for rule in (_check_results, _check_names, _RULES[name]):
            if (violation := rule(conversation.messages)) is not None:
                raise RequestError(400, f"{name}: {violation}")
        if name == "anthropic" and _calls(conversation.messages) and not conversation.tools:
            raise RequestError(400, f"{name}: requests which include tool_use blocks must define tools")


def _check_results(messages: Messages) -> str | None:
    """Require exactly one result for each tool call, in the tool messages that directly follow it."""
    open_ids: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_ids:
                return f"no tool call before the result {message.get('tool_call_id')!r}"
            open_ids.remove(message["tool_call_id"])
        elif open_ids:
            return f"tool calls without results: {open_ids}"
        open_ids += [call["id"] for call in message.get("tool_calls") or ()]
    return f"tool calls without results: {open_ids}" if open_ids else None


def _check_names(messages: Messages) -> str | None:
    """Require tool names of letters, digits, _ and -, and arguments as a string."""
    for call in _calls(messages):
        if not _NAME.fullmatch(call["function"]["name"]):
            return f"not a valid tool name: {call['function']['name']!r}"
        if not isinstance(call["function"]["arguments"], str):
            return "arguments are not a string"
    return None


def _openai(messages: Messages) -> str | None:
    for message in messages:
        ids = [call["id"] for call in message.get("tool_calls") or ()]
        if not all(0 < len(each) <= _LONGEST_ID for each in ids) or len(ids) != len(set(ids)):
            return f"ids must be unique and have 1 to {_LONGEST_ID} characters: {ids}"
        if message["role"] == "assistant" and not ids and not text_of(message):
            return "an assistant message needs content or tool calls"
    return None


def _anthropic(messages: Messages) -> str | None:
    ids = [call["id"] for call in _calls(messages)]
    if len(ids) != len(set(ids)) or not all(map(_ANTHROPIC_ID.fullmatch, ids)):
        return f"tool_use ids must be unique and consist of letters, digits, - and _: {ids}"
    for call in _calls(messages):
        if not isinstance(_parsed(call["function"]["arguments"]), dict):
            return "tool_use input must be an object"
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
        if any(part.get("type") == "text" and not part["text"].strip() for part in parts):
            return "text content blocks must contain non-whitespace text"
    roles = [message["role"] for message in messages if message["role"] in ("user", "assistant")]
    return None if roles[:1] == ["user"] else "the first message must be a user message"


def _mistral(messages: Messages) -> str | None:
    for call in _calls(messages):
        if not _MISTRAL_ID.fullmatch(call["id"]):
            return f"tool call id was {call['id']!r} but must be a-z, A-Z, 0-9, with a length of 9"
        if _parsed(call["function"]["arguments"]) is None:
            return "arguments are not JSON"
    before = ""
    for message in messages:
        role = message["role"]
        if (before == "tool" and role == "user") or (role == before and role in ("user", "assistant")):
            return f"unexpected role {role!r} after role {before!r}"
        before = role
    return "the last message must be a user or tool message" if before == "assistant" else None


def _calls(messages: Messages) -> list[dict[str, Any]]:
    return [call for message in messages for call in message.get("tool_calls") or ()]


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


_RULES: Mapping[str, Callable[[Messages], str | None]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "mistral": _mistral,
}
