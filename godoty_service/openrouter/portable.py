"""Makes a request's messages ones that its models' providers take, whatever an earlier model, or build, left in them.

Providers differ in what they refuse: the ids, names and arguments of tool calls, ids that stand twice, blank texts. An
id that the models take stays as it is, since gateways find their own notes by it; another is sent in a form of our
own, the same at each request, which keeps prompt caches warm. Encrypted and signed reasoning goes back to the model
that made it alone. Pure.
"""

import base64
import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

_MISTRAL = re.compile(r"mistral|mixtral|codestral|devstral|magistral|pixtral|voxtral|leanstral", re.IGNORECASE)
_ANTHROPIC = re.compile(r"anthropic|claude", re.IGNORECASE)
_OPENAI = re.compile(r"openai|\bgpt-|\bo[134]\b", re.IGNORECASE)
# By family: the ids that it takes.
_IDS = (
    (_MISTRAL, re.compile(r"[a-zA-Z0-9]{9}")),
    (_ANTHROPIC, re.compile(r"[a-zA-Z0-9_-]+")),
    (_OPENAI, re.compile(r"[a-zA-Z0-9_-]{1,40}")),
)
MAKER = "reasoning_model"  # of a message that is to be sent: the model that its reasoning details go back to
_ID_LENGTH = 9  # of an id of our own: each family takes nine letters and digits
_FORMATTED = frozenset({"content", "tool_calls", "reasoning_details", MAKER})
_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 64
_NO_TEXT = "[blank text]"  # what Strands says in place of an empty answer


class Portable:
    """Formats messages for some models, all of which may serve the request."""

    def __init__(self, models: Iterable[str]) -> None:
        named = tuple(models)
        self._asked = named[0]
        self._ids = [ids for family, ids in _IDS if any(map(family.search, named))]

    def messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return chat messages with tool calls that the models take, and without blank texts."""
        seen: Counter[str] = Counter()
        waiting: dict[str, deque[str]] = {}
        sent: list[dict[str, Any]] = []
        for message in messages:
            if message["role"] == "assistant":
                waiting = {}
                sent.append(self._assistant(message, seen, waiting))
            elif message["role"] == "tool":
                known = waiting.get(message["tool_call_id"])
                sent.append({**message, "tool_call_id": known.popleft()} if known else message)
            else:
                sent.append(message)
        return sent

    def _assistant(self, message: dict[str, Any], seen: Counter[str], waiting: dict[str, deque[str]]) -> dict[str, Any]:
        calls = []
        for call in message.get("tool_calls") or ():
            sent_id = self._id(call["id"], seen[call["id"]])
            seen[call["id"]] += 1
            waiting.setdefault(call["id"], deque()).append(sent_id)
            calls.append({**call, "id": sent_id, "function": _function(call["function"])})
        content = _texts(message.get("content"))
        if not content and not calls:
            content = _NO_TEXT
        kept = {key: value for key, value in message.items() if key not in _FORMATTED}
        details = message.get("reasoning_details")
        if details and _plain_name(message.get(MAKER) or self._asked) == _plain_name(self._asked):
            kept["reasoning_details"] = [_detail(each, waiting) for each in details]
        return kept | ({"content": content} if content else {}) | ({"tool_calls": calls} if calls else {})

    def _id(self, tool_call_id: str, occurrence: int) -> str:
        """Return the id under which a tool call is sent; one that stands twice is told apart by its occurrence."""
        if tool_call_id and not occurrence and all(ids.fullmatch(tool_call_id) for ids in self._ids):
            return tool_call_id
        digest = hashlib.sha256(f"{tool_call_id}\0{occurrence}".encode("utf-8", "replace")).digest()
        return re.sub(r"[^a-zA-Z0-9]", "0", base64.b64encode(digest).decode())[:_ID_LENGTH]


def _plain_name(model: str) -> str:
    """Return a model's name without its variant: `:free` and `:nitro` are the same model."""
    return model.partition(":")[0]


def _function(function: dict[str, Any]) -> dict[str, Any]:
    name = _NAME.sub("_", function["name"])[:_LONGEST_NAME] or "unnamed"
    return {**function, "name": name, "arguments": _arguments(function["arguments"])}


def _arguments(text: str) -> str:
    """Return arguments as they are if they are an object of JSON, which Anthropic and Google ask for."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "{}"
    return text if isinstance(value, dict) else "{}"


def _texts(content: Any) -> Any:
    """Return content without texts that are blank, which Anthropic refuses."""
    if isinstance(content, list):
        return [part for part in content if part.get("type") != "text" or part["text"].strip()]
    return content if isinstance(content, str) and content.strip() else None


def _detail(detail: dict[str, Any], waiting: dict[str, deque[str]]) -> dict[str, Any]:
    """Return a reasoning detail; one that names a tool call, as Google's signatures do, names it as it is sent."""
    known = waiting.get(detail.get("id") or "")
    return {**detail, "id": known[0]} if known else detail
