"""Keeps `reasoning_details`: a model's reasoning, in part encrypted, that must go back to it unchanged.

Strands has no place for them, but keeps a reasoning block's signature as it is: there they ride, as JSON.
"""

import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from godoty_service.openrouter.limits import AnswerLimits
from godoty_service.openrouter.text import clean

_MARK = "openrouter.reasoning_details:"
# The fields that come in pieces, and from how many characters on a piece that begins with all before it repeats it:
# words may recur, what is sealed does not.
_JOINED = {"text": 32, "summary": 32, "data": 8, "signature": 8}
_STRINGS = ("type", "id", "format", "arguments", "result", "tool_call_id", "tool_name")
# The types of OpenRouter's schema, and what it requires of each.
_REQUIRED: dict[str, tuple[str, ...]] = {
    "reasoning.text": (),
    "reasoning.summary": ("summary",),
    "reasoning.encrypted": ("data",),
    "reasoning.server_tool_call": ("tool_name", "arguments", "result"),
}
_FORMAT = re.compile(r"unknown|[a-z0-9]+(-[a-z0-9]+)*-v[0-9]+")  # "anthropic-claude-v1"; there come new ones
_DEEPEST = 20


@dataclass(slots=True)
class _Field:
    """A text that comes in pieces."""

    repeated: int  # characters: a piece that begins with all before it, if that is so long, repeats it
    pieces: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, piece: str) -> int:
        """Take a piece, or all of the text once more; returns by how much it has grown."""
        before = self.size
        if len(piece) >= before >= self.repeated and piece.startswith("".join(self.pieces)):
            self.pieces.clear()
            self.size = 0
        self.pieces.append(piece)
        self.size += len(piece)
        return self.size - before

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


@dataclass(slots=True)
class _Detail:
    """A detail that is being assembled: its texts come in pieces, its other fields whole."""

    fields: dict[str, Any]
    texts: dict[str, _Field]
    group: int  # the chunk that it was in last


class ReasoningDetails:
    """Collects the details of one answer from its stream. Those that outgrow the limits are not kept at all."""

    def __init__(self, limits: AnswerLimits | None = None) -> None:
        self._limits = limits or AnswerLimits()
        self._details: list[_Detail] = []
        self._by_place: dict[tuple[int, str], _Detail] = {}
        self._size = 0
        self._group = 0
        self._too_large = False

    def add(self, pieces: Any) -> None:
        """Take the details of a chunk: pieces of one index and type continue one another.

        Some providers repeat them whole at the end: a piece that equals all that its field has, or begins with it, is
        such a repetition.
        """
        if not isinstance(pieces, list) or self._too_large:
            return
        self._group += 1
        for piece in pieces:
            if isinstance(piece, dict) and isinstance(piece.get("type"), str):
                self._take(piece)
        if self._size > self._limits.reasoning_details_bytes or len(self._details) > self._limits.reasoning_details:
            self._too_large = True
            self._details.clear()
            self._by_place.clear()

    def signature(self, maker: str = "") -> str | None:
        """Return the signature that carries the details, or None where there were none.

        Args:
            maker: The requested model that they go back to; empty: to whichever is asked.
        """
        details = [detail for each in self._details if (detail := _whole(each)) is not None]
        if not details:
            return None
        carried = {"model": maker, "details": details} if maker else details
        text = clean(json.dumps(carried, separators=(",", ":"), ensure_ascii=False))
        return _MARK + text if len(text.encode()) <= self._limits.reasoning_details_bytes else None

    def _take(self, piece: dict[str, Any]) -> None:
        place = _place(piece)
        known = self._known(piece, place)
        if known is None:
            known = _Detail({}, {}, self._group)
            self._details.append(known)
            if place is not None:
                self._by_place[place] = known
        known.group = self._group
        fields = known.fields
        for key, value in piece.items():
            if value is None:
                if key != "index":
                    fields.setdefault(key, None)
            elif key in _JOINED:
                if isinstance(value, str):
                    self._size += known.texts.setdefault(key, _Field(_JOINED[key])).add(value)
            elif fields.get(key) != value and _fits(key, value):
                self._size += len(key) + (len(value) if isinstance(value, str) else 8)
                fields[key] = value

    def _known(self, piece: dict[str, Any], place: tuple[int, str] | None) -> _Detail | None:
        """Return the detail that a piece continues or repeats."""
        known = self._by_place.get(place) if place is not None else self._without_index(piece)
        if known is None:
            return None
        own, other = piece.get("id"), known.fields.get("id")
        return None if own and other and own != other else known

    def _without_index(self, piece: dict[str, Any]) -> _Detail | None:
        """Find the detail for a piece that says no place: one that it repeats, or the last, if that goes on in it."""
        for each in self._details:
            if each.fields.get("type") == piece["type"] and each.group != self._group and _repeats(each, piece):
                return each
        last = self._details[-1] if self._details else None
        if last is None or last.group == self._group or "index" in last.fields or "data" in piece:
            return None
        return last if last.fields.get("type") == piece["type"] else None


def details_of(message: Any) -> list[dict[str, Any]]:
    """Read the details out of a Strands message."""
    details: list[dict[str, Any]] = []
    for block in message["content"]:
        text = block.get("reasoningContent", {}).get("reasoningText", {})
        signature = text.get("signature") or ""
        if signature.startswith(_MARK):
            carried = json.loads(signature[len(_MARK) :])
            details.extend(carried["details"] if isinstance(carried, dict) else carried)
    return details


def maker_of(message: Any) -> str:
    """Read which model the details of a Strands message go back to; empty: to whichever is asked."""
    for block in message["content"]:
        signature = block.get("reasoningContent", {}).get("reasoningText", {}).get("signature") or ""
        if signature.startswith(_MARK + "{"):
            return str(json.loads(signature[len(_MARK) :])["model"])
    return ""


def _place(piece: dict[str, Any]) -> tuple[int, str] | None:
    index = piece.get("index")
    return (index, piece["type"]) if isinstance(index, int) and not isinstance(index, bool) else None


def _fits(key: str, value: Any) -> bool:
    """Return whether a value has the type that its field must have."""
    if key == "index":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str) or key not in _STRINGS


def _repeats(known: _Detail, piece: dict[str, Any]) -> bool:
    told = [(key, piece[key]) for key in _JOINED if isinstance(piece.get(key), str) and piece[key]]
    return bool(told) and all(key in known.texts and known.texts[key].text == value for key, value in told)


def _whole(detail: _Detail) -> dict[str, Any] | None:
    """Return a detail as it can be sent again; None if its type is unknown, or lacks a field that it requires."""
    joined = {key: each.text for key, each in detail.texts.items()}
    fields: dict[str, Any] = {}
    for key, value in [*detail.fields.items(), *joined.items()]:
        plain = _plain(value, _DEEPEST)
        if plain is not None or value is None:
            fields[clean(key)] = plain
    required = _REQUIRED.get(fields["type"])
    if required is None or not all(isinstance(fields.get(key), str) for key in required):
        return None
    if fields.get("format") is not None and not _FORMAT.fullmatch(fields["format"]):
        del fields["format"]
    return fields


def _plain(value: Any, depth: int) -> Any:
    """Return a value of a field that is not known to us as JSON can hold it; what it cannot hold is None."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict) and depth:
        return {clean(key): _plain(each, depth - 1) for key, each in value.items()}
    if isinstance(value, list) and depth:
        return [_plain(each, depth - 1) for each in value]
    return value if value is None or isinstance(value, (bool, int)) else None
