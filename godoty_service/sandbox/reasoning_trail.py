"""The reasoning trail: whether reasoning entries come back unchanged in the next request of a conversation."""

import hashlib
from collections import OrderedDict
from typing import Any

from godoty_service.sandbox.answer import TEXT, Answer
from godoty_service.sandbox.conversation import Conversation, text_of

_KEPT = 2000


class ReasoningTrail:
    """Remembers the reasoning of the newest answers and looks for it in what comes back."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def remember(self, answer: Answer) -> None:
        """Keep an answer's reasoning entries, found again by its tool calls or its text."""
        details = answer.reasoning_details
        if not details:
            return
        self._sent[_key([call.id for call in answer.tool_calls], answer.text(TEXT))] = details
        while len(self._sent) > _KEPT:
            self._sent.popitem(last=False)

    def check(self, conversation: Conversation) -> dict[str, int]:
        """How many assistant messages of a request bring their reasoning back: unchanged, changed, missing."""
        found = {"unchanged": 0, "changed": 0, "missing": 0}
        for message in conversation.messages:
            if message.get("role") != "assistant":
                continue
            calls = [str(call.get("id")) for call in message.get("tool_calls") or ()]
            sent = self._sent.get(_key(calls, text_of(message)))
            if sent is not None:
                back = message.get("reasoning_details")
                found["missing" if not back else "unchanged" if _joined(back) == sent else "changed"] += 1
        return found

    def clear(self) -> None:
        """Forget the trail."""
        self._sent.clear()


def _key(calls: list[str], text: str) -> str:
    return ",".join(calls) if calls else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _joined(details: Any) -> list[dict[str, Any]]:
    """The entries with the parts of one text joined: a client may send them back as they were streamed."""
    joined: list[dict[str, Any]] = []
    for entry in details:
        last = joined[-1] if joined else {}
        if entry.get("type") == "reasoning.text" == last.get("type") and entry.get("index") == last.get("index"):
            last["text"] += entry["text"]
        else:
            joined.append(dict(entry))
    return joined
