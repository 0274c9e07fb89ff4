"""Reads pieces of an answer that are not plain ASCII strings in an object of their own."""

from typing import Any

from godoty_service.errors import ProviderUnavailable
from godoty_service.openrouter.chunk import parse_chunk
from godoty_service.openrouter.text import clean

_LOST = "\ufffd"


class Halves:
    """Halves of surrogate pairs that stand at the end of a piece, until the next one brings the other half."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._first)

    def joined(self, block: str, piece: str) -> str:
        """Return a piece of a block, cleaned, with the half that was held back before it."""
        piece = self._first.pop(block, "") + piece
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._first[block] = piece[-1]
            piece = piece[:-1]
        return clean(piece)

    def left(self) -> list[tuple[str, str]]:
        """Return a replacement for each half whose other half never came, by its block."""
        left = [(block, _LOST) for block in self._first]
        self._first.clear()
        return left


def content_of(value: Any) -> tuple[str, bool]:
    """Return the text of a content, and whether it is a refusal: it is a string, or a list of parts."""
    if isinstance(value, str):
        return value, False
    if not isinstance(value, list):
        return "", False
    parts = [part for part in value if isinstance(part, dict)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "".join(texts + refusals), bool(refusals)


def parts_of(data: bytes) -> list[dict[str, Any]] | None:
    """Parse data that holds one object on each of several lines; None if it does not. Other lines are passed over."""
    lines = [line for each in data.splitlines() if (line := each.strip())]
    try:
        return [parse_chunk(line) for line in lines if line.startswith(b"{")] if len(lines) > 1 else None
    except ProviderUnavailable:
        return None
