"""Assembles `reasoning_details`: a model's reasoning, in part encrypted, that must go back to it unchanged.

Strands has no field for them, but persists a reasoning block's signature unchanged: the signature carries them as JSON.
"""

import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from godoty_service.openrouter.decoding.chunk import AnswerLimits
from godoty_service.openrouter.decoding.text import replace_lone_surrogates

_PREFIX = "openrouter.reasoning_details:"
# The fields that arrive in pieces, and from how many characters on a piece that begins with all before it repeats it:
# words may recur, ciphertext does not.
_STREAMED = {"text": 32, "summary": 32, "data": 8, "signature": 8}
_STRINGS = ("type", "id", "format", "arguments", "result", "tool_call_id", "tool_name")
# The types of OpenRouter's schema, and the fields that each requires.
_REQUIRED: dict[str, tuple[str, ...]] = {
    "reasoning.text": (),
    "reasoning.summary": ("summary",),
    "reasoning.encrypted": ("data",),
    "reasoning.server_tool_call": ("tool_name", "arguments", "result"),
}
_FORMAT = re.compile(r"unknown|[a-z0-9]+(-[a-z0-9]+)*-v[0-9]+")  # "anthropic-claude-v1"; more are added over time
_MAX_DEPTH = 20


@dataclass(slots=True)
class _StreamedField:
    """A text that arrives in pieces."""

    min_repeated: int  # characters: a piece that begins with all before it repeats it, if that is at least as long
    pieces: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, piece: str) -> int:
        """Add a piece, or the whole text once more; return by how much the text has grown."""
        before = self.size
        if len(piece) >= before >= self.min_repeated and piece.startswith("".join(self.pieces)):
            self.pieces.clear()
            self.size = 0
        self.pieces.append(piece)
        self.size += len(piece)
        return self.size - before

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


@dataclass(slots=True)
class _Detail:
    """A detail that is being assembled: its texts arrive in pieces, its other fields whole."""

    fields: dict[str, Any]
    texts: dict[str, _StreamedField]
    chunk_number: int  # the chunk that had its latest piece


class ReasoningDetails:
    """Assembles the details of one answer from its stream; details beyond the limits are dropped altogether."""

    def __init__(self, limits: AnswerLimits | None = None) -> None:
        self._limits = limits or AnswerLimits()
        self._details: list[_Detail] = []
        self._by_position: dict[tuple[int, str], _Detail] = {}
        self._size = 0
        self._chunk_number = 0
        self._too_large = False

    def add(self, pieces: Any) -> None:
        """Add the details of a chunk: pieces of one index and type continue one another.

        Some providers repeat them whole at the end: a piece that equals the whole text of its field, or begins with it,
        is such a repetition.
        """
        if not isinstance(pieces, list) or self._too_large:
            return
        self._chunk_number += 1
        for piece in pieces:
            if isinstance(piece, dict) and isinstance(piece.get("type"), str):
                self._add_piece(piece)
        if self._size > self._limits.reasoning_details_bytes or len(self._details) > self._limits.reasoning_details:
            self._too_large = True
            self._details.clear()
            self._by_position.clear()

    def signature(self, maker: str = "") -> str | None:
        """Return the signature that carries the details; None: there are none.

        Args:
            maker: The requested model that they go back to; empty: to any model.
        """
        details = [detail for each in self._details if (detail := _assemble(each)) is not None]
        if not details:
            return None
        carried = {"model": maker, "details": details} if maker else details
        text = replace_lone_surrogates(json.dumps(carried, separators=(",", ":"), ensure_ascii=False))
        return _PREFIX + text if len(text.encode()) <= self._limits.reasoning_details_bytes else None

    def _add_piece(self, piece: dict[str, Any]) -> None:
        detail = self._detail(piece)
        detail.chunk_number = self._chunk_number
        fields = detail.fields
        for key, value in piece.items():
            if value is None:
                if key != "index":
                    fields.setdefault(key, None)
            elif key in _STREAMED:
                if isinstance(value, str):
                    self._size += detail.texts.setdefault(key, _StreamedField(_STREAMED[key])).add(value)
            elif fields.get(key) != value and _has_valid_type(key, value):
                self._size += len(key) + (len(value) if isinstance(value, str) else 8)
                fields[key] = value

    def _detail(self, piece: dict[str, Any]) -> _Detail:
        """Return the detail that a piece continues or repeats, or a new one."""
        position = _position(piece)
        known = self._by_position.get(position) if position is not None else self._find_without_index(piece)
        if known is not None:
            own, other = piece.get("id"), known.fields.get("id")
            if not own or not other or own == other:
                return known
        detail = _Detail({}, {}, self._chunk_number)
        self._details.append(detail)
        if position is not None:
            self._by_position[position] = detail
        return detail

    def _find_without_index(self, piece: dict[str, Any]) -> _Detail | None:
        """Return the detail of a piece without an index: one that it repeats, or the last, if it continues that."""
        for each in self._details:
            if (
                each.fields.get("type") == piece["type"]
                and each.chunk_number != self._chunk_number
                and _repeats(each, piece)
            ):
                return each
        last = self._details[-1] if self._details else None
        if last is None or last.chunk_number == self._chunk_number or "index" in last.fields or "data" in piece:
            return None
        return last if last.fields.get("type") == piece["type"] else None


def details_of(message: Any) -> list[dict[str, Any]]:
    """Return the details that a Strands message carries."""
    details: list[dict[str, Any]] = []
    for block in message["content"]:
        text = block.get("reasoningContent", {}).get("reasoningText", {})
        signature = text.get("signature") or ""
        if signature.startswith(_PREFIX):
            carried = json.loads(signature[len(_PREFIX) :])
            details.extend(carried["details"] if isinstance(carried, dict) else carried)
    return details


def maker_of(message: Any) -> str:
    """Return the model that the details of a Strands message go back to; empty: to any model."""
    for block in message["content"]:
        signature = block.get("reasoningContent", {}).get("reasoningText", {}).get("signature") or ""
        if signature.startswith(_PREFIX + "{"):
            return str(json.loads(signature[len(_PREFIX) :])["model"])
    return ""


def _position(piece: dict[str, Any]) -> tuple[int, str] | None:
    index = piece.get("index")
    return (index, piece["type"]) if isinstance(index, int) and not isinstance(index, bool) else None


def _has_valid_type(key: str, value: Any) -> bool:
    if key == "index":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str) or key not in _STRINGS


def _repeats(known: _Detail, piece: dict[str, Any]) -> bool:
    texts = [(key, piece[key]) for key in _STREAMED if isinstance(piece.get(key), str) and piece[key]]
    return bool(texts) and all(key in known.texts and known.texts[key].text == value for key, value in texts)


def _assemble(detail: _Detail) -> dict[str, Any] | None:
    """Return a detail as it can be sent again; None if its type is unknown or a required field is missing."""
    texts = {key: each.text for key, each in detail.texts.items()}
    fields: dict[str, Any] = {}
    for key, value in [*detail.fields.items(), *texts.items()]:
        plain = _json_value(value, _MAX_DEPTH)
        if plain is not None or value is None:
            fields[replace_lone_surrogates(key)] = plain
    required = _REQUIRED.get(fields["type"])
    if required is None or not all(isinstance(fields.get(key), str) for key in required):
        return None
    if fields.get("format") is not None and not _FORMAT.fullmatch(fields["format"]):
        del fields["format"]
    return fields


def _json_value(value: Any, depth: int) -> Any:
    """Return the value of an unknown field as JSON can represent it; what JSON cannot represent becomes None."""
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict) and depth:
        return {replace_lone_surrogates(key): _json_value(each, depth - 1) for key, each in value.items()}
    if isinstance(value, list) and depth:
        return [_json_value(each, depth - 1) for each in value]
    return value if value is None or isinstance(value, (bool, int)) else None
