"""Normalizes a request's messages, which any model or version may have written, for its models' providers. Pure.

Providers differ in what they reject: the ids, names and arguments of tool calls, repeated ids, blank texts. An id that
the models accept is sent unchanged, since gateways find their own state by it; any other is replaced by a digest, the
same in each request, which keeps prompt caches warm. Encrypted and signed reasoning is sent only to the model that made
it.
"""

import base64
import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

BLANK_TEXT = "[blank text]"  # what Strands sends in place of an empty text
MAKER = "reasoning_model"  # of an unsent message: the model that its reasoning details go back to

_MISTRAL = re.compile(r"mistral|mixtral|codestral|devstral|magistral|pixtral|voxtral|leanstral", re.IGNORECASE)
_ANTHROPIC = re.compile(r"anthropic|claude", re.IGNORECASE)
_OPENAI = re.compile(r"openai|\bgpt-|\bo[134]\b", re.IGNORECASE)
# By family: the ids that it accepts.
_IDS = (
    (_MISTRAL, re.compile(r"[a-zA-Z0-9]{9}")),
    (_ANTHROPIC, re.compile(r"[a-zA-Z0-9_-]+")),
    (_OPENAI, re.compile(r"[a-zA-Z0-9_-]{1,40}")),
)
_ID_LENGTH = 9  # of a replaced id: each family accepts nine letters and digits
_FORMATTED = frozenset({"content", "tool_calls", "reasoning_details", MAKER})
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME = 64


class MessageNormalizer:
    """Normalizes messages for some models, any of which may serve the request."""

    def __init__(self, models: Iterable[str]) -> None:
        named = tuple(models)
        self._requested = named[0]
        self._ids = [ids for family, ids in _IDS if any(map(family.search, named))]

    def normalize(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return chat messages with tool calls that the models accept, and without blank texts."""
        occurrences: Counter[str] = Counter()
        unanswered: dict[str, deque[str]] = {}  # the sent ids of the last answer's tool calls, by their own ids
        normalized: list[dict[str, Any]] = []
        for message in messages:
            if message["role"] == "assistant":
                unanswered = {}
                normalized.append(self._normalize_answer(message, occurrences, unanswered))
            elif message["role"] == "tool":
                known = unanswered.get(message["tool_call_id"])
                normalized.append({**message, "tool_call_id": known.popleft()} if known else message)
            else:
                normalized.append(message)
        return normalized

    def _normalize_answer(
        self, message: dict[str, Any], occurrences: Counter[str], unanswered: dict[str, deque[str]]
    ) -> dict[str, Any]:
        calls = []
        for call in message.get("tool_calls") or ():
            sent_id = self._sent_id(call["id"], occurrences[call["id"]])
            occurrences[call["id"]] += 1
            unanswered.setdefault(call["id"], deque()).append(sent_id)
            calls.append({**call, "id": sent_id, "function": _function(call["function"])})
        content = _without_blank_texts(message.get("content"))
        if not content and not calls:
            content = BLANK_TEXT
        result = {key: value for key, value in message.items() if key not in _FORMATTED}
        details = message.get("reasoning_details")
        if details and _base_model(message.get(MAKER) or self._requested) == _base_model(self._requested):
            result["reasoning_details"] = [_detail(each, unanswered) for each in details]
        return result | ({"content": content} if content else {}) | ({"tool_calls": calls} if calls else {})

    def _sent_id(self, tool_call_id: str, occurrence: int) -> str:
        """Return the id under which a tool call is sent; a repeated id is made unique by its occurrence."""
        if tool_call_id and not occurrence and all(ids.fullmatch(tool_call_id) for ids in self._ids):
            return tool_call_id
        digest = hashlib.sha256(f"{tool_call_id}\0{occurrence}".encode("utf-8", "replace")).digest()
        return re.sub(r"[^a-zA-Z0-9]", "0", base64.b64encode(digest).decode())[:_ID_LENGTH]


def _base_model(model: str) -> str:
    """Return a model's name without its variant: `:free` and `:nitro` are the same model."""
    return model.partition(":")[0]


def _function(function: dict[str, Any]) -> dict[str, Any]:
    name = _NOT_IN_NAMES.sub("_", function["name"])[:_MAX_NAME] or "unnamed"
    return {**function, "name": name, "arguments": _arguments(function["arguments"])}


def _arguments(text: str) -> str:
    """Return arguments unchanged if they are a JSON object, which Anthropic and Google require; else an empty one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "{}"
    return text if isinstance(value, dict) else "{}"


def _without_blank_texts(content: Any) -> Any:
    """Return content without blank texts, which Anthropic rejects."""
    if isinstance(content, list):
        return [part for part in content if part.get("type") != "text" or part["text"].strip()]
    return content if isinstance(content, str) and content.strip() else None


def _detail(detail: dict[str, Any], unanswered: dict[str, deque[str]]) -> dict[str, Any]:
    """Return a reasoning detail; one that names a tool call, as Google's signatures do, gets the sent id."""
    known = unanswered.get(detail.get("id") or "")
    return {**detail, "id": known[0]} if known else detail
