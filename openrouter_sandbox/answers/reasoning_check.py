"""Checks whether reasoning entries come back unchanged in the next request of a conversation."""

import hashlib
from collections import OrderedDict
from typing import Any

from openrouter_sandbox.answers.answer import TEXT, Answer
from openrouter_sandbox.conversation import Conversation, text_of

_MAX_ANSWERS = 2000


class ReasoningCheck:
    """Retains the reasoning of the newest 2,000 answers and compares it with the following requests."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def remember(self, answer: Answer) -> None:
        """Retain an answer's reasoning entries, keyed by its tool calls or its text."""
        details = answer.reasoning_details
        if not details:
            return
        self._sent[_key([call.id for call in answer.tool_calls], answer.text(TEXT))] = details
        while len(self._sent) > _MAX_ANSWERS:
            self._sent.popitem(last=False)

    def check(self, conversation: Conversation) -> dict[str, int]:
        """Count a request's assistant messages with unchanged, changed and missing reasoning."""
        counts = {"unchanged": 0, "changed": 0, "missing": 0}
        for message in conversation.messages:
            if message.get("role") != "assistant":
                continue
            calls = [str(call.get("id")) for call in message.get("tool_calls") or ()]
            sent = self._sent.get(_key(calls, text_of(message)))
            if sent is not None:
                returned = message.get("reasoning_details")
                counts["missing" if not returned else "unchanged" if _joined(returned) == sent else "changed"] += 1
        return counts

    def clear(self) -> None:
        """Remove the retained reasoning."""
        self._sent.clear()


def _key(calls: list[str], text: str) -> str:
    return ",".join(calls) if calls else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _joined(details: Any) -> list[dict[str, Any]]:
    """Return the entries with the parts of each text joined: a client may return them as streamed."""
    joined: list[dict[str, Any]] = []
    for entry in details:
        last = joined[-1] if joined else {}
        if entry.get("type") == "reasoning.text" == last.get("type") and entry.get("index") == last.get("index"):
            last["text"] += entry["text"]
        else:
            joined.append(dict(entry))
    return joined
