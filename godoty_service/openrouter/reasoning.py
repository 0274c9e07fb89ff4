"""Keeps `reasoning_details`: a model's reasoning, in part encrypted, that must go back to it unchanged.

Strands has no place for them, but keeps a reasoning block's signature as it is: there they ride, as JSON.
"""

import json
from typing import Any

_MARK = "openrouter.reasoning_details:"
_JOINED = ("text", "summary", "data", "signature")


class ReasoningDetails:
    """Collects the details of one answer from its stream."""

    def __init__(self) -> None:
        self._details: list[dict[str, Any]] = []
        self._by_place: dict[tuple[Any, Any], dict[str, Any]] = {}

    def add(self, pieces: Any) -> None:
        """Take the details of a chunk: pieces of one index and type continue one another."""
        for piece in pieces if isinstance(pieces, list) else []:
            if not isinstance(piece, dict):
                continue
            place = (piece.get("index"), piece.get("type"))
            known = self._by_place.get(place) if place[0] is not None else None
            if known is None or (piece.get("id") and known.get("id") and piece["id"] != known["id"]):
                known = dict(piece)
                self._details.append(known)
                self._by_place[place] = known
                continue
            for key, value in piece.items():
                if key in _JOINED and isinstance(value, str) and isinstance(known.get(key), str):
                    known[key] += value
                elif value is not None:
                    known[key] = value

    def signature(self) -> str | None:
        """Return the signature that carries the details, or None where there were none."""
        if not self._details:
            return None
        return _MARK + json.dumps(self._details, separators=(",", ":"), ensure_ascii=False)


def details_of(message: Any) -> list[dict[str, Any]]:
    """Read the details out of a Strands message."""
    details: list[dict[str, Any]] = []
    for block in message["content"]:
        text = block.get("reasoningContent", {}).get("reasoningText", {})
        signature = text.get("signature") or ""
        if signature.startswith(_MARK):
            details.extend(json.loads(signature[len(_MARK) :]))
    return details
