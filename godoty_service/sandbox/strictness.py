"""What strict providers refuse in a request's messages: the rules of OpenAI, Anthropic and Mistral."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from godoty_service.sandbox.conversation import Conversation, RequestError, text_of

Messages = list[dict[str, Any]]
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ANTHROPIC_ID = re.compile(r"[a-zA-Z0-9_-]+")
_MISTRAL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_LONGEST_ID = 40  # OpenAI's


def check(conversation: Conversation, names: str) -> None:
    """Check a request by the rules of some providers, named by commas; raises RequestError (400) as they do."""
    for name in filter(None, names.split(",")):
        for rule in (_results, _names, _RULES[name]):
            if (complaint := rule(conversation.messages)) is not None:
                raise RequestError(400, f"{name}: {complaint}")


def _results(messages: Messages) -> str | None:
    """Each tool call is answered by the tool messages right behind it, once, and by no others."""
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


def _names(messages: Messages) -> str | None:
    """Tools have plain names, and their arguments are a text."""
    for call in _calls(messages):
        if not _NAME.fullmatch(call["function"]["name"]):
            return f"not a tool's name: {call['function']['name']!r}"
        if not isinstance(call["function"]["arguments"], str):
            return "arguments are not a text"
    return None


def _openai(messages: Messages) -> str | None:
    for message in messages:
        ids = [call["id"] for call in message.get("tool_calls") or ()]
        if not all(0 < len(each) <= _LONGEST_ID for each in ids) or len(ids) != len(set(ids)):
            return f"ids must have 1 to {_LONGEST_ID} characters, each its own: {ids}"
        if message["role"] == "assistant" and not ids and not text_of(message):
            return "an assistant message needs content or tool calls"
    return None


def _anthropic(messages: Messages) -> str | None:
    ids = [call["id"] for call in _calls(messages)]
    if len(ids) != len(set(ids)) or not all(map(_ANTHROPIC_ID.fullmatch, ids)):
        return f"tool_use ids must be unique, of letters, digits, - and _: {ids}"
    for call in _calls(messages):
        if not isinstance(_parsed(call["function"]["arguments"]), dict):
            return "tool_use input must be an object"
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
        if any(part.get("type") == "text" and not part["text"].strip() for part in parts):
            return "text content blocks must contain non-whitespace text"
    spoken = [message["role"] for message in messages if message["role"] in ("user", "assistant")]
    return None if spoken[:1] == ["user"] else "the first message must be the user's"


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
    return "the last message must be the user's or a tool's" if before == "assistant" else None


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
